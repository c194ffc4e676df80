"""Guidance: denoisers made from denoisers. Each function returns (x, t) -> Prediction.

So samplers know nothing of conditions, and whatever is built here works with all of them.
One convention for omega throughout: 0 ignores the condition, 1 is the conditional model (Bayes),
above 1 pushes further. Lesson: 11_classifier_free_guidance.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .mixtures import NO_LABEL, as_classes, as_labels
from .process import NoiseLevel, Prediction, check_signal, floats, from_eps, from_x0, per_sample


def condition(denoiser, y):
    """The conditional denoiser at y: an integer for all samples, (B,), or None for no condition.

    Samples of P parts have a label of each: y (B, P), or (1, P) for all; so in all of this module.
    """

    def conditioned(x: Tensor, t: NoiseLevel) -> Prediction:
        return denoiser(x, t, y if y is None else _told(y, x))

    return conditioned


def classifier_free(denoiser, y, omega, negative=NO_LABEL):
    """eps_guided = eps_uncond + omega * (eps_cond - eps_uncond), and the same for x0.

    Both come from one call of the denoiser with a batch twice as long, which takes less time than
    two. y: an integer or (B,). negative: a label to move away from instead of "no label". omega:
    a number, or one per sample (B,). Raises ValueError if omega is NaN or infinite, or of another
    shape.
    Source: Ho & Salimans 2022, eq. 6 with w = omega - 1; L22-12, L6-67.
    """
    _check_omega(omega)

    def guided(x: Tensor, t: NoiseLevel, omega: Tensor) -> Prediction:
        labels = _alike(_told(negative, x), _told(y, x))
        both = denoiser(torch.cat([x, x]), _for_both(t.like(x)), torch.cat(labels))
        return Prediction(*(u + omega * (c - u) for u, c in (half.chunk(2) for half in both)))

    return lambda x, t: guided(x, t, per_sample(omega, x, "omega"))


def learned(denoiser, y, omega):
    """The guided denoiser of a network that was taught the answer of `classifier_free`: one call.

    denoiser: takes omega (B,) beside the labels, as a `Denoiser` of UNet(guided=True) does; it
    knows the scales it was taught. y: an integer or (B,); omega: a number, or one per sample (B,).
    Raises ValueError if omega is NaN or infinite, or of another shape.
    Source: Meng et al. 2023, sec. 3.1. Lesson: 11_classifier_free_guidance.
    """
    _check_omega(omega)

    def guided(x: Tensor, t: NoiseLevel) -> Prediction:
        scale = per_sample(omega, x, "omega").flatten().to(x).expand(len(x))
        return denoiser(x, t, _told(y, x), scale)

    return guided


def _told(y, x: Tensor) -> Tensor:
    """`as_labels`, (B,), or for samples of P parts a label of each, (B, P), from (1, P) for all."""
    y = torch.as_tensor(y, device=x.device)
    return torch.stack([as_labels(part, x) for part in y.T], 1) if y.ndim == 2 else as_labels(y, x)


def _alike(*labels: Tensor) -> tuple[Tensor, ...]:
    """A label for a whole sample stands for each of its parts, where others name parts."""
    if all(y.ndim == 1 for y in labels):
        return labels
    return torch.broadcast_tensors(*(y if y.ndim == 2 else y[:, None] for y in labels))


def _for_both(t: NoiseLevel) -> NoiseLevel:
    return NoiseLevel(*(v if v.numel() == 1 else torch.cat([v, v]) for v in t))


def classifier(denoiser, log_prob: Callable[[Tensor, NoiseLevel], Tensor], omega):
    """eps_guided = eps - omega * noise * grad_x log p(y | x_t).

    log_prob: (x (B, *d), t) -> (B,), log p(y | x_t) of a classifier that knows noisy inputs; only
    it is differentiated, never the denoiser. Equals `classifier_free` if both are exact.
    omega: a number, or one per sample (B,).
    Raises ValueError if omega is not finite or of another shape, and where there is no signal to
    speak of: no x0 follows from eps there, and the least error of a gradient would be a huge one.
    Source: Dhariwal & Nichol 2021, alg. 2; L6-54.
    """
    _check_omega(omega)

    def guided(x: Tensor, t: NoiseLevel, omega: Tensor) -> Prediction:
        check_signal(t)
        with torch.inference_mode(False), torch.enable_grad():
            # copies, as tensors made in inference mode cannot be differentiated
            leaf, level = floats(x).detach().clone().requires_grad_(), (v.clone() for v in t)
            (gradient,) = torch.autograd.grad(log_prob(leaf, NoiseLevel(*level)).sum(), leaf)
        return from_eps(x, t, denoiser(x, t).eps - omega * t.like(x).noise * gradient)

    return lambda x, t: guided(x, t, per_sample(omega, x, "omega"))


def log_prob_of(model, y) -> Callable[[Tensor, NoiseLevel], Tensor]:
    """log p(y | xt) as the (x, t) -> (B,) that `classifier` wants; y: an integer or (B,).

    model: whatever has class_log_prob(x, t) -> (B, classes): a `Classifier`, an exact `Mixture`.
    """

    def log_prob(x: Tensor, t: NoiseLevel) -> Tensor:
        table = model.class_log_prob(x, t)
        return table.gather(1, as_classes(y, table)[:, None])[:, 0]

    return log_prob


def interval(plain, guided, low: float, high: float):
    """`guided` while low <= clock <= high, `plain` elsewhere (clock 0 is data, 1 is noise).

    Both are asked where the levels of a batch lie inside and outside.
    Raises ValueError unless 0 <= low <= high <= 1. Source: Kynkäänniemi et al. 2024, eq. 5.
    """
    if not 0 <= low <= high <= 1:
        raise ValueError(f"need 0 <= low <= high <= 1 on the clock, got {low} and {high}")

    def switched(x: Tensor, t: NoiseLevel) -> Prediction:
        inside = (low <= t.clock) & (t.clock <= high)
        if inside.all() or not inside.any():
            return (guided if inside.any() else plain)(x, t)
        chosen = per_sample(inside, x, "noise levels").bool()
        pairs = zip(guided(x, t), plain(x, t), strict=True)
        return Prediction(*(torch.where(chosen, a, b) for a, b in pairs))

    return switched


def clip(denoiser, low: float = -1.0, high: float = 1.0):
    """Clamp the predicted x0 to the range of the data, and recompute eps to match.

    For data with bounds alone (images in [-1, 1]), not for latents or standardised data.
    Raises ValueError unless low < high. Source: Ho et al. 2020, sec. 3.4; T-22.
    """
    if not low < high:
        raise ValueError(f"need low < high, got {low} and {high}")
    return lambda x, t: from_x0(x, t, denoiser(x, t).x0.clamp(low, high))


def from_lecture_scale(w: float) -> float:
    """omega of this library from the w of eps = (1 + w) eps_cond - w eps_uncond: omega = w + 1.

    Raises ValueError if w is not finite. Source: L6-65, E-16.
    """
    _check_omega(w)
    return w + 1


def _check_omega(omega) -> None:
    if not torch.as_tensor(omega).isfinite().all():
        raise ValueError(f"omega = {omega} must be a finite number (0 to 10 is usual)")
