"""Data sets as tensors, and the files they come from: nothing here knows of diffusion."""

from .files import data_folder
from .plants import PLANT_PARTS, caption, garden, planted
from .sets import batches, digits, from_npz, mnist

__all__ = [
    "PLANT_PARTS",
    "batches",
    "caption",
    "data_folder",
    "digits",
    "from_npz",
    "garden",
    "mnist",
    "planted",
]
