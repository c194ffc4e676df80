"""A playground for guidance: controls over methods, seen from the samples and along the path.

A method is a function (y (B,), omega) -> guided denoiser, so a lesson's whole playground is a dict:

    D, C = Counted(quick(weights.load("mnist"))), Counted(weights.load("mnist_classifier"))
    methods = {
        "classifier-free": lambda y, omega: guidance.classifier_free(D, y, omega),
        "classifier": lambda y, omega: guidance.classifier(
            guidance.condition(D, None), guidance.log_prob_of(C, y), omega
        ),
    }
    play = Playground(methods, {"denoiser": D, "classifier": C}, lambda n: grid(SCHEDULE, n, 0.99))
    play.explorer().show(alt="sixteen guided digits", still_over="omega")
    play.trajectory().show(alt="eight digits on their way", still_over="stop")
"""

import functools
import math
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .. import samplers
from ..process import NoiseLevel
from ..samplers import State
from ..training import metrics
from .pictures import mosaic, png
from .widgets import Explorer, Frame, choice, slider

SAMPLERS: dict[str, Callable[..., Iterator[State]]] = {
    "DDIM": lambda denoiser, x, levels, _: samplers.ddim(denoiser, x, levels),
    "DDPM": lambda denoiser, x, levels, chance: samplers.ddpm(
        denoiser, x, levels, generator=chance
    ),
    "Heun": lambda denoiser, x, levels, _: samplers.heun(denoiser, x, levels),
    "DPM-Solver++(2M)": lambda denoiser, x, levels, _: samplers.dpm_solver_2m(denoiser, x, levels),
}
"""Functions (denoiser, x, levels, generator) -> states."""

ONE_OF_EACH = -1  # the choice of no class in particular
CLASSES = {"one of each": ONE_OF_EACH, **{f"only {k}": k for k in range(10)}}
IMAGES, COLUMNS, WIDTH = 16, 8, 640  # of a picture: how many images, in rows of 8; pixels, about
RARE = ("sampler", "seed")  # controls behind a button, so that the others stand by the picture
PREVIEWS = 5  # pictures on the way: a hand sees motion, and drawing costs less than walking


class Counted:
    """A denoiser or a classifier that counts how often it is asked, and is itself in all else.

    Each thread has a count of its own: two sliders that move at once do not pay for one another.
    """

    def __init__(self, model):
        self._model, self._count = model, threading.local()

    @property
    def asked(self) -> int:
        """About how many images this thread has asked it so far: a doubled batch costs double."""
        return getattr(self._count, "images", 0)

    def _note(self, x: Tensor) -> None:
        self._count.images = self.asked + len(x)

    def __call__(self, x: Tensor, t: NoiseLevel, *told: Tensor | None):
        self._note(x)
        return self._model(x, t, *told)

    def class_log_prob(self, x: Tensor, t: NoiseLevel) -> Tensor:
        """log p(y | xt) of every class, (B, classes)."""
        self._note(x)
        return self._model.class_log_prob(x, t)

    def __getattr__(self, name: str):
        return getattr(self._model, name)


class Path(NamedTuple):
    """A walk to images of the classes y (B,), with the states that somebody has looked at."""

    y: Tensor
    walk: Iterator[State]
    states: list[State]


