"""How good are samples: distances between samples, and for digits judges and a diversity."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..classifier import Classifier
from ..data import digits
from ..mixtures import as_labels
from ..process import NoiseLevel
from .weights import load

CLEAN = NoiseLevel(torch.tensor(1.0), torch.tensor(0.0))  # what a picture on a screen is

_LARGEST_TABLE = 2**22  # distances computed at once: 32 MB in float64


# --- distances between two samples ---------------------------------------------------------------


def wasserstein_1d(a: Tensor, b: Tensor) -> float:
    """W1 = integral |F_a(z) - F_b(z)| dz, exact, between samples a (N,) and b (M,) of numbers.

    In units of the data: how far the one must be carried on average to become the other.
    Raises ValueError unless both are one-dimensional and hold something.
    """
    for sample in (a, b):
        if sample.ndim != 1 or len(sample) == 0:
            raise ValueError(f"a sample of shape {tuple(sample.shape)}: give numbers (N,), N >= 1")
    a, b = (_exact(sample).sort().values for sample in (a, b))
    z = torch.cat([a, b]).sort().values
    share_a, share_b = (torch.searchsorted(s, z[:-1], right=True).double() / len(s) for s in (a, b))
    return float(((share_a - share_b).abs() * z.diff()).sum())


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|x - y| - E|x - x'| - E|y - y'|, unbiased, between samples x (N, *d) and y (M, *d).

    Its expectation is 0 if, and only if, both come from one distribution, so that it also falls a
    little below 0. Raises ValueError for shapes that differ, or fewer than 2 points.
    Source: Székely & Rizzo 2013, eq. 5.
    """
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(f"points {tuple(x.shape[1:])} against points {tuple(y.shape[1:])}")
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"samples of {n} and {m} points: each needs at least 2")
    between, within_x, within_y = (
        _sum_of_distances(_exact(a.flatten(1)), _exact(b.flatten(1)))
        for a, b in ((x, y), (x, x), (y, y))
    )
    return 2 * between / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))


def _exact(x: Tensor) -> Tensor:
    """x in float64, on the CPU: not every device knows that type."""
    return x.cpu().double()


