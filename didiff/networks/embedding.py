"""What all networks share: a vector that tells every block the noise and the class of its input."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Embedding(nn.Module):
    """Clock and label -> one vector (B, width): sinusoids through two layers, plus a table row.

    The table has a row for each class and one more for "no label" (-1): a null label that shared
    a row with class 0 would teach the network that zeros look like everything (T-18).

    y: integers (B,), or one for all. Raises ValueError for labels of another batch size, of
    another type, or outside -1..classes-1.
    Source: Vaswani et al. 2017, sec. 3.5 for the sinusoids; L6-17, L6-26, L6-27.
    """

    def __init__(self, width: int, classes: int = 0, frequencies: int = 32):
        super().__init__()
        # the fastest sinusoid turns within 0.002 of the clock, the finest levels samplers visit
        exponents = torch.linspace(0, math.log(1000), frequencies)
        self.frequency = nn.Buffer(math.pi * exponents.exp(), persistent=False)
        self.time = nn.Sequential(
            nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.label = nn.Embedding(classes + 1, width)

    def forward(self, clock: Tensor, y: Tensor | None = None) -> Tensor:
        angle = clock[:, None] * self.frequency
        time = self.time(torch.cat([angle.cos(), angle.sin()], 1))
        return F.silu(time + self.label(self._row(clock, y)))

    def _row(self, clock: Tensor, y) -> Tensor:
        if y is None:
            return torch.zeros(len(clock), dtype=torch.long, device=clock.device)
        y = torch.as_tensor(y, device=clock.device)
        if y.is_floating_point():
            raise ValueError(f"labels of type {y.dtype}: give integers, and -1 for none")
        if y.shape not in ((), clock.shape):
            raise ValueError(f"labels of shape {tuple(y.shape)} for a batch of {len(clock)}")
        y, classes = y.long().expand(len(clock)), self.label.num_embeddings - 1
        # looking at the values of a GPU tensor would make every call wait for it
        if y.device.type == "cpu" and ((y < -1) | (y >= classes)).any():
            known = f"0..{classes - 1}, and -1 for none" if classes else "none (classes = 0)"
            raise ValueError(f"labels {y.min()}..{y.max()}: this network knows {known}")
        return y + 1


def check_shape(x: Tensor, shape: tuple) -> None:
    """Raises ValueError unless x is a batch (B, *shape)."""
    if x.shape[1:] != shape:
        raise ValueError(f"inputs of shape {tuple(x.shape[1:])} for a network of {shape}")
