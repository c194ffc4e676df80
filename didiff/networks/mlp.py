"""A residual multilayer perceptron, for points and for very small images."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .embedding import Embedding, check_shape


class MLP(nn.Module):
    """x (B, *shape), clock (B,), y (B,) or None -> (B, *shape), through `depth` residual layers.

    classes: of the labels, or of each of several parts, see `Embedding`.
    guided = True: it is told a guidance scale omega (B,) as well, see `guidance.learned`.
    The embedding of clock and label enters *inside* every block, before its nonlinearity (E-04).
    Raises ValueError for x of another shape, or labels it does not know.
    """

    def __init__(
        self, shape: tuple = (2,), width: int = 128, depth: int = 4,
        classes: int | Sequence[int] = 0, guided: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.shape, self.guided = tuple(shape), guided
        size = math.prod(self.shape)
        self.embedding = Embedding(width, classes, guided=guided)
        self.first, self.last = nn.Linear(size, width), nn.Linear(width, size)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(
        self, x: Tensor, clock: Tensor, y: Tensor | None = None, omega: Tensor | None = None
    ) -> Tensor:
        check_shape(x, self.shape)
        e, h = self.embedding(clock, y, omega), self.first(x.flatten(1))
        for block in self.blocks:
            h = block(h, e)
        return self.last(h).reshape(x.shape)


class Block(nn.Module):
    """h + W2 silu(W1 norm(h) + We e): one residual layer that is told the time and the label."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner, self.told = nn.Linear(width, width), nn.Linear(width, width)
        self.outer = nn.Linear(width, width)
        nn.init.zeros_(self.outer.weight)  # the block starts as the identity
        nn.init.zeros_(self.outer.bias)

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        return h + self.outer(F.silu(self.inner(self.norm(h)) + self.told(e)))
