"""Training: the loop, its optimiser and checkpoints, recipes, weights, and what measures them."""

from .loop import Progress, drop_labels, fit, random_steps
from .optimiser import Muon

__all__ = ["Muon", "Progress", "drop_labels", "fit", "random_steps"]