class Playground:
    """Guided images by method, class, omega, steps, sampler and seed; from one seed, one noise.

    methods: {name: (y (B,), omega) -> guided denoiser}. counted: the models inside them, {name:
    Counted}, whose evaluations the readout tells; all is computed where their weights are. levels:
    steps -> list of noise levels, noise first (classifier guidance must start below pure noise).
    shape: of one image, such that `metrics` has a judge for it. omega, steps: where their sliders
    stand at first.
    Raises ValueError if there is no method. Lesson: 10, 11.
    """

    def __init__(
        self, methods: Mapping[str, Callable], counted: Mapping[str, Counted],
        levels: Callable[[int], list[NoiseLevel]], *, shape: tuple = (1, 28, 28),
        omega: float = 3.0, steps: int = 7,
    ):  # fmt: skip
        if not methods:
            raise ValueError("a playground needs a method: {name: (y, omega) -> guided denoiser}")
        self.methods, self.counted, self.levels = dict(methods), dict(counted), levels
        self.shape, self.omega, self.steps = tuple(shape), omega, steps
        self._scale = round(WIDTH / (COLUMNS * (self.shape[-1] + 1)))  # pixels per pixel
        self._width = self._scale * (COLUMNS * (self.shape[-1] + 1) - 1)

    def explorer(self) -> Explorer:
        """Sixteen images: the first guesses at once, then the samples and what they are worth."""
        steps = slider("sampler steps", 1, max(50, self.steps), value=self.steps)
        return Explorer(self.frames, self._controls(steps=steps), self._width, RARE)

    def trajectory(self) -> Explorer:
        """Eight images on their way: xt above, the predicted x0 below, at a stop of the path."""
        stop = slider(f"steps walked, of {self.steps}:", 0, self.steps, value=0)
        paths = functools.lru_cache(maxsize=1)(self._path)  # moving `stop` only looks it up

        def frames(stop, **setting):
            try:
                yield from self._along(paths(**setting), stop)
            except Exception:
                paths.cache_clear()  # a walk that broke cannot go on
                raise

        return Explorer(frames, self._controls(stop=stop), self._width, RARE)

    def frames(self, method, digit, omega, steps, sampler, seed) -> Generator[Frame, None, None]:
        """Previews of x0 between the steps of a walk, then its end, judged and paid for.

        One frame a step, so that a run may be abandoned there; most show the last one again.
        """
        y, before = labels(digit, IMAGES), self._asked()
        often = math.ceil(steps / PREVIEWS)
        for k, state in enumerate(self.walk(method, y, omega, steps, sampler, seed)):
            if k == steps:
                yield Frame(self._draw(state.x), f"{worth(state.x, y)} · {self._price(before)}")
            else:
                if k % often == 0:
                    frame = Frame(self._draw(state.x0), f"expected after {k} of {steps} steps")
                yield frame

    def walk(self, method, y: Tensor, omega, steps, sampler, seed) -> Iterator[State]:
        """The states of a guided walk to images of the classes y (B,)."""
        levels, chance = self.levels(steps), torch.Generator().manual_seed(seed)
        noise = samplers.initial_noise((len(y), *self.shape), levels[0], chance, torch.float32)
        y, noise = y.to(self._device()), noise.to(self._device())
        return SAMPLERS[sampler](self.methods[method](y, omega), noise, levels, chance)

    # -- parts --------------------------------------------------------------------------------

    def _controls(self, **own) -> dict:
        return {
            "method": choice("method", list(self.methods), value=next(iter(self.methods))),
            "digit": choice("class", CLASSES, value=ONE_OF_EACH),
            "omega": slider("guidance scale ω", 0.0, 10.0, value=self.omega, step=0.5),
            **own,
            "sampler": choice("sampler", list(SAMPLERS), value="DDIM"),
            "seed": slider("seed of the noise", 0, 9, value=0),
        }

    def _path(self, method, digit, omega, sampler, seed) -> Path:
        y = labels(digit, COLUMNS)
        return Path(y, self.walk(method, y, omega, self.steps, sampler, seed), [])

    def _along(self, path: Path, stop: int) -> Generator[Frame, None, None]:
        while len(path.states) <= stop:
            path.states.append(next(path.walk))
            yield self._look(path, len(path.states) - 1)
        yield self._look(path, stop)

    def _look(self, path: Path, k: int) -> Frame:
        x, t, x0, _ = path.states[k]
        where = f"step {k} of {self.steps}: clock {t.clock:.2f}"
        mixed = f"xt = {t.signal:.2f} x0 + {t.noise:.2f} eps"
        ink = (x0.cpu() > 0).double().mean()  # differs even where all are recognised
        words = f"{where} · {mixed} · x0 {worth(x0, path.y)} · ink {ink:.1%}"
        return Frame(self._draw(torch.cat([x, x0])), words)

    def _draw(self, images: Tensor) -> bytes:
        # what overflowed is shown as grey, and told by `worth`
        return png(mosaic(images.nan_to_num(0.0, 0.0, 0.0), COLUMNS, self._scale))

    def _device(self) -> torch.device:
        """Where the models' weights are; an exact model has none, and follows its points."""
        models = self.counted.values()
        weights = (weight for model in models for weight in getattr(model, "parameters", tuple)())
        return next((weight.device for weight in weights), torch.device("cpu"))

    def _asked(self) -> dict[str, int]:
        return {name: model.asked for name, model in self.counted.items()}

    def _price(self, before: dict[str, int]) -> str:
        each = {name: (asked - before[name]) / IMAGES for name, asked in self._asked().items()}
        return "evaluations: " + " + ".join(f"{n:g} {name}" for name, n in each.items() if n)


def labels(digit: int, n: int) -> Tensor:
    """n labels (n,): all `digit`, or 0..9 in turn for ONE_OF_EACH."""
    return torch.arange(n) % 10 if digit == ONE_OF_EACH else torch.full((n,), digit)


def worth(images: Tensor, y: Tensor) -> str:
    """In words: how many of the images (B, *d) a judge recognises as y (B,), and how they differ.

    Saturated: the share of pixels beyond +-1.05, blacker than black or whiter than white. Says how
    many images are not numbers any more, if any: a judge would guess.
    """
    images, y = images.cpu(), y.cpu()  # not every device has a judge, or double precision
    broken = int((~images.isfinite()).flatten(1).any(1).sum())
    if broken:
        return f"{broken} of {len(y)} images overflowed: take more steps or a smaller ω"
    words = [f"recognised {round(len(y) * metrics.recognised(images, y))} of {len(y)}"]
    spread, beyond = metrics.diversity(images, y), (images.abs() > 1.05).double().mean()
    if not math.isnan(spread):
        words.append(f"diversity {spread:.2f} (real: 1)")
    return " · ".join([*words, f"saturated {beyond:.0%}"])
