"""What all recipes share: how a run is carried out and told on a card, and how images are drawn."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import guidance
from ..data.files import sha256
from ..mixtures import as_labels
from ..process import NoiseLevel, Prediction
from ..samplers import ddim, initial_noise, last
from ..schedules import DDPMSchedule, cosine, grid
from . import metrics
from .loop import Progress


class Run(NamedTuple):
    """How a run is carried out, which changes its duration and hardly its result.

    checkpoint: a file to keep its state in, and to go on from. dtype: the precision of the network.
    """

    checkpoint: Path | None = None
    dtype: torch.dtype | None = None


PLAIN = Run()


class Recipe(NamedTuple):
    """A model that is kept: how to train and to judge it, and what its card says of its making."""

    train: Callable[[int, int, Run], Iterator[Progress]]  # (steps, seed, run)
    steps: int
    quality: Callable[[Any], dict]
    card: Callable[[], dict]


SCHEDULE = DDPMSchedule(1000, cosine)
"""What all models of images are taught on."""


def sample(
    denoiser, y: Tensor, omega: float, steps: int = 20, seed: int = 0, eta: float = 0.0
) -> Tensor:
    """Guided images of the classes y (B,), (B, *shape), by DDIM from pure noise of that seed.

    The shape is that of the denoiser's network. eta: share of the noise redrawn, in 0..1. The
    images are made on the CPU, and are nearly the same wherever the network is.
    """
    levels, generator, y = grid(SCHEDULE, steps), torch.Generator().manual_seed(seed), as_labels(y)
    noise = initial_noise((len(y), *denoiser.net.shape), levels[0], generator, torch.float32)
    near, guided = _from_cpu(denoiser), guidance_of(denoiser)
    walks = (
        ddim(guided(near, labels, omega), part, levels, eta, generator)
        for part, labels in zip(noise.split(metrics.AT_ONCE), y.split(metrics.AT_ONCE), strict=True)
    )
    return torch.cat([last(walk) for walk in walks])


def guidance_of(denoiser) -> Callable:
    """How a model is guided: `learned`, in one call, if it was taught omega, else in two."""
    taught = getattr(denoiser.net, "guided", False)
    return guidance.learned if taught else guidance.classifier_free


def _from_cpu(denoiser) -> Callable:
    """The denoiser for points on the CPU, wherever its own weights are."""
    device = metrics.device_of(denoiser)

    def asked(x: Tensor, t: NoiseLevel, *told: Tensor) -> Prediction:
        x0, eps = denoiser(x.to(device), t, *(value.to(device) for value in told))
        return Prediction(x0.cpu(), eps.cpu())

    return asked


def card_of(network: dict, dataset: str, x: Tensor, y: Tensor) -> dict:
    return {
        "architecture": network,
        "dataset": dataset,
        "dataset_sha256": sha256(x.numpy().tobytes() + y.numpy().tobytes()),
        "schedule": "DDPMSchedule(1000, cosine)",
    }
