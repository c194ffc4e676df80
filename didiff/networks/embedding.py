"""What all networks share: a vector that tells every block the noise and the class of its input."""

import math
from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor, nn

USUAL_OMEGA = 10.0  # guidance scales are shown to a network as a share of it


class Embedding(nn.Module):
    """Clock, label and scale -> one vector (B, width): sinusoids through two layers, a table row.

    The table has a row for each class and one more for "no label" (-1): a null label that shared
    a row with class 0 would teach the network that zeros look like everything (T-18). With
    guided = True it is told a guidance scale omega (B,) as well; omega = None means 1.

    classes: how many there are, or (P,) numbers for samples of P parts, each with a label of its
    own: their rows add up. y: integers (B,), or one for all; of parts (B, P), or (1, P) for all.
    Raises ValueError for labels of another shape or type, or outside -1..classes-1, and for an
    omega that it has not learnt.
    Source: Vaswani et al. 2017, sec. 3.5 for the sinusoids; L6-17, L6-26, L6-27.
    """

    def __init__(
        self, width: int, classes: int | Sequence[int] = 0, frequencies: int = 32,
        guided: bool = False,
    ):  # fmt: skip
        super().__init__()
        parts = (classes,) if isinstance(classes, int) else classes
        *self.null_rows, rows = accumulate((count + 1 for count in parts), initial=0)
        # the fastest sinusoid turns within 0.002 of the clock, the finest levels samplers visit
        exponents = torch.linspace(0, math.log(1000), frequencies)
        self.frequency = nn.Buffer(math.pi * exponents.exp(), persistent=False)
        self.time = nn.Sequential(
            nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.label = nn.Embedding(rows, width)
        self.scale = _scale(width) if guided else None

    def forward(
        self, clock: Tensor, y: Tensor | None = None, omega: Tensor | None = None
    ) -> Tensor:
        angle = clock[:, None] * self.frequency
        told = self.time(torch.cat([angle.cos(), angle.sin()], 1))
        told = told + self.label(self._rows(clock, y)).sum(1)
        if self.scale is not None:
            omega = torch.ones_like(clock) if omega is None else omega
            told = told + self.scale(omega[:, None] / USUAL_OMEGA)
        elif omega is not None:
            raise ValueError(
                "this network has learnt no guidance scale: leave omega out, or build it guided"
            )
        return F.silu(told)

    def _rows(self, clock: Tensor, y) -> Tensor:
        """The row of the table for each part of each sample, (B, P)."""
        parts = len(self.null_rows)
        y = torch.as_tensor([[-1] * parts] if y is None else y, device=clock.device)
        if y.is_floating_point():
            raise ValueError(f"labels of type {y.dtype}: give integers, and -1 for none")
        plain = parts == 1 and y.shape in ((), clock.shape)
        if not plain and y.shape not in ((1, parts), (len(clock), parts)):
            of = f" of {parts} parts" if parts > 1 else ""
            raise ValueError(f"labels of shape {tuple(y.shape)} for a batch of {len(clock)}{of}")
        y = y.long().reshape(-1, parts).expand(len(clock), parts)
        # looking at the values of a GPU tensor would make every call wait for it
        if y.device.type == "cpu":
            ends = *self.null_rows[1:], self.label.num_embeddings
            for label, null, end in zip(y.T, self.null_rows, ends, strict=True):
                _check(label, classes=end - null - 1)
        return y + 1 + torch.tensor(self.null_rows, device=y.device)


def _check(label: Tensor, classes: int) -> None:
    if ((label < -1) | (label >= classes)).any():
        known = f"0..{classes - 1}, and -1 for none" if classes else "none (classes = 0)"
        raise ValueError(f"labels {label.min()}..{label.max()}: this network knows {known}")


def _scale(width: int) -> nn.Module:
    """Two layers from a number to a vector, whose first answer is 0: nothing is told yet."""
    last = nn.Linear(width, width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(1, width), nn.SiLU(), last)


def check_shape(x: Tensor, shape: tuple) -> None:
    """Raises ValueError unless x is a batch (B, *shape)."""
    if x.shape[1:] != shape:
        raise ValueError(f"inputs of shape {tuple(x.shape[1:])} for a network of {shape}")
