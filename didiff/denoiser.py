"""From a network to a denoiser: what the output of the network means, and the loss that teaches it.

A network may be asked for any fixed combination p * x0 + q * eps. The row (p, q) is all there is
to say about a "parameterisation": the loss uses it forwards, the denoiser solves it backwards.
"""

import os

import torch
from torch import Tensor, nn

from .process import NoiseLevel, Prediction, add_noise, floats, solve


def _velocity(t: NoiseLevel, sigma_data: float):
    size = ((t.signal * sigma_data) ** 2 + t.noise**2).sqrt()
    return -t.noise / (sigma_data * size), t.signal * sigma_data / size


TARGETS = {
    "eps": lambda t, sigma_data: (0.0, 1.0),
    "x0": lambda t, sigma_data: (1.0, 0.0),
    "v": _velocity,  # sigma_data = 1, unit variance: v = signal * eps - noise * x0
    "flow": lambda t, sigma_data: (-1.0, 1.0),  # the velocity eps - x0 of the straight schedule
    "score": lambda t, sigma_data: (0.0, -1 / t.noise),  # of q(xt | x0), L6-45
}
"""What a network is taught: rows (p, q) of p * x0 + q * eps, functions of (t, sigma_data).

Source: eps Ho et al. 2020; v Salimans & Ho 2022 (with sigma_data, minus the F of Karras et al.
2022); flow Liu et al. 2023; score L6-45.
"""


class Denoiser(nn.Module):
    """A network as a denoiser: (x (B, *d), t, y (B,) or None) -> Prediction.

    net: (x, clock (B,) in [0, 1], y) -> like x; one that has learnt guidance takes omega (B,) too.
    target: a key of TARGETS, what the network was
    taught. sigma_data: standard deviation of the data, used to feed the network inputs of unit
    variance. dtype: run the network alone in this precision (torch.bfloat16); the rest stays.

    Raises ValueError for an unknown target or sigma_data <= 0, and, when called, where the target
    says nothing (an eps-network at signal = 0, or next to it).
    Source: the preconditioning of Karras et al. 2022, table 1. Lesson: 06_score_and_noise.
    """

    def __init__(self, net: nn.Module, target: str = "v", sigma_data: float = 1.0, dtype=None):
        super().__init__()
        _check_target(target)
        sigma_data = float(sigma_data)  # of a tensor such as x.std() too
        if not 0 < sigma_data < float("inf"):
            raise ValueError(f"sigma_data = {sigma_data} must be a positive number")
        self.net, self.target, self.sigma_data, self.dtype = net, target, sigma_data, dtype

    def forward(
        self, x: Tensor, t: NoiseLevel, y: Tensor | None = None, omega: Tensor | None = None
    ) -> Prediction:
        x = floats(x)
        scaled, clock = network_input(x, t, self.sigma_data)
        told = (y,) if omega is None else (y, omega)
        with torch.autocast(x.device.type, self.dtype, enabled=self.dtype is not None):
            output = self.net(scaled, clock, *told)
        t = t.like(x)
        return solve(x, t, output.to(x.dtype), *TARGETS[self.target](t, self.sigma_data))


def quick(denoiser: Denoiser) -> Denoiser:
    """The same network in bfloat16 where this processor computes in it, else the denoiser itself.

    For pictures that follow a hand. It rounds what the network says to 8 bits, about 0.4 %.
    DIDIFF_QUICK=0 in the environment switches it off, which shows what other processors do.
    Lesson: 11_classifier_free_guidance.
    """
    # older versions of torch do not tell
    able: dict = getattr(torch.cpu, "get_capabilities", dict)()
    if os.environ.get("DIDIFF_QUICK") == "0" or not (
        able.get("avx512_bf16") or able.get("amx_bf16")
    ):
        return denoiser
    low = Denoiser(denoiser.net, denoiser.target, denoiser.sigma_data, torch.bfloat16)
    return low.train(denoiser.training)


def network_input(x: Tensor, t: NoiseLevel, sigma_data: float) -> tuple[Tensor, Tensor]:
    """What a network is shown: x (B, *d) brought to unit variance, and the clock (B,) of t."""
    x = floats(x)
    t = t.like(x)
    scale = ((t.signal * sigma_data) ** 2 + t.noise**2).rsqrt()
    return scale * x, t.clock.to(x).reshape(-1).expand(len(x))


def loss(
    denoiser, x0: Tensor, t: NoiseLevel, y=None, eps=None, target: str | None = None
) -> Tensor:
    """Mean squared error of p * x0 + q * eps for each sample, (B,).

    x0 (B, *d); t: one level or one per sample; eps: drawn if None; target: default, that of the
    denoiser. Any denoiser will do: an exact one gives the floor that no network can go below.

    Raises ValueError for an unknown target, or none where the denoiser has none of its own.
    Source: Ho et al. 2020, eq. 14; L6-24. Lesson: 05_training_objective.
    """
    row = TARGETS[_check_target(target or getattr(denoiser, "target", None))]
    eps = torch.randn_like(floats(x0)) if eps is None else eps
    t = t.like(x0)
    guess = denoiser(add_noise(x0, eps, t), t, y)
    p, q = row(t, getattr(denoiser, "sigma_data", 1.0))
    return (p * (guess.x0 - x0) + q * (guess.eps - eps)).square().flatten(1).mean(1)


def _check_target(target: str | None) -> str:
    if target not in TARGETS:
        raise ValueError(f"target = {target!r}: choose one of {', '.join(TARGETS)}")
    return target
