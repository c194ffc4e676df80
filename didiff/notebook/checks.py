"""Checks: is a function written in a notebook the same as the library's?

`twin(name, function)` compares the two in several worlds with the same random numbers. The course
uses it for its own cells, and a student for an answer: the message says what is off, and where. A
module, a part of a network, is compared with the library's of the same weights.
"""

import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .. import mixtures
from ..denoiser import Denoiser, loss
from ..networks import MLP, UNet
from ..networks.unet import Attention, Block
from ..process import NoiseLevel
from ..samplers import State
from ..schedules import DDPMSchedule, Schedule, grid, straight, trigonometric
from ..sde import SDE, schedule_sde

World = tuple[str, tuple]  # what is special about it, and the arguments of the function


def twin(name: str, function: Callable) -> None:
    """Compare `function` with the library function of that dotted name, in every world of it.

    Raises AssertionError that names the world and the first difference; ValueError for a name that
    has no worlds.
    """
    if name not in WORLDS:
        raise ValueError(f"no check for {name!r}: there are checks for {', '.join(sorted(WORLDS))}")
    original = pkgutil.resolve_name(name)
    worlds = [list(WORLDS[name]()) for _ in range(2)]  # two of each: `fit` changes its arguments
    for (world, arguments), (_, again) in zip(*worlds, strict=True):
        wanted, got = _run(original, arguments), _run(function, again)
        _compare(f"{original.__name__} {world}", got, wanted)


def _run(function: Callable, arguments: tuple) -> Any:
    """The result under a fixed seed; walks, fits and made denoisers are followed to numbers."""
    torch.manual_seed(0)
    if isinstance(function, type):
        return _answer(function, *arguments)
    result = function(*arguments)
    if isinstance(result, Iterator):
        return [state if isinstance(state, (State, Tensor)) else state[:2] for state in result]
    if isinstance(result, SDE):
        return [(result.drift(POINTS, u), result.diffusion(u)) for u in TIMES]
    if callable(result) and not isinstance(result, Tensor):
        return [result(POINTS, t) for t in LEVELS]
    return result


def _answer(module: type[nn.Module], made: tuple, weights: dict, given: tuple) -> Tensor:
    """What a module made of `made`, with these weights, says to `given`."""
    own = module(*made).double()
    try:
        own.load_state_dict(weights)
    except RuntimeError as error:  # it names what is missing, and what has another shape
        raise AssertionError(f"name the layers as the library does: {error}") from error
    return own(*given)


def _compare(where: str, got, wanted) -> None:
    """Equal to 1e-9, through lists and tuples; a State is compared by its point and its guess."""
    if isinstance(wanted, (list, tuple)):
        assert isinstance(got, (list, tuple)), (
            f"{where}: gives {type(got).__name__}, not a sequence"
        )
        assert len(got) == len(wanted), (
            f"{where}: gives {len(got)} of them, the library {len(wanted)}"
        )
        names = getattr(wanted, "_fields", range(len(wanted)))
        for part, a, b in zip(names, got, wanted, strict=True):
            _compare(f"{where}, {part}" if isinstance(part, str) else f"{where} [{part}]", a, b)
        return
    got, wanted = torch.as_tensor(got), torch.as_tensor(wanted)
    assert got.shape == wanted.shape, (
        f"{where}: shape {tuple(got.shape)}, not {tuple(wanted.shape)}"
    )
    off = (got.double() - wanted.double()).abs()
    worst = torch.where(got.isnan() != wanted.isnan(), torch.inf, off.nan_to_num()).max()
    assert worst <= 1e-9, f"{where}: differs by up to {worst:.3g}"


# --- worlds: arguments in which a wrong formula cannot hide ---------------------------------------


POINTS = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
TIMES = torch.tensor([0.1, 0.4, 0.8], dtype=torch.float64)
LEVELS = grid(DDPMSchedule(), 5, start=0.9, end=0.1)
_SCHEDULES: dict[str, Schedule] = {
    "on the linear schedule": DDPMSchedule(),
    "on the trigonometric schedule": trigonometric,
    "on the straight schedule": straight,
}


def _walks() -> Iterator[World]:
    for world, schedule in _SCHEDULES.items():
        yield world, (mixtures.bimodal(), POINTS, grid(schedule, 8, start=0.95))


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


def _losses() -> Iterator[World]:
    torch.manual_seed(1)
    denoiser = Denoiser(MLP((1,), 16, 1).double(), "eps")
    for world, schedule in _SCHEDULES.items():
        t: NoiseLevel = schedule(torch.linspace(0.1, 0.9, 9, dtype=torch.float64)).like(POINTS)
        yield world, (denoiser, POINTS, t)


def _fits() -> Iterator[World]:
    for world, size in [("with batches of 4", 4), ("with batches of 9", 9)]:
        torch.manual_seed(1)
        denoiser = Denoiser(MLP((1,), 16, 1).double(), "eps")

        def losses(denoiser, x0):
            return loss(denoiser, x0, DDPMSchedule().at(torch.randint(1, 1001, (len(x0),))))

        yield world, (denoiser, losses, iter([(POINTS[:size],)] * 12), 12, 1e-2)


def _labels() -> Iterator[World]:
    for p in (0.0, 0.3, 1.0):
        yield f"with p = {p}", (torch.arange(60).reshape(6, 10) % 10, p)


def _scores() -> Iterator[World]:
    for world, schedule in _SCHEDULES.items():
        for t in grid(schedule, 3, end=0.1):
            yield f"{world} at clock {t.clock:.2f}", (mixtures.bimodal(), POINTS, t)


def _conditions() -> Iterator[World]:
    y = torch.arange(9) % 2
    for omega in (0.0, 1.0, 2.5):
        yield f"at omega = {omega}", (mixtures.two_classes(), y, omega)


def _classifiers() -> Iterator[World]:
    mixture = mixtures.two_classes()
    for omega in (0.0, 1.0, 2.5):
        yield (
            f"at omega = {omega}",
            (mixture, lambda x, t: mixture.class_log_prob(x, t)[:, 1], omega),
        )


def _readings() -> Iterator[World]:
    y = torch.arange(9) % 2
    for world, schedule in _SCHEDULES.items():
        t: NoiseLevel = schedule(torch.linspace(0.1, 0.9, 9, dtype=torch.float64))
        yield world, (mixtures.two_classes(), POINTS, t, y)


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
