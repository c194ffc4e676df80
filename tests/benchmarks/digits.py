"""Digits: are they recognised, how long does a hand wait, and how near is that to the hardware."""

import statistics
import time
from collections.abc import Callable, Generator, Iterator

import torch

from didiff import Denoiser, ddim, grid, guidance, initial_noise, metrics, recipes, weights
from didiff.pictures import mosaic, png
from didiff.widgets import Explorer, Frame, slider
from tests.benchmarks import Row, at_least, at_most, benchmark

IMAGES, STEPS, RUNS = 16, 20, 31
GOALS = {"omega_1": 0.95, "omega_3": 0.99}


def quality(denoiser, which: str) -> Iterator[Row]:
    for circumstances, numbers in recipes.images_quality(denoiser).items():
        omega = circumstances.replace("_", "")
        name = f"digits_recognised_{omega}_{which}"
        yield at_least(name, numbers["recognised"], GOALS[circumstances], "")
        yield Row(f"digits_diversity_{omega}_{which}", numbers["diversity"], "real")


@benchmark
def digits_shipped() -> Iterator[Row]:
    """1,000 guided digits of the shipped model, and what the judge makes of real ones."""
    yield Row("digits_recognised_real", metrics.recognised(*recipes.data.digits("train")), "")
    yield from quality(weights.load("digits"), "shipped")


@benchmark
def digits_live() -> Iterator[Row]:
    """The same of a model trained here and now."""
    wall, processor = time.perf_counter(), time.process_time()
    *_, end = recipes.digits()
    yield at_most("digits_live_wall_s", time.perf_counter() - wall, 60, "s")
    yield Row("digits_live_processor_s", time.process_time() - processor, "s")
    yield from quality(end.ema, "live")


@benchmark
def digits_slider() -> Iterator[Row]:
    """From a slider's move to its first preview and to the final picture with its readout."""
    denoiser = weights.load("digits")
    shown: list[float] = []  # when each preview was

    def frames(omega: float) -> Generator[Frame, None, None]:
        walk, y = guided_walk(denoiser, omega)
        for state in walk:
            if not shown:
                yield Frame(png(mosaic(state.x0, 8, 8)), "expected")
                shown.append(time.perf_counter())  # asked to go on: the preview has been shown
        readout = f"{metrics.recognised(state.x, y)} {metrics.diversity(state.x, y)}"
        yield Frame(png(mosaic(state.x, 8, 8)), readout)

    def move(omega: float) -> tuple[float, float]:
        shown.clear()
        start = time.perf_counter()
        explorer["omega"].value = omega
        explorer.wait()
        return shown[0] - start, time.perf_counter() - start

    explorer = Explorer(
        frames, {"omega": slider("guidance scale ω", 0.0, 10.0, value=0.0, step=0.1)}
    )
    explorer.wait()
    first, last = zip(*(move(k / 10) for k in range(1, RUNS + 1)), strict=True)
    yield at_most("digits_first_preview_s", statistics.median(first), 0.05, "s")
    yield at_most("digits_guided_final_s", statistics.median(last), 0.25, "s")


@benchmark
def digits_ratio_to_matmul() -> Iterator[Row]:
    """Time of the walk alone over that of as many multiply-adds in one large matrix product."""
    denoiser, size = weights.load("digits"), 2048
    a = torch.randn(size, size)
    product = median_time(lambda: a @ a)
    walk = median_time(lambda: list(guided_walk(denoiser, 3.0)[0]))
    calls = 2 * STEPS * IMAGES  # with and without the label
    counted = calls * multiply_adds(denoiser)
    yield Row("matmul_2048_gflops", 2 * size**3 / product / 1e9, "GFLOP/s")
    yield Row("digits_walk_s", walk, "s")
    yield Row("digits_ratio_to_matmul", walk / (product * counted / size**3), "")


def guided_walk(denoiser: Denoiser, omega: float):
    """A lazy walk to sixteen digits, one of each class and six more, and their classes."""
    y, levels = torch.arange(IMAGES) % 10, grid(recipes.SCHEDULE, STEPS)
    noise = initial_noise((IMAGES, 1, 8, 8), levels[0], torch.Generator().manual_seed(0))
    return ddim(guidance.classifier_free(denoiser, y, omega), noise.float(), levels), y


def multiply_adds(denoiser: Denoiser) -> int:
    """Of one call with one image: each weight of a linear layer is used once."""
    layers = [m for m in denoiser.net.modules() if isinstance(m, torch.nn.Linear)]
    return sum(layer.weight.numel() for layer in layers)


def median_time(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
