"""One sentence is the library:  xt = t.signal * x0 + t.noise * eps.

Noising mixes the true pair (x0, eps). Every step of every sampler mixes a *guessed* pair at the
next level, with the same function. A `NoiseLevel` says how much of each, a `Prediction` is a guess
at the two, and `solve` gets the pair back from a noisy point and one more linear equation.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


class NoiseLevel(NamedTuple):
    """Where a point stands between data (1, 0) and pure noise (0, 1).

    signal, noise: amplitudes >= 0, shape () for a whole batch or (B,), (B, 1, ..) per sample.
    DDPM: signal = sqrt(alpha_bar), noise = sqrt(1 - alpha_bar).

    Source: L6-36; the pair (alpha_t, sigma_t) of Kingma et al. 2021. Lesson: 03_forward_process.
    """

    signal: Tensor
    noise: Tensor

    @property
    def sigma(self) -> Tensor:
        """Noise-to-signal ratio, the sigma of Karras et al. 2022; infinite at signal 0."""
        return self.noise / self.signal

    @property
    def snr(self) -> Tensor:
        """Signal-to-noise ratio of the variances, (signal / noise)^2."""
        return (self.signal / self.noise) ** 2

    @property
    def alpha_bar(self) -> Tensor:
        """Share of the signal in the variance, in [0, 1]; the lectures' alpha_bar."""
        return self.signal**2 / (self.signal**2 + self.noise**2)

    @property
    def clock(self) -> Tensor:
        """The angle of (signal, noise) as a number in [0, 1]: 0 is data, 1 is pure noise.

        It is what networks are told instead of a step index: it means the same on every schedule.
        """
        return torch.atan2(self.noise, self.signal) * (2 / math.pi)

    def like(self, x: Tensor) -> "NoiseLevel":
        """The same level(s), shaped to multiply `x` (B, *d): the one place that broadcasts.

        Raises ValueError if there is neither one level for the batch nor one per sample.
        """
        return NoiseLevel(*(_like(value, x) for value in self))


def _like(value: Tensor, x: Tensor) -> Tensor:
    if value.ndim == 0:  # a scalar multiplies tensors of any type without changing it
        return value.double()
    if value.numel() not in (1, len(x)):
        raise ValueError(
            f"{value.numel()} noise levels for a batch of {len(x)}: give one, or one per sample"
        )
    return value.to(x).reshape(-1, *[1] * (x.ndim - 1))


class Prediction(NamedTuple):
    """A guess at how a noisy point was made, xt = signal * x0 + noise * eps; shaped like xt."""

    x0: Tensor
    eps: Tensor


def add_noise(x0: Tensor, eps: Tensor, t: NoiseLevel) -> Tensor:
    """xt = t.signal * x0 + t.noise * eps.

    x0, eps (B, *d); t: NoiseLevel () or one per sample. With the true pair this is the forward
    process q(xt | x0); with a predicted pair it is the step of a sampler. Returns (B, *d).

    Raises ValueError if x0 and eps differ in shape, or t fits neither the batch nor its samples.
    Source: Ho et al. 2020, eq. 4; L6-36. Lesson: 03_forward_process.
    """
    if x0.shape != eps.shape:
        raise ValueError(f"x0 {tuple(x0.shape)} and eps {tuple(eps.shape)} must have one shape")
    signal, noise = t.like(x0)
    return signal * x0 + noise * eps


def from_x0(x: Tensor, t: NoiseLevel, x0: Tensor) -> Prediction:
    """The prediction whose x0 is given, eps = (x - signal * x0) / noise; needs noise > 0."""
    signal, noise = t.like(x)
    return Prediction(x0, (x - signal * x0) / noise)


def from_eps(x: Tensor, t: NoiseLevel, eps: Tensor) -> Prediction:
    """The prediction whose eps is given, x0 = (x - noise * eps) / signal; needs signal > 0."""
    signal, noise = t.like(x)
    return Prediction((x - noise * eps) / signal, eps)


def solve(x: Tensor, t: NoiseLevel, output: Tensor, p: Tensor, q: Tensor) -> Prediction:
    """The pair with  signal * x0 + noise * eps = x  and  p * x0 + q * eps = output.

    x, output (B, *d); p, q: numbers or tensors that multiply x. Whatever a network is taught to
    predict, (p, q) is all there is to know about it (`didiff.denoiser.TARGETS`).

    Raises ValueError where both equations say the same, e.g. an eps-network at pure noise. Checked
    for a level shared by the batch only: there it costs nothing, even on a GPU.
    """
    signal, noise = t.like(x)
    det = signal * q - noise * p
    if det.ndim == 0 and abs(det) < 1e-8:
        raise ValueError(
            f"a network that predicts {float(p):g} * x0 + {float(q):g} * eps says nothing new at "
            f"signal = {float(signal):.3g}, noise = {float(noise):.3g}: "
            "use the target v, or start the grid a little below 1"
        )
    return Prediction((q * x - noise * output) / det, (signal * output - p * x) / det)
