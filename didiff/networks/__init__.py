"""Networks: nn.Modules (x (B, *d), clock (B,) in [0, 1], y (B,) or None, omega) -> like x.

They know nothing of diffusion. Labels are 0..classes-1; -1, or y = None, means "no label". omega
(B,) is a guidance scale, for those that have learnt to be guided.
"""

from .convnet import ConvNet, Judge
from .mlp import MLP
from .unet import UNet

__all__ = ["MLP", "ConvNet", "Judge", "UNet"]
