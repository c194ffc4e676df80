"""The way down of a U-Net with a reader at the end: a classifier that may be told the noise."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .embedding import Embedding, check_shape
from .unet import Encoder, norm


class ConvNet(nn.Module):
    """x (B, C, H, W), clock (B,) -> one number per class, (B, classes): logits.

    The encoder of a `UNet` (an odd row or column is left out), a mean over the positions, and one
    linear layer. shape: (C, H, W); channels: of each level; patch: as in `UNet`.
    Raises ValueError for sides that are no multiples of the patch or vanish on the way, and for x
    of another shape.
    Source: the classifier of Dhariwal & Nichol 2021, sec. 4.1, without its attention.
    Lesson: 10_classifier_guidance.
    """

    def __init__(
        self, shape: tuple = (1, 28, 28), channels: tuple = (32, 64, 64), classes: int = 10,
        patch: int = 2,
    ):  # fmt: skip
        super().__init__()
        self.shape, width = tuple(shape), 4 * channels[0]
        _check_side(self.shape, patch, len(channels))
        self.embedding = Embedding(width)
        self.encoder = Encoder(shape[0], channels, patch, width)
        self.norm, self.last = norm(channels[-1]), nn.Linear(channels[-1], classes)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def features(self, x: Tensor, clock: Tensor) -> Tensor:
        """What the linear layer reads, (B, channels[-1])."""
        check_shape(x, self.shape)
        coarsest = self.encoder(x, self.embedding(clock))[-1]
        return F.silu(self.norm(coarsest)).mean((2, 3))

    def forward(self, x: Tensor, clock: Tensor) -> Tensor:
        return self.last(self.features(x, clock))


class Judge(ConvNet):
    """A ConvNet that remembers what real data look like to it, so that samples can be compared.

    Buffers, filled once after training: feature_mean (F,) and feature_covariance (F, F) of the
    features of real images, all classes alike, and spread (classes,), the variance of their ink
    within each class.
    """

    def __init__(
        self, shape: tuple = (1, 28, 28), channels: tuple = (48, 96, 64), classes: int = 10,
        patch: int = 2,
    ):  # fmt: skip
        super().__init__(shape, channels, classes, patch)
        self.feature_mean = nn.Buffer(torch.zeros(channels[-1]))
        self.feature_covariance = nn.Buffer(torch.eye(channels[-1]))
        self.spread = nn.Buffer(torch.ones(classes))


def _check_side(shape: tuple, patch: int, levels: int) -> None:
    least = patch * 2 ** (levels - 1)
    if any(side % patch or side < least for side in shape[1:]):
        raise ValueError(
            f"images of {shape[1]}x{shape[2]}: the sides must be multiples of patch = {patch}, and "
            f"at least {least} for {levels} levels"
        )
