"""The models we train, each a few lines over `fit`, and the numbers that say how good they are.

Lessons write the same lines out; the command line and the benchmarks call them.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from . import data, guidance, metrics
from .denoiser import Denoiser, loss
from .files import sha256
from .mixtures import Mixture
from .networks import MLP
from .process import add_noise
from .samplers import ddim, initial_noise, last
from .schedules import DDPMSchedule, cosine, grid
from .training import Progress, drop_labels, fit, random_steps
from .weights import build


class Recipe(NamedTuple):
    """A model that is kept: how to train and to judge it, and what its card says of its making."""

    train: Callable[[int, int], Iterator[Progress[Denoiser]]]  # (steps, seed)
    steps: int
    quality: Callable[[Denoiser], dict]
    card: Callable[[], dict]


# --- digits --------------------------------------------------------------------------------------

DIGITS_NETWORK = {"network": "MLP", "shape": [1, 8, 8], "width": 256, "depth": 3, "classes": 10}
DIGITS_SCHEDULE = DDPMSchedule(1000, cosine)


def digits(steps: int = 2000, seed: int = 0) -> Iterator[Progress[Denoiser]]:
    """A conditional model of the digits' training half; labels are dropped, so it can be guided.

    2,000 steps take about half a minute on two CPU cores. Lesson: 11_classifier_free_guidance.
    """
    torch.manual_seed(seed)
    denoiser = Denoiser(build(DIGITS_NETWORK), "v", sigma_data=0.75)  # pixels' standard deviation

    def losses(model: Denoiser, x0: Tensor, y: Tensor) -> Tensor:
        t = random_steps(DIGITS_SCHEDULE, len(x0))
        return loss(model, x0, t, drop_labels(y, 0.15))

    batches = data.batches(*data.digits("train"), size=128, seed=seed)
    return fit(denoiser, losses, batches, steps, lr=3e-3, ema=0.995, warmup=100)


def sample_digits(denoiser, y: Tensor, omega: float, steps: int = 20, seed: int = 0) -> Tensor:
    """Guided digits of the classes y (B,), (B, 1, 8, 8), by DDIM from pure noise of that seed."""
    levels = grid(DIGITS_SCHEDULE, steps)
    shape, generator = (len(y), 1, 8, 8), torch.Generator().manual_seed(seed)
    noise = initial_noise(shape, levels[0], generator, torch.float32)
    return last(ddim(guidance.classifier_free(denoiser, y, omega), noise, levels))


def digits_quality(denoiser) -> dict:
    """Share recognised and diversity of 1,000 digits, 100 a class, at omega = 1 and omega = 3."""
    y = torch.arange(10).repeat_interleave(100)
    made = {omega: sample_digits(denoiser, y, omega) for omega in (1, 3)}
    return {
        f"omega_{omega}": {
            "recognised": metrics.recognised(images, y),
            "diversity": round(metrics.diversity(images, y), 4),
        }
        for omega, images in made.items()
    }


def digits_card() -> dict:
    """Data, network and schedule of the digits, as the card of the weights tells them."""
    x, y = data.digits("train")
    return {
        "architecture": DIGITS_NETWORK,
        "dataset": "the training half of scikit-learn's digits, didiff.data.digits('train')",
        "dataset_sha256": sha256(x.numpy().tobytes() + y.numpy().tobytes()),
        "schedule": "DDPMSchedule(1000, cosine)",
    }


RECIPES = {"digits": Recipe(digits, 4000, digits_quality, digits_card)}


# --- points of a mixture, whose best denoiser is known -------------------------------------------


def points(mixture: Mixture, steps: int = 1000, seed: int = 0) -> Iterator[Progress[Denoiser]]:
    """A network taught on endless fresh points of a mixture.

    It predicts v: its score near the data is two to six times as exact as an eps-network's,
    whose small error is divided by noise there. Lesson: 06_score_and_noise.
    """
    torch.manual_seed(seed)
    schedule = DDPMSchedule(1000)
    denoiser = Denoiser(MLP(mixture.means.shape[1:], width=64, depth=2), "v")
    supply = ((mixture.sample(512)[0].float(), random_steps(schedule, 512)) for _ in count())
    return fit(denoiser, loss, supply, steps, lr=4e-3, ema=0.99)


@torch.no_grad()
def points_quality(denoiser, mixture: Mixture, n: int = 100_000, seed: int = 0) -> dict[str, float]:
    """How far a denoiser is from the exact one, on n fresh points at the lectures' 1,000 levels.

    loss, floor: mean squared error of eps, its own and the exact one's, on the same points and
    noise. excess: loss / floor - 1. score_error: mean of |s - s*|^2; score_size: of |s*|^2.
    """
    torch.manual_seed(seed)
    x0, t = mixture.sample(n)[0].float(), random_steps(DDPMSchedule(1000), n)
    eps = torch.randn_like(x0)
    ours, floor = (loss(d, x0, t, eps=eps, target="eps").mean().item() for d in (denoiser, mixture))
    xt, noise = add_noise(x0, eps, t), t.like(x0).noise
    exact = mixture(xt, t).eps / noise
    error = denoiser(xt, t).eps / noise - exact
    size, off = (v.square().flatten(1).sum(1).mean().item() for v in (exact, error))
    return {
        "loss": ours,
        "floor": floor,
        "excess": ours / floor - 1,
        "score_error": off,
        "score_size": size,
    }