def _sum_of_distances(x: Tensor, y: Tensor) -> float:
    # multiplied out, |x - x| would not be 0 but the root of a rounding error
    distance = functools.partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist")
    rows = max(1, _LARGEST_TABLE // len(y))
    return sum(float(distance(part, y).sum()) for part in x.split(rows))


class Moments(NamedTuple):
    """mean (F,) and covariance (F, F) of features."""

    mean: Tensor
    covariance: Tensor


def moments(features: Tensor, y: Tensor | None = None) -> Moments:
    """Mean and unbiased covariance of features (N, F).

    y (N,): their classes, each of which then counts alike, however many it has. In float64, on
    the CPU. Raises ValueError for fewer than 2 rows.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"features of shape {tuple(features.shape)}: give (N, F), N >= 2")
    features = _exact(features)
    y = torch.zeros(len(features), dtype=torch.long) if y is None else as_labels(y).cpu()
    weight = 1 / y.bincount()[y].double()
    return Moments(weight @ features / weight.sum(), features.T.cov(aweights=weight))


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), the W2 distance of two Gaussians, squared.

    Of samples it is biased upwards, by about the inverse of their number: compare at equal numbers.
    Source: Dowson & Landau 1982; Heusel et al. 2017, eq. 6.
    """
    apart = (a.mean - b.mean).square().sum()
    root = _square_root(a.covariance)
    mixed = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    return float(apart + a.covariance.trace() + b.covariance.trace() - 2 * mixed)


def _square_root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


# --- many points, on any device ------------------------------------------------------------------

AT_ONCE = 500  # points in a batch of a long measurement: thousands would not fit into memory


def device_of(model) -> torch.device:
    """Where the weights of a model are; the CPU for what has none, such as an exact denoiser."""
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    return next((weight.device for weight in weights), torch.device("cpu"))


@torch.inference_mode()
def in_parts(
    ask: Callable[[Tensor, NoiseLevel], Tensor],
    x: Tensor,
    t: NoiseLevel = CLEAN,
    device: torch.device | str = "cpu",
) -> Tensor:
    """ask(x, t) of many points x (N, *d), asked on a device, answered on the CPU."""
    return torch.cat([ask(part.to(device), t).cpu() for part in x.split(AT_ONCE)])


# --- judges of images ----------------------------------------------------------------------------


@functools.cache
def judge():
    """A classifier of the 8x8 digits from another family than any network here, and other data.

    A support vector machine fitted (once a process) on the half of the digits that no generator
    has seen: it cannot share a generator's blind spots.
    """
    x, y = digits("test")
    from sklearn.svm import SVC

    return SVC().fit(x.flatten(1).numpy(), y.numpy())


@functools.cache
def mnist_judge() -> Classifier:
    """The shipped classifier of MNIST that serves measuring alone. Lesson: 10."""
    return load("mnist_judge")


def _read_digits(images: Tensor) -> Tensor:
    return torch.from_numpy(judge().predict(images.flatten(1).cpu().numpy()))


def _read_mnist(images: Tensor) -> Tensor:
    return in_parts(mnist_judge().class_log_prob, images).argmax(1)


@functools.cache
def _digits_spread() -> Tensor:
    return _spread(*digits("all"))


class Images(NamedTuple):
    """What is known of images of one size: how images (B, *size) in [-1, 1] are read -> classes
    (B,), and how much the real ones of each class differ, (10,)."""

    read: Callable[[Tensor], Tensor]
    spread: Callable[[], Tensor]


SIZES: dict[tuple, Images] = {
    (1, 8, 8): Images(_read_digits, _digits_spread),
    (1, 28, 28): Images(_read_mnist, lambda: mnist_judge().net.spread.double()),
}


def recognised(images: Tensor, y) -> float:
    """The share of images (B, 1, side, side), as seen on a screen, that a judge reads as y.

    Side 8: the judge of digits; side 28: that of MNIST. y: one integer or (B,). In [0, 1].
    Raises ValueError for other shapes, labels outside 0..9, or no image.
    """
    y = _check_images(images, y)
    read = SIZES[tuple(images.shape[1:])].read(images.clamp(-1, 1))
    return float((read == y).double().mean())


def features(images: Tensor) -> Tensor:
    """What the judge of MNIST sees in images (B, 1, 28, 28) before it names a class, (B, F)."""
    return in_parts(mnist_judge().features, images.clamp(-1, 1))


def frechet(images: Tensor) -> float:
    """Frechet distance of images (B, 1, 28, 28) to the real ones of MNIST's training half.

    All classes count alike there: give as many images of each, for a wrong mix is a distance too.
    By the features of our own judge, so comparable here alone. Its floor, that of the 10,000 real
    test images, is in the judge's card. Raises ValueError for fewer than 2 images.
    """
    return frechet_distance(moments(features(images)), remembered(mnist_judge()))


def remembered(judge: Classifier) -> Moments:
    """The moments of the features of real images, as a judge remembers them."""
    return Moments(_exact(judge.net.feature_mean), _exact(judge.net.feature_covariance))


def remember(judge: Classifier, x: Tensor, y: Tensor) -> None:
    """Fill a judge's memory of real images x (N, 1, 28, 28), y (N,): see `networks.Judge`."""
    seen = moments(in_parts(judge.features, x, device=device_of(judge)), y)
    judge.net.feature_mean.copy_(seen.mean)
    judge.net.feature_covariance.copy_(seen.covariance)
    judge.net.spread.copy_(_spread(x, y))


def diversity(images: Tensor, y) -> float:
    """How much images of one class y differ, relative to real ones (1), 0 if all are equal.

    The variance of *ink or not* within each class: pixels are cut at mid-grey first, because their
    plain variance rises when guidance drives them to black and white (E-15). Averaged over the
    classes that have two images or more, nan if none has: one image has no diversity.

    images, y: as for `recognised`, and the same errors.
    """
    y = _check_images(images, y)
    spread, real = _spread(images, y), SIZES[tuple(images.shape[1:])].spread()
    both = spread.isfinite()
    return float(spread[both].mean() / real[both].mean()) if both.any() else math.nan


def _spread(images: Tensor, y: Tensor) -> Tensor:
    """Unbiased variance of the thresholded pixels within each class. (10,), nan where undefined."""
    ink = (images.flatten(1).cpu() > 0).double()
    member = F.one_hot(y, 10).T.double()  # (10, B)
    count = member.sum(1, keepdim=True)
    share = member @ ink / count  # of the images of a class that have ink at a pixel
    return (share * (1 - share) * count / (count - 1)).mean(1)


def _check_images(images: Tensor, y) -> Tensor:
    if tuple(images.shape[1:]) not in SIZES or len(images) == 0:
        raise ValueError(
            f"images of shape {tuple(images.shape)}: give (B, 1, 8, 8) or (B, 1, 28, 28), B >= 1"
        )
    y = torch.as_tensor(y)
    if y.ndim > 1 or (y.ndim == 1 and len(y) != len(images)):
        raise ValueError(f"labels of shape {tuple(y.shape)} for {len(images)} images")
    y = as_labels(y).cpu()
    if y.min() < 0 or y.max() > 9:
        raise ValueError(f"labels {y.min()}..{y.max()}: digits are 0..9")
    return y.expand(len(images))
