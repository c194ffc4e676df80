"""How near a network comes to the exact score, where that is known."""

from collections.abc import Iterator
from itertools import count

import torch

from didiff import DDPMSchedule, Denoiser, Mixture, add_noise, loss, mixtures
from didiff.networks import MLP
from didiff.training import Progress, fit, random_steps
from tests.benchmarks import Row, at_most, benchmark


@benchmark
def learned_score() -> Iterator[Row]:
    """Networks taught on fresh points for a few seconds, against the exact denoiser."""
    for name, mixture in {"1d": mixtures.bimodal(), "2d": mixtures.three_modes()}.items():
        *_, end = points(mixture)
        quality = points_quality(end.ema, mixture)
        yield at_most(f"score_excess_{name}", quality["excess"], 0.02, "")
        yield Row(f"score_floor_{name}", quality["floor"], "")
        yield Row(f"score_error_{name}", quality["score_error"], "1/x^2")
        yield Row(
            f"score_error_relative_{name}", quality["score_error"] / quality["score_size"], ""
        )


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
