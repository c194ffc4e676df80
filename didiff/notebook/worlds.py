"""The worlds of `checks`: arguments in which a wrong formula cannot hide.

A world is special in something: unequal weights, as many numbers as samples, another end than 1, a
level for each sample. What is equal, 0 or 1 everywhere hides what is left out, or mistaken.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import torch
from torch import nn

from .. import mixtures
from ..denoiser import Denoiser, loss
from ..guidance import log_prob_of
from ..mixtures import Mixture
from ..networks import MLP, UNet
from ..networks.unet import Attention, Block
from ..process import NoiseLevel
from ..schedules import DDPMSchedule, Schedule, grid, straight, trigonometric
from ..sde import SDE, schedule_sde

World = tuple[str, tuple]  # what is special about it, and the arguments of the function
POINTS = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
TIMES = torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64)
LEVELS = grid(DDPMSchedule(), 5, start=0.9, end=0.1)
_SCHEDULES: dict[str, Schedule] = {
    "on the linear schedule": DDPMSchedule(),
    "on the trigonometric schedule": trigonometric,
    "on the straight schedule": straight,
}
_OMEGAS = (0.0, 1.0, 2.5)
_UNEVEN = {"std": [0.2, 0.6], "weights": [1.0, 3.0], "labels": [0, 1]}  # no part is like another
_MIXTURES = {
    "": mixtures.bimodal(),
    ", of unlike bumps": Mixture(torch.tensor([[-1.0], [0.7]]).double(), **_UNEVEN),
}
_GUIDED = _MIXTURES | {"": mixtures.two_classes()}  # whose posterior is no step
_PLANE = Mixture(torch.tensor([[-1.0, 0.3], [0.7, -0.8]]).double(), **_UNEVEN)


def _in_schedules() -> Iterator[tuple[str, Schedule, Mixture]]:
    for (world, schedule), (like, mixture) in product(_SCHEDULES.items(), _MIXTURES.items()):
        yield world + like, schedule, mixture


def _walks() -> Iterator[World]:
    for world, schedule, mixture in _in_schedules():
        yield world, (mixture, POINTS, grid(schedule, 8, start=0.95))
    in_plane = torch.cat([POINTS, POINTS.flip(0) ** 2 - 1], 1)
    yield "from pure noise, in the plane", (_PLANE, in_plane, grid(straight, 5))


def _noisings() -> Iterator[World]:
    torch.manual_seed(1)
    for shape in [(5, 1), (5, 5), (5, 1, 4, 4)]:  # (5, 5): wrong broadcasting makes no error there
        x0, eps = torch.randn(2, *shape, dtype=torch.float64)
        for world, t in [
            ("with one level", DDPMSchedule().at(300)),
            ("with a level per sample", DDPMSchedule().at([1, 50, 200, 600, 1000])),
        ]:
            yield f"for points {shape} {world}", (x0, eps, t)


def _tables() -> Iterator[World]:
    for T in (1, 10, 1000):
        yield f"for T = {T}", (T,)


def _wieners() -> Iterator[World]:
    for world, times in [
        ("at unequal times", [0.0, 0.1, 0.5, 2.0]),
        ("from another time than 0", [1.0, 1.5, 3.0]),
        ("with as many paths as steps", [0.0, 0.1, 0.4, 0.9, 1.6, 2.5]),  # broadcasts silently
    ]:
        yield world, (torch.tensor(times, dtype=torch.float64), 5)


def _simulations() -> Iterator[World]:
    times = torch.tensor([0.0, 0.1, 0.3, 1.0], dtype=torch.float64)
    for world, sde in [
        ("of a pull", SDE(lambda x, u: -2 * x, lambda u: 0 * u + 3)),  # not 1: roots of sigma show
        ("with rates that change", SDE(lambda x, u: -u * x, lambda u: 1 + u)),
        ("without noise", SDE(lambda x, u: 1 - x, lambda u: 0 * u)),
    ]:
        for shape in [(5,), (5, 2), (5, 1, 4, 4)]:
            torch.manual_seed(1)
            x = torch.randn(shape, dtype=torch.float64)
            yield f"{world} for points {shape}", (sde, x, times)


def _reversals() -> Iterator[World]:
    data, table = mixtures.bimodal(), DDPMSchedule()
    yield "on the linear schedule", (schedule_sde(table), lambda x, u: data.score(x, table(u)))
    growing = SDE(lambda x, u: u * (1 - x), lambda u: 1 + u)  # a clock left unturned shows here
    yield "from another end", (growing, lambda x, u: -x / (1 + u), 2.0)


def _learner(*shape: int) -> Denoiser:
    torch.manual_seed(1)
    return Denoiser(_awake(MLP(shape, 16, 1, classes=3)), "eps")


def _losses() -> Iterator[World]:
    y = torch.arange(9) % 3
    for (world, schedule), shape in product(_SCHEDULES.items(), [(1,), (9,), (1, 4, 4)]):
        denoiser = _learner(*shape)  # (9,): as many numbers as samples
        x0, eps = torch.randn(2, 9, *shape, dtype=torch.float64)
        t: NoiseLevel = schedule(torch.linspace(0.1, 0.9, 9, dtype=torch.float64))
        yield f"{world} for points (9, {shape})", (denoiser, x0, t)
        yield f"{world} for points (9, {shape}) with labels", (denoiser, x0, t, y)
        yield f"{world} for points (9, {shape}) with noise given", (denoiser, x0, t, None, eps)


def _fits() -> Iterator[World]:
    def losses(denoiser, x0, k=None):
        k = torch.randint(1, 1001, (len(x0),)) if k is None else k
        return loss(denoiser, x0, DDPMSchedule().at(k))

    for size, of in [(4, 1), (9, 2)]:
        denoiser, k = _learner(2), torch.randint(1, 1001, (12, size))
        x0 = torch.randn(12, size, 2, dtype=torch.float64)  # another batch every step
        batches = list(zip(x0, k, strict=True) if of == 2 else zip(x0, strict=True))
        yield f"with batches of {size} in {of}", (denoiser, losses, iter(batches), 12, 1e-2)


def _labels() -> Iterator[World]:
    for p, shape in product((0.0, 0.3, 1.0), [(100,), (10, 10)]):  # square: broadcasts silently
        yield f"with p = {p} for labels {shape}", (torch.arange(100).reshape(shape) % 10, p)


def _scores() -> Iterator[World]:
    for world, schedule, mixture in _in_schedules():
        for t in grid(schedule, 3, end=0.1):
            yield f"{world} at clock {t.clock:.2f}", (mixture, POINTS, t)


def _conditions() -> Iterator[World]:
    y = torch.arange(9) % 2
    for (like, mixture), omega in product(_GUIDED.items(), _OMEGAS):
        yield f"at omega = {omega}{like}", (mixture, y, omega)


def _classifiers() -> Iterator[World]:
    for (like, mixture), omega in product(_GUIDED.items(), _OMEGAS):
        yield f"at omega = {omega}{like}", (mixture, log_prob_of(mixture, 1), omega)


def _readings() -> Iterator[World]:
    y, levels = torch.arange(9) % 2, torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    for world, schedule, mixture in _in_schedules():
        yield world, (mixture, POINTS, schedule(levels), y)


def _awake(module: nn.Module) -> nn.Module:
    """A module of random float64 weights: as it begins, a wrong branch may be multiplied by 0."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.double()


