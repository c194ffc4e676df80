"""How good are samples: distances between samples, and for digits a judge and a diversity."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .data import digits

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
    a, b = a.double().sort().values, b.double().sort().values
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
        _sum_of_distances(a.flatten(1).double(), b.flatten(1).double())
        for a, b in ((x, y), (x, x), (y, y))
    )
    return 2 * between / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))


def _sum_of_distances(x: Tensor, y: Tensor) -> float:
    # multiplied out, |x - x| would not be 0 but the root of a rounding error
    distance = functools.partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist")
    rows = max(1, _LARGEST_TABLE // len(y))
    return sum(float(distance(part, y).sum()) for part in x.split(rows))


# --- digits --------------------------------------------------------------------------------------


@functools.cache
def judge():
    """A classifier of digits from another family than any network here, and from other data.

    A support vector machine fitted (once a process) on the half of the digits that no generator
    has seen: it cannot share a generator's blind spots.
    """
    x, y = digits("test")
    from sklearn.svm import SVC

    return SVC().fit(x.flatten(1).numpy(), y.numpy())


def recognised(images: Tensor, y) -> float:
    """The share of images (B, 1, 8, 8), as seen on a screen, that the judge reads as y, in [0, 1].

    y: one integer or (B,). Raises ValueError for other shapes, labels outside 0..9, or no image.
    """
    y = _check_digits(images, y)
    read = judge().predict(images.clamp(-1, 1).flatten(1).cpu().numpy())
    return float((torch.from_numpy(read) == y).double().mean())


def diversity(images: Tensor, y) -> float:
    """How much images (B, 1, 8, 8) of one class y differ, relative to real digits (1), 0 if equal.

    The variance of *ink or not* within each class: pixels are cut at mid-grey first, because their
    plain variance rises when guidance drives them to black and white (E-15). Averaged over the
    classes that have two images or more, nan if none has: one image has no diversity.

    y: one integer or (B,). Raises ValueError for other shapes, labels outside 0..9, or no image.
    """
    spread, real = _spread(images, _check_digits(images, y)), _real_spread()
    both = spread.isfinite()
    return float(spread[both].mean() / real[both].mean()) if both.any() else math.nan


@functools.cache
def _real_spread() -> Tensor:
    return _spread(*digits("all"))


def _spread(images: Tensor, y: Tensor) -> Tensor:
    """Unbiased variance of the thresholded pixels within each class. (10,), nan where undefined."""
    ink = (images.flatten(1).cpu() > 0).double()
    member = F.one_hot(y, 10).T.double()  # (10, B)
    count = member.sum(1, keepdim=True)
    share = member @ ink / count  # of the images of a class that have ink at a pixel
    return (share * (1 - share) * count / (count - 1)).mean(1)


def _check_digits(images: Tensor, y) -> Tensor:
    if images.shape[1:] != (1, 8, 8) or len(images) == 0:
        raise ValueError(f"images of shape {tuple(images.shape)}: give (B, 1, 8, 8), B >= 1")
    y = torch.as_tensor(y).cpu()
    if y.ndim > 1 or (y.ndim == 1 and len(y) != len(images)):
        raise ValueError(f"labels of shape {tuple(y.shape)} for {len(images)} images")
    if y.min() < 0 or y.max() > 9:
        raise ValueError(f"labels {y.min()}..{y.max()}: digits are 0..9")
    return y.expand(len(images))
