"""Data sets as tensors, images in [-1, 1], and an endless supply of batches."""

import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

SPLITS = ("train", "test", "all")


def digits(split: str = "train") -> tuple[Tensor, Tensor]:
    """The 1797 real handwritten digits inside scikit-learn: x (N, 1, 8, 8) in [-1, 1], y (N,).

    split: "train" is a half for generators, "test" the other half, for whoever judges them: the
    one never sees what the other learnt from. "all" is both. The halves never change: NumPy
    promises that the stream of `RandomState` stays as it is.

    Raises ValueError for another split, ModuleNotFoundError without scikit-learn.
    Source: Alpaydin & Kaynak 1998, the test part. Lesson: 11_classifier_free_guidance.
    """
    if split not in SPLITS:
        raise ValueError(f"split = {split!r}: choose one of {', '.join(SPLITS)}")
    pixels, labels = _load_digits()
    x = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 8 - 1  # pixels are 0..16
    y = torch.from_numpy(labels).long()
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(x)))
    train, test = order.tensor_split([len(x) // 2])
    chosen = {"train": train, "test": test, "all": order}[split]
    return x[chosen], y[chosen]


@functools.cache
def _load_digits():
    try:
        from sklearn.datasets import load_digits  # costs a second: only who asks for digits pays
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "the digits come with scikit-learn, which is missing: pip install scikit-learn"
        ) from error
    return load_digits(return_X_y=True)


def batches(x: Tensor, y: Tensor, size: int, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (x, y) of `size` samples without end; batch number k depends on (seed, k) alone.

    Each pass goes through the data in a new order and takes no sample twice; what does not fill a
    batch is left out of that pass.

    Raises ValueError if x and y differ in length, or size is not in 1..len(x).
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} samples with {len(y)} labels: give one label per sample")
    if not 1 <= size <= len(x):
        raise ValueError(f"batches of {size} from {len(x)} samples: choose a size in 1..{len(x)}")
    return _shuffled(x, y, size, seed)


def _shuffled(x, y, size, seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(x), generator=generator)
        for chosen in order[: len(x) // size * size].split(size):
            yield x[chosen], y[chosen]
