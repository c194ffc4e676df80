"""The same work done with diffusers: https://huggingface.co/docs/diffusers. pip install diffusers

Its small U-Net and its schedulers against ours: time per picture, quality after equal training, and
whether both samplers walk the same path.
"""

import functools
import importlib.util
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

from didiff import Denoiser, data, ddim, dpm_solver_2m, grid, initial_noise, last, mixtures
from didiff.denoiser import quick
from didiff.training import Progress, fit, recipes
from didiff.training.weights import build
from tests.benchmarks import Benchmark, Row, at_least, at_most, benchmark
from tests.benchmarks.quality import recognised
from tests.benchmarks.speed import IMAGES, STEPS, guided_walk, median_time

TRAINING_S = 300  # of processor time, for each of two networks


def against_diffusers(function: Benchmark) -> Benchmark:
    """A benchmark that is left out, and says so, where diffusers is not installed."""

    @functools.wraps(function)
    def compared() -> Iterable[Row]:
        if importlib.util.find_spec("diffusers"):
            return function()
        print(f"{function.__name__} left out: pip install diffusers", file=sys.stderr)
        return []

    return benchmark(compared)


class Theirs(nn.Module):
    """UNet2DModel as one of our networks: (x (B, *shape), clock (B,), y (B,) or None) -> like x."""

    shape = (1, 28, 28)
    net: Any

    def __init__(self):
        super().__init__()
        from diffusers import UNet2DModel

        down = ("DownBlock2D", "DownBlock2D", "AttnDownBlock2D")
        up = ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D")
        self.net = UNet2DModel(
            28, 1, 1, block_out_channels=(32, 64, 64), layers_per_block=2,
            down_block_types=down, up_block_types=up, num_class_embeds=11,
        )  # fmt: skip

    def forward(self, x: Tensor, clock: Tensor, y: Tensor | None = None) -> Tensor:
        labels = torch.zeros(len(x), dtype=torch.long) if y is None else y + 1
        return self.net(x, 1000 * clock, labels).sample


def scheduler(kind: str, schedule=recipes.SCHEDULE, prediction: str = "v_prediction"):
    """Their scheduler on our table, visiting the levels of our grid of STEPS steps."""
    import diffusers

    options = {"lower_order_final": False} if kind.startswith("DPM") else {"clip_sample": False}
    theirs = getattr(diffusers, kind)(
        schedule.T, trained_betas=schedule.beta.numpy(), prediction_type=prediction,
        timestep_spacing="trailing", **options,
    )  # fmt: skip
    theirs.set_timesteps(STEPS)
    return theirs


@against_diffusers
def diffusers_speed() -> Iterator[Row]:
    """Sixteen guided images in twenty steps, each with its own network and sampler.

    As shown: theirs as its documentation runs it, in float32, ours as the lessons' sliders run it:
    the network that has learnt guidance, in bfloat16 where the processor computes in that.
    Float32, both quick: the same guidance in two guesses for both. Quick: the faster of theirs.
    """
    net, ours, theirs = Theirs().eval(), Denoiser(build(recipes.MNIST_NETWORK)).eval(), scheduler
    y, noise = torch.arange(IMAGES) % 10, torch.randn(IMAGES, *Theirs.shape)
    labels = torch.cat([torch.full_like(y, -1), y])

    @torch.no_grad()
    def walk(dtype=None) -> Tensor:
        x, steps = noise, theirs("DDIMScheduler")
        for k in steps.timesteps:
            clock = (recipes.SCHEDULE.at(int(k) + 1).clock).float().expand(2 * IMAGES)
            with torch.autocast("cpu", dtype, enabled=dtype is not None):
                plain, guided = net(torch.cat([x, x]), clock, labels).float().chunk(2)
            x = steps.step(plain + 3.0 * (guided - plain), k, x).prev_sample
        return x

    shown = quick(Denoiser(build(recipes.GUIDED_NETWORK)).eval())
    times = {
        "diffusers_walk_s": median_time(walk, 3),
        "diffusers_walk_bfloat16_s": median_time(lambda: walk(torch.bfloat16), 3),
        "ours_walk_s": median_time(lambda: guided_walk(ours)),
        "ours_walk_quick_s": median_time(lambda: guided_walk(quick(ours))),
        "ours_walk_shown_s": median_time(lambda: guided_walk(shown)),
    }
    for name, seconds in times.items():
        yield Row(name, seconds, "s")
    theirs_s, theirs_quick_s, ours_s, ours_quick_s, shown_s = times.values()
    yield at_least("diffusers_walk_to_ours_as_shown", theirs_s / shown_s, 10, "times")
    yield at_least("diffusers_walk_to_ours_float32", theirs_s / ours_s, 10, "times")
    faster = min(theirs_s, theirs_quick_s)
    yield at_least("diffusers_walk_to_ours_both_quick", faster / ours_quick_s, 10, "times")


@against_diffusers
def diffusers_quality() -> Iterator[Row]:
    """Both networks, taught in the same way for the same processor time."""
    for which, net in (("diffusers", Theirs()), ("ours", build(recipes.MNIST_NETWORK))):
        end = taught(net)
        yield Row(f"{which}_training_steps", end.step, "of 128 images")
        yield from recognised(f"{which}_equal_time", end.ema, {1: 0.0, 2: 0.0}, 500)


def taught(net: nn.Module) -> Progress[Denoiser]:
    """The end of a training that TRAINING_S seconds of processor time are enough for."""
    torch.manual_seed(0)
    denoiser = Denoiser(net, "v", recipes.MNIST_STD)
    batches = data.batches(*data.mnist("train"), size=128)
    until = time.process_time() + TRAINING_S
    run = fit(denoiser, recipes.dropping(0.1), batches, 10**6, lr=1.5e-3, ema=0.99, clip=1.0)
    return deque(takewhile(lambda _: time.process_time() < until, run), maxlen=1)[0]


@against_diffusers
def diffusers_samplers() -> Iterator[Row]:
    """How far apart both samplers end, on an exact mixture, from the same noise."""
    world = mixtures.three_modes()
    levels = grid(recipes.SCHEDULE, STEPS)
    noise = initial_noise(
        (1000, *world.means.shape[1:]), levels[0], torch.Generator().manual_seed(0)
    )
    for kind, ours in (("DDIMScheduler", ddim), ("DPMSolverMultistepScheduler", dpm_solver_2m)):
        theirs, x = scheduler(kind, prediction="sample"), noise
        for k in theirs.timesteps:
            guess = world(x, recipes.SCHEDULE.at(int(k) + 1)).x0
            x = theirs.step(guess, k, x).prev_sample
        apart = (x - last(ours(world, noise, levels))).abs().max().item()
        yield at_most(f"{kind}_apart", apart, 1e-3, "")  # their table is in single precision
