"""How long a hand on a slider waits, and how near that is to what the hardware could do."""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from didiff import ddim, grid, initial_noise, last
from didiff.denoiser import quick
from didiff.notebook.playground import Counted, Playground
from didiff.training import recipes, weights
from tests.benchmarks import Row, at_most, benchmark

IMAGES, STEPS, RUNS = 16, 20, 15


@benchmark
def digits_slider() -> Iterator[Row]:
    """From a slider's move to its first preview and to the final digits with their readout."""
    yield from slider_waits("digits", 0.05, 0.25)


@benchmark
def mnist_slider() -> Iterator[Row]:
    """The same with images of MNIST: guided in one call, as shown first, and in two."""
    yield from slider_waits("mnist_guided", 0.1, 0.4)
    yield from slider_waits("mnist", None, None)


@benchmark
def digits_ratio_to_matmul() -> Iterator[Row]:
    """Time of the walk alone over that of as many multiply-adds in one large matrix product."""
    yield from ratio_to_matmul("digits", None)


@benchmark
def mnist_ratio_to_matmul() -> Iterator[Row]:
    """The same with images of MNIST."""
    yield from ratio_to_matmul("mnist", 3)


def slider_waits(name: str, first_goal: float | None, final_goal: float | None) -> Iterator[Row]:
    denoiser = Counted(quick(weights.load(name)))  # as the lessons do
    guided = recipes.guidance_of(denoiser)
    play = Playground(
        {"guided": lambda y, omega: guided(denoiser, y, omega)},
        {"denoiser": denoiser},
        lambda steps: grid(recipes.SCHEDULE, steps),
        shape=denoiser.net.shape,
    )
    frames, shown = play.frames, []

    def timed(**setting):
        for frame in frames(**setting):
            yield frame
            shown.append(time.perf_counter())  # asked to go on: the frame has been shown

    play.frames = timed  # type: ignore[method-assign, assignment]
    explorer = play.explorer()
    explorer.wait()
    waits = []
    for k in range(RUNS):
        shown.clear()
        torch.ones(10**6).exp()  # a cell has computed in the meantime
        start = time.perf_counter()
        explorer["omega"].value = k / 2
        explorer.wait()
        waits.append((shown[0] - start, time.perf_counter() - start))
    first, final = map(statistics.median, zip(*waits, strict=True))
    yield promised(f"{name}_first_preview_s", first, first_goal, "s")
    yield promised(f"{name}_final_s", final, final_goal, "s")


def ratio_to_matmul(name: str, goal: float | None) -> Iterator[Row]:
    denoiser, size = weights.load(name), 2048
    a = torch.randn(size, size)
    product = median_time(lambda: a @ a)
    walk = median_time(lambda: guided_walk(denoiser))
    with FlopCounterMode(display=False) as counter:
        guided_walk(denoiser)
    ratio = walk / (product * counter.get_total_flops() / (2 * size**3))
    yield Row("matmul_2048_gflops", 2 * size**3 / product / 1e9, "GFLOP/s")
    yield Row(f"{name}_walk_s", walk, "s")
    yield promised(f"{name}_ratio_to_matmul", ratio, goal, "")


def promised(name: str, value: float, goal: float | None, unit: str) -> Row:
    """A row with a goal, or with none where nothing is promised."""
    return Row(name, value, unit) if goal is None else at_most(name, value, goal, unit)


def guided_walk(denoiser) -> torch.Tensor:
    """Sixteen guided images, one of each class and six more."""
    y, levels = torch.arange(IMAGES) % 10, grid(recipes.SCHEDULE, STEPS)
    chance = torch.Generator().manual_seed(0)
    noise = initial_noise((IMAGES, *denoiser.net.shape), levels[0], chance, torch.float32)
    return last(ddim(recipes.guidance_of(denoiser)(denoiser, y, 3.0), noise, levels))


def median_time(work: Callable[[], object], runs: int = RUNS) -> float:
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
