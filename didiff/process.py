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
        return NoiseLevel(*(per_sample(value, x, "noise levels") for value in self))


LEAST_SIGNAL = 2e-3
"""In units of the noise: with less of it, x0 = (x - noise * eps) / signal is made of errors.

An error of eps arrives noise / signal times larger: 160 times where the lectures' linear table
ends, which is in use everywhere, and 20,000 times at the end of the cosine one.
"""


def per_sample(value, x: Tensor, what: str) -> Tensor:
    """One number, or one per sample (B,) or (B, 1, ..), shaped to multiply `x` (B, *d).

    Raises ValueError, which counts them as `what`, for another number or shape.
    """
    value = floats(value)
    if value.ndim == 0:  # a scalar multiplies tensors of any type without changing it
        return wide(value)
    if value.numel() not in (1, len(x)) or len(value) != value.numel():
        raise ValueError(
            f"{what} of shape {tuple(value.shape)} for a batch of {len(x)}: "
            "give one, or one per sample"
        )
    return value.to(x.device, floats(x[:0]).dtype).reshape(-1, *[1] * (x.ndim - 1))


def floats(values) -> Tensor:
    """The same values as floating-point numbers, since integers would overflow or be cut off.

    Floating-point tensors stay as they are, integers get torch's default type, Python's numbers
    float64.
    """
    if not isinstance(values, Tensor):
        return torch.as_tensor(values, dtype=torch.float64)
    return values if values.is_floating_point() else values.to(torch.get_default_dtype())


def wide(x: Tensor) -> Tensor:
    """x in float64 where its device has that; Apple's GPUs have not, there it stays as it is."""
    try:
        return x.double()
    except (TypeError, RuntimeError):
        return x


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
    x0, eps = floats(x0), floats(eps)
    signal, noise = t.like(x0)
    return signal * x0 + noise * eps


def from_x0(x: Tensor, t: NoiseLevel, x0: Tensor) -> Prediction:
    """The prediction whose x0 is given, eps = (x - signal * x0) / noise; needs noise > 0."""
    x, x0 = floats(x), floats(x0)
    signal, noise = t.like(x)
    return Prediction(x0, (x - signal * x0) / noise)


def from_eps(x: Tensor, t: NoiseLevel, eps: Tensor) -> Prediction:
    """The prediction whose eps is given, x0 = (x - noise * eps) / signal.

    Raises ValueError where there is no signal to speak of, see `check_signal`.
    """
    check_signal(t)
    x, eps = floats(x), floats(eps)
    signal, noise = t.like(x)
    return Prediction((x - noise * eps) / signal, eps)


def check_signal(t: NoiseLevel) -> None:
    """Raises ValueError for a level at which no x0 follows from eps: signal < LEAST_SIGNAL * noise.

    Not only pure noise is such a level, also the last one of the cosine table.
    """
    if (t.signal <= LEAST_SIGNAL * t.noise).any():
        raise ValueError(
            f"no x0 follows from eps at signal = {t.signal.min().item():.3g}: "
            "start the grid a little below 1 (start=0.99)"
        )


def solve(x: Tensor, t: NoiseLevel, output: Tensor, p: Tensor, q: Tensor) -> Prediction:
    """The pair with  signal * x0 + noise * eps = x  and  p * x0 + q * eps = output.

    x, output (B, *d); p, q: numbers or tensors that multiply x. Whatever a network is taught to
    predict, (p, q) is all there is to know about it (`didiff.denoiser.TARGETS`).

    Raises ValueError where both equations say nearly the same, e.g. an eps-network at pure noise:
    an error of the output would be 1 / LEAST_SIGNAL times larger in x0. Checked for a level shared
    by the batch only: there it costs nothing, even on a GPU.
    """
    signal, noise = t.like(x)
    det = signal * q - noise * p
    if det.ndim == 0 and not abs(det) > LEAST_SIGNAL * noise * (p * p + q * q) ** 0.5:
        raise ValueError(
            f"a network that predicts {float(p):g} * x0 + {float(q):g} * eps says nothing new at "
            f"signal = {float(signal):.3g}, noise = {float(noise):.3g}: "
            "use the target v, or start the grid a little below 1 (start=0.99)"
        )
    return Prediction((q * x - noise * output) / det, (signal * output - p * x) / det)


def randn_like(x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Noise N(0, I) shaped like x, drawn where its generator is, so that a seed means the same."""
    device = x.device if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
