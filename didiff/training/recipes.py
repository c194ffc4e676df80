"""The models we train, each a few lines over `fit`, and the numbers that say how good they are.

Lessons write the same lines out; the command line and the benchmarks call them.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import data
from ..classifier import Classifier, cross_entropy
from ..denoiser import Denoiser, loss
from ..process import add_noise
from . import garden, metrics
from .distillation import distilling
from .loop import Progress, drop_labels, fit, random_steps
from .optimiser import Muon
from .run import PLAIN, SCHEDULE, Recipe, Run, card_of, guidance_of, sample
from .weights import build, load

__all__ = ["PLAIN", "RECIPES", "SCHEDULE", "Recipe", "Run", "guidance_of", "sample"]  # and models


# --- digits --------------------------------------------------------------------------------------

DIGITS_NETWORK = {"network": "MLP", "shape": [1, 8, 8], "width": 256, "depth": 3, "classes": 10}


def digits(steps: int, seed: int = 0, run: Run = PLAIN) -> Iterator[Progress[Denoiser]]:
    """A conditional model of the digits' training half; labels are dropped, so it can be guided.

    Its 4,000 steps take about a minute on two CPU cores. Lesson: 11_classifier_free_guidance.
    """
    torch.manual_seed(seed)
    denoiser = Denoiser(build(DIGITS_NETWORK), "v", 0.75, run.dtype)  # 0.75: the pixels' std
    batches = data.batches(*data.digits("train"), size=128, seed=seed)
    return fit(
        denoiser, dropping(0.15), batches, steps, lr=3e-3, ema=0.995, warmup=100,
        checkpoint=run.checkpoint,
    )  # fmt: skip


def dropping(p: float):
    """The loss of a conditional model that is taught the unconditional one as well.

    Source: Ho & Salimans 2022, alg. 1; L6-63. Lesson: 11_classifier_free_guidance.
    """

    def losses(model: Denoiser, x0: Tensor, y: Tensor) -> Tensor:
        t = random_steps(SCHEDULE, len(x0))
        return loss(model, x0, t, drop_labels(y, p))

    return losses


SEEN = {"recognised": metrics.recognised, "diversity": metrics.diversity}
"""What is measured of images and their classes."""


def images_quality(denoiser, omegas=(1, 3), n: int = 1000, measures=SEEN, eta: float = 0.0) -> dict:
    """Share recognised and diversity of n images in 20 steps, all classes alike, at each omega."""
    y = torch.arange(n) * 10 // n
    made = {omega: sample(denoiser, y, omega, eta=eta) for omega in omegas}
    return {
        f"omega_{omega}": {name: round(f(images, y), 4) for name, f in measures.items()}
        for omega, images in made.items()
    }


def digits_card() -> dict:
    """Data, network and schedule of the digits, as the card of the weights tells them."""
    return card_of(
        DIGITS_NETWORK,
        "the training half of scikit-learn's digits, didiff.data.digits('train')",
        *data.digits("train"),
    )


# --- MNIST ---------------------------------------------------------------------------------------

MNIST_NETWORK = {"network": "UNet", "shape": [1, 28, 28], "channels": [48, 96], "classes": 10}
GUIDED_NETWORK = MNIST_NETWORK | {"guided": True}
CLASSIFIER_NETWORK = {"network": "ConvNet", "shape": [1, 28, 28], "channels": [32, 64, 64]}
JUDGE_NETWORK = {"network": "Judge", "shape": [1, 28, 28], "channels": [48, 96, 64]}
MNIST_STD = 0.6162  # standard deviation of the pixels, in [-1, 1]


def mnist(steps: int, seed: int = 0, run: Run = PLAIN) -> Iterator[Progress[Denoiser]]:
    """A class-conditional model of MNIST, whose labels are dropped so that it can be guided.

    It serves as the unconditional model too. Hours on two CPU cores: keep a checkpoint.
    Lesson: 09_class_conditional, 11_classifier_free_guidance.
    """
    torch.manual_seed(seed)
    denoiser = Denoiser(build(MNIST_NETWORK), "v", MNIST_STD, run.dtype)
    batches = data.batches(*data.mnist("train"), size=128, seed=seed)
    return fit(
        denoiser, dropping(0.1), batches, steps, lr=2e-3, ema=0.9997, clip=1.0, warmup=500,
        cooldown=steps // 5, checkpoint=run.checkpoint, optimiser=Muon,
    )  # fmt: skip


def mnist_guided(steps: int, seed: int = 0, run: Run = PLAIN) -> Iterator[Progress[Denoiser]]:
    """The shipped model of MNIST, taught to give its guided answer in one call: omega is an input.

    It starts as its teacher. Lesson: 11_classifier_free_guidance.
    """
    torch.manual_seed(seed)
    teacher = load("mnist")
    student = Denoiser(build(GUIDED_NETWORK), "v", MNIST_STD, run.dtype)
    student.net.load_state_dict(teacher.net.state_dict(), strict=False)
    teacher.dtype = run.dtype
    batches = data.batches(*data.mnist("train"), size=128, seed=seed)
    return fit(
        student, distilling(teacher, SCHEDULE), batches, steps, lr=1e-3, ema=0.999, clip=1.0,
        warmup=100, cooldown=steps // 2, checkpoint=run.checkpoint,
    )  # fmt: skip


def mnist_quality(denoiser, n: int = 2000) -> dict:
    """Share recognised, diversity and Frechet distance of n images in 20 steps, at each omega.

    At omega = 1 with fresh noise at every step as well: in few steps that works like a small push.
    2,000 take some minutes on two cores; the judge's card says how far as many real ones seem.
    Lesson: 11_classifier_free_guidance.
    """
    # in the precision it will be loaded with, whatever it was trained in
    denoiser = Denoiser(denoiser.net, denoiser.target, denoiser.sigma_data)
    measures = SEEN | {"frechet": lambda images, y: metrics.frechet(images)}
    redrawn = images_quality(denoiser, (1,), n, measures, eta=1.0)["omega_1"]
    quality = images_quality(denoiser, (1, 1.1, 1.5, 2, 4, 8), n, measures)
    return quality | {"omega_1_eta_1": redrawn}


def mnist_classifier(steps: int, seed: int = 0, run: Run = PLAIN) -> Iterator[Progress[Classifier]]:
    """A noise-aware classifier, taught at the levels samplers visit. Lesson: 10."""

    def losses(classifier: Classifier, x0: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(classifier, x0, random_steps(SCHEDULE, len(x0)), y)

    return _fit_classifier(CLASSIFIER_NETWORK, losses, steps, seed, run)


def mnist_clean(steps: int, seed: int = 0, run: Run = PLAIN) -> Iterator[Progress[Classifier]]:
    """The same network that has never seen noise: for contrast. Lesson: 10."""

    def losses(classifier: Classifier, x0: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(classifier, x0, SCHEDULE.at(0), y)

    return _fit_classifier(CLASSIFIER_NETWORK, losses, steps, seed, run)


def mnist_judge(steps: int, seed: int = 0, run: Run = PLAIN) -> Iterator[Progress[Classifier]]:
    """The classifier that measures: larger, and taught on images askew and shifted.

    It guides nothing and shares no weights with what does, so its opinion is an independent one.
    At the end it is shown the real images once more, to remember how they are distributed.
    """

    def losses(classifier: Classifier, x0: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(classifier, shaken(x0), SCHEDULE.at(0), y)

    for progress in _fit_classifier(JUDGE_NETWORK, losses, steps, seed, run):
        yield progress
    metrics.remember(progress.ema, *data.mnist("train"))


def _fit_classifier(network: dict, losses, steps: int, seed: int, run: Run):
    torch.manual_seed(seed)
    classifier = Classifier(build(network), MNIST_STD)
    batches = data.batches(*data.mnist("train"), size=128, seed=seed)
    return fit(
        classifier, losses, batches, steps, lr=1e-3, ema=0.999, warmup=200,
        checkpoint=run.checkpoint,
    )  # fmt: skip


def shaken(x: Tensor) -> Tensor:
    """Images (B, C, H, W) in [-1, 1], each a little turned, sheared, scaled and shifted."""
    most = torch.tensor([0.12, 0.15, 0.1])  # of what is read across, down, and of half a side
    wobble = torch.eye(2, 3) + (2 * torch.rand(len(x), 2, 3) - 1) * most
    points = F.affine_grid(wobble, list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, points, align_corners=False) - 1  # what comes in is ground, -1


def classifier_quality(classifier: Classifier) -> dict:
    """Share of right answers and nats per label on 10,000 test images at four clocks."""
    x, y = data.mnist("test")
    torch.manual_seed(0)
    eps, quality, device = torch.randn_like(x), {}, metrics.device_of(classifier)
    for u in (0.0, 0.25, 0.5, 0.75):
        t = SCHEDULE(torch.tensor(u))
        noisy = add_noise(x, eps, t)
        log_prob = metrics.in_parts(classifier.class_log_prob, noisy, t, device)
        quality[f"clock_{u}"] = {
            "accuracy": (log_prob.argmax(1) == y).double().mean().item(),
            "nats": round(F.nll_loss(log_prob, y).item(), 4),
        }
    return quality


def judge_quality(judge: Classifier) -> dict:
    """Share of the 10,000 test images it reads right, and their Frechet distance: the floor.

    All classes count alike, as in the samples that are held against it.
    hundreds, two_thousands: the distance of a hundred of them, ten of each class, or of 2,000, its
    mean and standard deviation: how far real images seem from real ones if they are few.
    """
    x, y = data.mnist("test")
    real, device = metrics.remembered(judge), metrics.device_of(judge)
    read = metrics.in_parts(judge.class_log_prob, x, device=device).argmax(1)
    features = metrics.in_parts(judge.features, x, device=device)

    def frechet(some: Tensor, classes: Tensor | None = None) -> float:
        return metrics.frechet_distance(metrics.moments(some, classes), real)

    few = {"hundreds": 100, "two_thousands": 2000}

    def of_few(n: int) -> dict:
        tenths = zip(*(features[y == k].split(n // 10) for k in range(10)), strict=False)
        far = torch.tensor([frechet(some) for some in map(torch.cat, tenths) if len(some) == n])
        return {"frechet": round(far.mean().item(), 4), "std": round(far.std().item(), 4)}

    return {
        "test": {
            "accuracy": (read == y).double().mean().item(),
            "frechet": round(frechet(features, y), 4),
        },
        **{name: of_few(n) for name, n in few.items() if len(x) >= 2 * n},
    }


def _mnist_card(network: dict) -> Callable[[], dict]:
    told = "MNIST's 60,000 training images, didiff.data.mnist('train')"
    return lambda: card_of(network, told, *data.mnist("train"))


RECIPES = garden.RECIPES | {
    "digits": Recipe(digits, 4000, images_quality, digits_card),
    "mnist": Recipe(mnist, 28000, mnist_quality, _mnist_card(MNIST_NETWORK)),
    "mnist_guided": Recipe(mnist_guided, 8000, mnist_quality, _mnist_card(GUIDED_NETWORK)),
    "mnist_classifier": Recipe(
        mnist_classifier, 4000, classifier_quality, _mnist_card(CLASSIFIER_NETWORK)
    ),
    "mnist_clean": Recipe(mnist_clean, 1500, classifier_quality, _mnist_card(CLASSIFIER_NETWORK)),
    "mnist_judge": Recipe(mnist_judge, 1500, judge_quality, _mnist_card(JUDGE_NETWORK)),
}
