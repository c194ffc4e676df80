"""Data sets as tensors, and the files they come from: nothing here knows of diffusion."""

from .files import data_folder
from .sets import batches, digits, from_npz, mnist

__all__ = ["batches", "data_folder", "digits", "from_npz", "mnist"]
