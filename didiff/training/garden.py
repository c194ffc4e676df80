"""The models of the garden: one draws plants, told their parts; a judge reads them."""

import functools
from collections.abc import Iterator

import torch
from torch import Tensor

from .. import data
from ..classifier import Classifier
from ..data import PLANT_PARTS
from ..denoiser import Denoiser, loss
from . import metrics
from .loop import Progress, drop_labels, fit, random_steps
from .optimiser import Muon
from .run import PLAIN, SCHEDULE, Recipe, Run, card_of, sample
from .weights import build, load

NAMES = [len(names) for names in PLANT_PARTS.values()]
GARDEN_NETWORK = {"network": "UNet", "shape": [3, 32, 32], "channels": [48, 96], "classes": NAMES}
JUDGE_NETWORK = {
    "network": "ConvNet", "shape": [3, 32, 32], "channels": [64, 128, 128], "classes": sum(NAMES),
}  # fmt: skip
GARDEN_STD = 0.564  # standard deviation of the pixels, in [-1, 1]


def garden(steps: int, seed: int = 0, run: Run = PLAIN) -> Iterator[Progress[Denoiser]]:
    """A model of the garden at 32 pixels, told the nine parts, each of which may be left unsaid.

    Of a tenth of the plants nothing is said at all, so that it can be guided.
    """
    torch.manual_seed(seed)
    denoiser = Denoiser(build(GARDEN_NETWORK), "v", GARDEN_STD, run.dtype)

    def losses(model: Denoiser, x0: Tensor, y: Tensor) -> Tensor:
        parts, t = drop_labels(y, 0.1), random_steps(SCHEDULE, len(x0))
        whole = drop_labels(torch.zeros_like(y[:, :1]), 0.1)
        return loss(model, x0, t, parts.where(whole == 0, whole))

    batches = data.batches(*data.garden("train"), size=64, seed=seed)
    return fit(
        denoiser, losses, batches, steps, lr=2e-3, ema=0.999, clip=1.0, warmup=200,
        cooldown=steps // 4, checkpoint=run.checkpoint, optimiser=Muon,
    )  # fmt: skip


def garden_judge(steps: int, seed: int = 0, run: Run = PLAIN) -> Iterator[Progress[Classifier]]:
    """A network that reads plants, a head a part: independent, for it never guides."""
    torch.manual_seed(seed)
    judge = Classifier(build(JUDGE_NETWORK), GARDEN_STD)

    def losses(judge: Classifier, x0: Tensor, y: Tensor) -> Tensor:
        # a little noise, so that it does not look for what no eye sees
        x0 = x0 + 0.03 * torch.randn_like(x0)
        heads = judge.class_log_prob(x0, metrics.CLEAN).split(NAMES, 1)
        each = [-h.log_softmax(1).gather(1, k[:, None]) for h, k in zip(heads, y.T, strict=True)]
        return torch.cat(each, 1).mean(1)

    batches = data.batches(*data.garden("train"), size=64, seed=seed)
    return fit(
        judge, losses, batches, steps, lr=2e-3, ema=0.998, warmup=100, cooldown=steps // 2,
        checkpoint=run.checkpoint,
    )  # fmt: skip


def read(judge: Classifier, images: Tensor) -> Tensor:
    """The parts that a judge reads in pictures (N, 3, 32, 32), as on a screen: (N, 9)."""
    logits = metrics.in_parts(
        judge.class_log_prob, images.clamp(-1, 1), device=metrics.device_of(judge)
    )
    return torch.stack([head.argmax(1) for head in logits.split(NAMES, 1)], 1)


def right(judge: Classifier, images: Tensor, y: Tensor) -> dict[str, float]:
    """The share of pictures of which the judge reads each part as it stands in y (N, 9)."""
    shares = (read(judge, images) == y).double().mean(0)
    return {part: round(share, 4) for part, share in zip(PLANT_PARTS, shares.tolist(), strict=True)}


@functools.cache
def judge() -> Classifier:
    """The shipped judge of plants."""
    return load("garden_judge")


def judge_quality(judge: Classifier) -> dict:
    """The share of the 1,000 test pictures of which it reads each part right."""
    return {"test": right(judge, *data.garden("test"))}


def garden_quality(denoiser, n: int = 1000) -> dict:
    """The share of n plants of which the judge reads each part as it was said, at each omega.

    The parts are those of the test pictures; 20 steps of DDIM.
    """
    denoiser = Denoiser(denoiser.net, denoiser.target, denoiser.sigma_data)  # as it is loaded
    y = data.garden("test")[1][:n]
    return {
        f"omega_{omega}": right(judge(), sample(denoiser, y, omega), y) for omega in (1, 2, 3, 4)
    }


def _card(network: dict):
    told = "the 12,000 training plants at 32 pixels, didiff.data.garden('train')"
    return lambda: card_of(network, told, *data.garden("train"))


RECIPES = {
    "garden": Recipe(garden, 6000, garden_quality, _card(GARDEN_NETWORK)),
    "garden_judge": Recipe(garden_judge, 2000, judge_quality, _card(JUDGE_NETWORK)),
}
