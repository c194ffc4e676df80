"""A U-Net small enough for a laptop: few operations, each of them large."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embedding import Embedding, check_shape


class UNet(nn.Module):
    """x (B, C, H, W), clock (B,), y (B,) or None -> (B, C, H, W), over levels of halved side.

    shape: (C, H, W). channels: of each level, the finest first. patch: side of the squares of
    pixels that enter as one position with patch**2 times the channels: a 28x28 image is seen as
    14x14, a quarter of the work at the finest level. attention: at the coarsest level, where it is
    cheap. skips=False cuts the bridges from the way down to the way up, to see what they do.
    classes: of the labels, or of each of several parts, see `Embedding`.
    guided=True: it is told a guidance scale omega (B,) as well, see `guidance.learned`.

    Raises ValueError for a side that cannot be halved that often, channels that do not make four
    heads, x of another shape, or labels it does not know.
    Source: Ronneberger et al. 2015; Ho et al. 2020, app. B; L6-13, L6-14, L6-22.
    Lesson: 08_unet.
    """

    def __init__(
        self, shape: tuple = (1, 28, 28), channels: tuple = (48, 96),
        classes: int | Sequence[int] = 0, patch: int = 2, attention: bool = True,
        skips: bool = True, guided: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.shape, self.skips, self.guided = tuple(shape), skips, guided
        _check_side(self.shape, patch, len(channels))
        width = 4 * channels[0]
        self.embedding = Embedding(width, classes, guided=guided)
        self.encoder = Encoder(shape[0], channels, patch, width)
        self.middle = Attention(channels[-1]) if attention else nn.Identity()
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairwise(channels)
        )
        self.decoder = nn.ModuleList(Block(2 * c, c, width) for c in channels)
        self.last = nn.Sequential(
            norm(channels[0]), nn.SiLU(),
            nn.Conv2d(channels[0], shape[0] * patch**2, 3, padding=1), nn.PixelShuffle(patch),
        )  # fmt: skip
        # the order of numbers in memory that convolutions on a CPU like best
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, x: Tensor, clock: Tensor, y: Tensor | None = None, omega: Tensor | None = None
    ) -> Tensor:
        check_shape(x, self.shape)
        e = self.embedding(clock, y, omega)
        bridges = self.encoder(x, e)
        h = self.middle(bridges[-1])
        for level in reversed(range(len(bridges))):
            bridge = bridges[level] if self.skips else torch.zeros_like(bridges[level])
            h = self.decoder[level](torch.cat([h, bridge], 1), e)
            h = self.upsample[level - 1](h) if level else h
        return self.last(h)


class Encoder(nn.Module):
    """The way down: x (B, C, H, W), e (B, width) -> a map (B, channels[i], ..) of each level."""

    def __init__(self, colours: int, channels: tuple, patch: int, width: int):
        super().__init__()
        self.first = nn.Sequential(
            nn.PixelUnshuffle(patch), nn.Conv2d(colours * patch**2, channels[0], 3, padding=1)
        )
        self.blocks = nn.ModuleList(Block(c, c, width) for c in channels)
        self.downsample = nn.ModuleList(
            nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairwise(channels)
        )

    def forward(self, x: Tensor, e: Tensor) -> list[Tensor]:
        maps = [self.blocks[0](self.first(x), e)]
        for downsample, block in zip(self.downsample, self.blocks[1:], strict=True):
            maps.append(block(downsample(maps[-1]), e))
        return maps


class Block(nn.Module):
    """skip(h) + conv2 silu(scale * norm(conv1 h) + shift), told scale and shift by e.

    The embedding enters *inside* the block, between its convolutions (E-04), and after the norm,
    which would subtract a shift that came before. One norm and one nonlinearity for two
    convolutions, where most U-Nets have two: on a CPU those small operations cost as much as the
    convolutions do. Source: Dhariwal & Nichol 2021, eq. 3; L6-18, L6-28.
    """

    def __init__(self, inputs: int, outputs: int, width: int):
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(inputs, outputs, 3, padding=1), norm(outputs)
        self.told = nn.Linear(width, 2 * outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        nn.init.zeros_(self.conv2.weight)  # it starts as its skip, but for a constant

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        scale, shift = self.told(e)[:, :, None, None].chunk(2, 1)
        inner = torch.addcmul(shift, self.norm(self.conv1(h)), 1 + scale)
        return self.skip(h) + self.conv2(F.silu(inner))


class Attention(nn.Module):
    """h + project(softmax(q k' / sqrt(d)) v): every position looks at every other.

    Raises ValueError if the channels cannot be shared among the heads.
    Source: Vaswani et al. 2017, eq. 1; L6-20, L6-21.
    """

    def __init__(self, channels: int, heads: int = 4):
        super().__init__()
        if channels % heads:
            raise ValueError(
                f"{channels} channels for {heads} heads of attention: take a multiple of {heads} "
                "at the coarsest level, or attention=False"
            )
        self.heads = heads
        self.norm, self.qkv = norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.project.weight)

    def forward(self, h: Tensor) -> Tensor:
        # (B, 3 * channels, H, W) -> three times (B, heads, channels / heads, H * W)
        q, k, v = self.qkv(self.norm(h)).flatten(2).unflatten(1, (3, self.heads, -1)).unbind(1)
        # written out: for so few positions torch's own call is slower, backwards most of all
        weight = (q.mT @ k / q.shape[2] ** 0.5).softmax(-1)
        return h + self.project((v @ weight.mT).flatten(1, 2).unflatten(2, h.shape[2:]))


def norm(channels: int) -> nn.GroupNorm:
    """Groups of 16 channels or a few more, brought to mean 0 and variance 1 in each sample."""
    groups = range(max(1, channels // 16), 0, -1)
    return nn.GroupNorm(next(n for n in groups if channels % n == 0), channels)


def _check_side(shape: tuple, patch: int, levels: int) -> None:
    step = patch * 2 ** (levels - 1)
    if any(side % step for side in shape[1:]):
        raise ValueError(
            f"images of {shape[1]}x{shape[2]}: with patch = {patch} and {levels} levels the sides "
            f"must be multiples of {step}; pad the images, or take fewer levels"
        )
