"""The worlds in which laws are tested: schedules, mixtures and points, all in float64.

In "uneven" and "tilted" nothing is equal: weights, widths, labels, covariances.
"""

import torch

import didiff
from didiff import mixtures

SCHEDULES = {
    "linear": didiff.DDPMSchedule(),
    "cosine": didiff.DDPMSchedule(1000, didiff.schedules.cosine),
    "trigonometric": didiff.trigonometric,
    "straight": didiff.straight,
    "exploding": didiff.exploding(20.0),
}
COVARIANCES = torch.tensor([[[0.3, 0.2], [0.2, 0.4]], [[1.0, -0.6], [-0.6, 0.5]]]).double()
MIXTURES = {
    "gaussian": mixtures.gaussian(),
    "two classes": mixtures.two_classes(),
    "three modes": mixtures.three_modes(),
    "ring": mixtures.ring(),
    "correlated": mixtures.correlated(0.9, 5),
    "images": didiff.Mixture(
        torch.linspace(-1, 1, 32, dtype=torch.float64).sin().reshape(2, 1, 4, 4), 0.3, labels=[0, 1]
    ),
    "uneven": didiff.Mixture(
        torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.25, 2.0]]).double(),
        std=[0.2, 0.6, 0.4], weights=[1.0, 3.0, 2.0], labels=[1, 0, 0],
    ),
    "tilted": didiff.CovarianceMixture(
        torch.tensor([[-1.0, 0.5], [1.0, 0.0]]).double(), COVARIANCES, [1.0, 3.0], [1, 0]
    ),
}  # fmt: skip


def points(mixture, n: int, seed: int = 0) -> torch.Tensor:
    """n float64 points of the mixture's shape, from N(0, I)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *mixture.means.shape[1:], generator=generator, dtype=torch.float64)


def middle(schedule, n: int) -> didiff.NoiseLevel:
    """n levels, one per sample, spread over the schedule without its ends."""
    return schedule(torch.linspace(0.05, 0.95, n, dtype=torch.float64))