def _blocks() -> Iterator[World]:
    torch.manual_seed(1)
    for inputs, outputs in [(16, 16), (32, 16), (8, 32)]:
        made = inputs, outputs, 12
        h = torch.randn(3, inputs, 4, 6, dtype=torch.float64)
        e = torch.randn(3, 12, dtype=torch.float64)
        weights = _awake(Block(*made)).state_dict()
        yield f"from {inputs} to {outputs} channels", (made, weights, (h, e))


def _attentions() -> Iterator[World]:
    torch.manual_seed(1)
    for channels, heads in [(16, 4), (16, 1), (32, 2)]:
        h = torch.randn(3, channels, 4, 6, dtype=torch.float64)
        weights = _awake(Attention(channels, heads)).state_dict()
        yield f"of {channels} channels in {heads} heads", ((channels, heads), weights, (h,))


def _unets() -> Iterator[World]:
    torch.manual_seed(1)
    clock, y = torch.tensor([0.1, 0.5, 0.9]).double(), torch.tensor([1, -1, 0])
    nets: list[tuple[str, dict[str, Any]]] = [
        ("of two levels", {"channels": (4, 8), "patch": 1}),
        ("of three levels", {"channels": (4, 8, 12), "patch": 1}),
        ("that sees squares of pixels", {"channels": (4, 8)}),
        ("without attention", {"channels": (4, 8), "patch": 1, "attention": False}),
        ("without bridges", {"channels": (4, 8), "patch": 1, "skips": False}),
    ]
    for world, options in nets:
        net = _awake(UNet((2, 8, 8), classes=2, **options))
        x = torch.randn(3, 2, 8, 8, dtype=torch.float64)
        yield world, (net, x, clock, y)
        yield f"{world}, without labels", (net, x, clock)


WORLDS: dict[str, Callable[[], Iterator[World]]] = {
    "didiff.process.add_noise": _noisings,
    "didiff.schedules.linear": _tables,
    "didiff.sde.wiener": _wieners,
    "didiff.sde.simulate": _simulations,
    "didiff.sde.reverse": _reversals,
    "didiff.mixtures.Mixture.score": _scores,
    "didiff.denoiser.loss": _losses,
    "didiff.training.drop_labels": _labels,
    "didiff.training.fit": _fits,
    "didiff.samplers.ddim": _walks,
    "didiff.samplers.ddpm": _walks,
    "didiff.samplers.heun": _walks,
    "didiff.samplers.dpm_solver_2m": _walks,
    "didiff.samplers.probability_flow": _walks,
    "didiff.guidance.classifier_free": _conditions,
    "didiff.guidance.classifier": _classifiers,
    "didiff.networks.unet.Block": _blocks,
    "didiff.networks.unet.Attention": _attentions,
    "didiff.networks.unet.UNet.forward": _unets,
    "didiff.classifier.cross_entropy": _readings,
}
