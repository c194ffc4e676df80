"""Exact denoisers: labelled Gaussian mixtures, known in closed form at every noise level.

They are the ground truth that everything trained is measured against, and they obey the same
protocol, (x, t, y) -> Prediction. With std = 0 a mixture is a finite data set.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .process import NoiseLevel, Prediction, floats, wide

NO_LABEL = -1  # y = None, or this value in y, means: no condition
_LARGEST_TABLE = 2**24  # entries of a table batch x components computed at once: 128 MB


def as_labels(y, x: Tensor | None = None) -> Tensor:
    """Labels as int64, of any integer type or a list; for x (B, *d) one for all, or one each, (B,).

    Not every type of integer holds -1, and bytes would choose as a mask does.
    Raises ValueError for labels that are no integers, or of another number.
    """
    y = torch.as_tensor(y, device=None if x is None else x.device)
    if y.is_floating_point() or y.is_complex():
        raise ValueError(f"labels of type {y.dtype}: give integers, and {NO_LABEL} for no label")
    if x is None:
        return y.long()
    if y.ndim > 1 or y.numel() not in (1, len(x)):
        raise ValueError(f"labels of shape {tuple(y.shape)} for a batch of {len(x)}")
    return y.long().expand(len(x))


def as_classes(y, table: Tensor) -> Tensor:
    """`as_labels` of the columns of a table (B, classes). Raises ValueError for any other label."""
    y, classes = as_labels(y, table).clone(), table.shape[1]  # one of inference mode is no index
    # looking at the values of a GPU tensor would make every call wait for it
    if y.device.type == "cpu" and ((y < 0) | (y >= classes)).any():
        raise ValueError(f"labels {y.min()}..{y.max()}: this classifier knows 0..{classes - 1}")
    return y


class Mixture:
    """p(x0) = sum_k weight_k N(mean_k, std_k^2 I), each component with a class label.

    means (K, *d); std: a number or (K,), >= 0; weights (K,), positive, normalised here; labels
    (K,) integers >= 0, default: all 0. Called like any denoiser, (x (B, *d), t, y) -> Prediction,
    exact at every level; y: None, one integer, or (B,), where -1 means no condition. Mixture(data)
    is the ideal denoiser of a data set; large batches are worked through in chunks, so that
    50,000 images fit.

    Raises ValueError for sizes that do not match, std < 0, weights <= 0, labels < 0, and, when
    called, for an x of another shape or a label that no component carries.
    Source: Bayes' rule on L6-36; L6-47. Lesson: 06_score_and_noise.
    """

    def __init__(self, means, std=0.0, weights=None, labels=None):
        self.means = floats(torch.as_tensor(means))
        count = len(self.means)
        self.std = _column(std, count, self.means.dtype, "std")
        weights = _column(1.0 if weights is None else weights, count, self.means.dtype, "weights")
        self.labels = as_labels(0 if labels is None else labels, self.means)
        for bad in self.std[~((self.std >= 0) & self.std.isfinite())].tolist():
            raise ValueError(f"std = {bad:g} must be 0 or more")
        for bad in weights[~((weights > 0) & weights.isfinite())].tolist():
            raise ValueError(f"weights must be positive, got {bad:g}")
        if self.labels.min() < 0:
            raise ValueError(f"label {self.labels.min()} of a component: labels start at 0")
        self.log_weights = (weights / weights.sum()).log()
        self.classes = int(self.labels.max()) + 1
        self._means = self.means.flatten(1)
        self._square_norms = (wide(self._means) ** 2).sum(1)

    # --- the denoiser and the densities ----------------------------------------------------------

    def __call__(self, x: Tensor, t: NoiseLevel, y=None) -> Prediction:
        """E[x0 | xt = x] and E[eps | xt = x], given the label where there is one."""
        parts = [self._predict(*chunk) for chunk in self._chunks(x, t, y)]
        return Prediction(*(torch.cat(side).reshape(x.shape) for side in zip(*parts, strict=True)))

    def log_prob(self, x: Tensor, t: NoiseLevel, y=None) -> Tensor:
        """log p_t(x), or log p_t(x | y) where there is a label. Returns (B,), in nats."""
        parts = [self._log_joint(*chunk).logsumexp(1) for chunk in self._chunks(x, t, y)]
        return torch.cat(parts).to(floats(x))

    def score(self, x: Tensor, t: NoiseLevel, y=None) -> Tensor:
        """grad_x log p_t(x), or log p_t(x | y): -eps / noise; needs noise > 0. Source: L6-51."""
        return -self(x, t, y).eps / t.like(x).noise

    def class_log_prob(self, x: Tensor, t: NoiseLevel) -> Tensor:
        """log p(y | xt = x) for y = 0..classes-1, a perfect classifier of noisy points. (B, C)."""
        joint = torch.cat([self._log_joint(*chunk) for chunk in self._chunks(x, t, None)])
        by_class = [joint[:, self.labels == c].logsumexp(1) for c in range(self.classes)]
        return torch.stack(by_class, 1).log_softmax(1).to(floats(x))

    def sample(self, n: int, y: int | None = None, generator=None) -> tuple[Tensor, Tensor]:
        """n clean points x0 (n, *d) and their labels (n,), of class y only if it is given."""
        log_weights = self.log_weights.masked_fill(~self._carries(y), -math.inf)
        k = torch.multinomial(log_weights.exp(), n, replacement=True, generator=generator)
        eps = torch.randn(self.means[k].shape, generator=generator, dtype=self.means.dtype)
        return self._scatter(k, eps), self.labels[k]

    # --- what another covariance changes ---------------------------------------------------------

    def _scatter(self, k: Tensor, eps: Tensor) -> Tensor:
        return self.means[k] + self.std[k].reshape(-1, *[1] * (eps.ndim - 1)) * eps

    def _log_likelihood(self, x: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
        """log N(x; signal * mean_k, variance_k I) for x (B, D), amplitudes (B, 1) or (). (B, K)."""
        variance = (signal * self.std.to(x)) ** 2 + noise**2
        # |x - s m|^2 multiplied out: a matrix product instead of a (B, K, D) array of differences
        cross = x @ self._means.to(x).T
        square = (x**2).sum(1, True) - 2 * signal * cross + signal**2 * self._square_norms.to(x)
        return -0.5 * (square.clamp(min=0) / variance + x.shape[1] * (2 * math.pi * variance).log())

    def _mean_prediction(self, x: Tensor, signal, noise, share: Tensor) -> Prediction:
        """The components' predictions, averaged with the shares (B, K)."""
        means, std = self._means.to(x), self.std.to(x)
        variance = (signal * std) ** 2 + noise**2
        pull = signal * std**2 / variance  # x0_k = mean_k + pull_k * (x - signal * mean_k)
        x0 = (share * (1 - signal * pull)) @ means + (share * pull).sum(1, True) * x
        inverse = share / variance
        eps = noise * (inverse.sum(1, True) * x - signal * (inverse @ means))
        return Prediction(x0, eps)

    # --- plumbing --------------------------------------------------------------------------------

    def _log_joint(self, x: Tensor, t: NoiseLevel, y: Tensor | None) -> Tensor:
        """log p(k | y) + log p_t(x | k). Returns (B, K), in float64.

        A distance of 0.002 between images whose squares add up to hundreds is lost in float32.
        """
        x, t = wide(x), NoiseLevel(*map(wide, t))
        log_weights = self.log_weights.to(x)
        if y is not None:
            allowed = (self.labels.to(y) == y[:, None]) | (y[:, None] == NO_LABEL)
            log_weights = log_weights.masked_fill(~allowed, -math.inf).log_softmax(1)
        return log_weights + self._log_likelihood(x, *t)

    def _predict(self, x: Tensor, t: NoiseLevel, y: Tensor | None) -> Prediction:
        return self._mean_prediction(x, *t, share=self._log_joint(x, t, y).softmax(1).to(x))

    def _chunks(self, x: Tensor, t: NoiseLevel, y) -> Iterator[tuple]:
        """The batch in pieces (x (b, D), t, y), small enough for a table b x K."""
        if x.shape[1:] != self.means.shape[1:]:
            raise ValueError(
                f"points {tuple(x.shape[1:])} for a mixture of points {tuple(self.means.shape[1:])}"
            )
        y, flat = self._check_labels(x, y), floats(x).flatten(1)
        t = t.like(flat)
        size = max(1, _LARGEST_TABLE // len(self.means))
        for i in range(0, max(len(x), 1), size):
            piece = slice(i, i + size)
            levels = NoiseLevel(*(v if v.ndim == 0 or len(v) == 1 else v[piece] for v in t))
            yield flat[piece], levels, None if y is None else y[piece]

    def _check_labels(self, x: Tensor, y) -> Tensor | None:
        if y is None:
            return None
        y = as_labels(y, x)
        for label in y.unique().tolist():
            if label != NO_LABEL:
                self._carries(label)
        return y

    def _carries(self, y: int | None) -> Tensor:
        """Which components carry label y (all if None). Returns (K,) booleans."""
        found = torch.ones_like(self.labels, dtype=torch.bool) if y is None else self.labels == y
        if not found.any():
            known = sorted(set(self.labels.tolist()))
            raise ValueError(f"label {y}: this mixture has the labels {known}, and -1 for none")
        return found


class CovarianceMixture(Mixture):
    """p(x0) = sum_k weight_k N(mean_k, covariance_k), the same with a full covariance each.

    The ground truth for data whose numbers hang together, as neighbouring pixels do: what a
    denoiser makes of directions that the noise swallows at different levels is exact here.

    means (K, D); covariances (D, D) or (K, D, D), symmetric and positive semi-definite. In its
    eigenbasis each component is a product of one-dimensional Gaussians; meant for small K and D.

    Raises ValueError for covariances of another shape, not symmetric, or not semi-definite.
    """

    def __init__(self, means, covariances, weights=None, labels=None):
        super().__init__(means, 0.0, weights, labels)
        K, D = self._means.shape
        covariances = torch.as_tensor(covariances, dtype=self.means.dtype)
        if covariances.shape not in ((D, D), (K, D, D)):
            raise ValueError(
                f"covariances {tuple(covariances.shape)}: give ({D}, {D}) or {K} of them"
            )
        if not torch.allclose(covariances, covariances.mT):
            raise ValueError("a covariance must be symmetric")
        self._spread, self._axes = torch.linalg.eigh(covariances.expand(K, D, D))
        if self._spread.min() < -1e-6 * self._spread.max():
            raise ValueError(f"a covariance has the negative eigenvalue {self._spread.min():.3g}")
        self._spread = self._spread.clamp(min=0)

    def _scatter(self, k: Tensor, eps: Tensor) -> Tensor:
        along = (self._spread[k].sqrt() * eps.flatten(1))[:, :, None]
        return self.means[k] + (self._axes[k] @ along).reshape(eps.shape)

    def _in_eigenbasis(self, x: Tensor, signal, noise) -> tuple[Tensor, Tensor]:
        """x - signal * mean_k along the axes of component k, and its variances. (B, K, D) each."""
        signal, noise = (v.reshape(-1, 1, 1) if v.ndim else v for v in (signal, noise))
        away = x[:, None] - signal * self._means.to(x)
        along = torch.einsum("bkd,kde->bke", away, self._axes.to(x))
        return along, (signal**2 * self._spread.to(x) + noise**2).expand_as(along)

    def _log_likelihood(self, x: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
        along, variance = self._in_eigenbasis(x, signal, noise)
        return -0.5 * (along**2 / variance + (2 * math.pi * variance).log()).sum(2)

    def _mean_prediction(self, x: Tensor, signal, noise, share: Tensor) -> Prediction:
        along, variance = self._in_eigenbasis(x, signal, noise)

        def averaged(coordinates: Tensor) -> Tensor:
            return torch.einsum("bk,bke,kde->bd", share, coordinates, self._axes.to(x))

        per_component = signal.reshape(-1, 1, 1) if signal.ndim else signal
        x0 = share @ self._means.to(x) + averaged(
            per_component * self._spread.to(x) / variance * along
        )
        return Prediction(x0, noise * averaged(along / variance))


def _column(values, count: int, dtype, name: str) -> Tensor:
    values = torch.as_tensor(values, dtype=dtype)
    if values.ndim and values.shape != (count,):
        raise ValueError(f"{name} of shape {tuple(values.shape)} for {count} components")
    return values.expand(count)


# --- ready ones, all float64 ---------------------------------------------------------------------


def gaussian(mean: float = 1.0, std: float = 0.5) -> Mixture:
    """N(mean, std^2) on the line; everything about it is a short formula. (Ledger: F-G)"""
    return Mixture(_points([[mean]]), std)


def two_classes() -> Mixture:
    """Two overlapping classes on the line, N(-1, 1) of label 0 and N(+1, 1) of label 1.

    At every level the components keep variance 1 on a variance-preserving schedule, and
    p(y = 1 | xt) = sigmoid(2 * signal * xt). (Ledger: F-2C)
    """
    return Mixture(_points([[-1.0], [1.0]]), 1.0, labels=[0, 1])


def bimodal() -> Mixture:
    """Two separate bumps on the line, N(+-1, 0.3^2), labels 0 and 1. (Ledger: F-BI)"""
    return Mixture(_points([[-1.0], [1.0]]), 0.3, labels=[0, 1])


def three_modes() -> Mixture:
    """Bumps in the plane at (-1.5, 0), (1.5, 0), (0, 1.5), std 0.3, three labels. (Ledger: F-3M)"""
    return Mixture(_points([[-1.5, 0.0], [1.5, 0.0], [0.0, 1.5]]), 0.3, labels=[0, 1, 2])


def ring(modes: int = 8, radius: float = 2.0, std: float = 0.25) -> Mixture:
    """Bumps on a circle in the plane whose labels alternate between 0 and 1. (Ledger: F-RING)"""
    angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
    means = radius * torch.stack([angle.cos(), angle.sin()], 1)
    return Mixture(means, std, labels=torch.arange(modes) % 2)


def correlated(rho: float = 0.9, dimensions: int = 2) -> CovarianceMixture:
    """N(0, C) with C_ij = rho^|i - j|, a stationary AR(1) row of numbers. (Ledger: F-COR)"""
    i = torch.arange(dimensions, dtype=torch.float64)
    return CovarianceMixture(torch.zeros(1, dimensions).double(), rho ** (i[:, None] - i).abs())


def _points(rows: list) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)
