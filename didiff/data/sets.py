"""Data sets as tensors, images in [-1, 1], and an endless supply of batches."""

import functools
import gzip
import math
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .files import data_folder, sha256

SPLITS = ("train", "test", "all")

MNIST = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""The files of MNIST with the SHA-256 of their content, unpacked."""

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)


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


def mnist(split: str = "train") -> tuple[Tensor, Tensor]:
    """60000 handwritten digits, or 10000 to test: x (N, 1, 28, 28) in [-1, 1], y (N,).

    The original files are read from `mnist/` in the data folder, gzipped or not, or else
    downloaded to it (11 MB); their content is compared with `MNIST`, so nothing else passes.

    Raises ValueError for another split or a file that is not the original, FileNotFoundError
    where a file is missing and no mirror can be reached, OSError where the disk refuses.
    Source: LeCun, Bottou, Bengio & Haffner 1998. Lesson: 12_mnist_cifar_on_gpu.
    """
    prefixes = {"train": "train", "test": "t10k"}
    if split not in prefixes:
        raise ValueError(f"split = {split!r}: choose one of {', '.join(prefixes)}")
    names = [name for name in MNIST if name.startswith(prefixes[split])]
    try:
        images, labels = map(_original, names)
    except ConnectionError as error:
        raise FileNotFoundError(
            f"MNIST is not complete in {data_folder() / 'mnist'}, and {error}: call again when "
            f"there is a network, what has arrived is kept; or put {' and '.join(names)} there, as "
            "they are or as .gz. Offline there is data.digits()"
        ) from None  # each reason stands in the message, and the libraries' chains are long
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)
    y = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
    return scaled(x), torch.from_numpy(y)


def _original(name: str) -> bytes:
    """The content of a file of MNIST, from the data folder or from a mirror."""
    folder = data_folder() / "mnist"
    stems = name, name.replace("-idx", ".idx")  # the second is what some unpackers make of it
    found = [folder / f"{stem}{end}" for stem in stems for end in ("", ".gz")]
    path = next((path for path in found if path.exists()), None)
    if path is None:
        from .download import fetch  # only who downloads pays for the network libraries

        path = folder / f"{name}.gz"
        fetch([mirror + path.name for mirror in MNIST_MIRRORS], path, partial(_checked, name=name))
    try:
        return _checked(path, name)
    except ValueError as error:
        raise ValueError(
            f"{path} is not the original, {error}: move it away and call again to download it, or "
            "put the original there"
        ) from error


def _checked(path: Path, name: str) -> bytes:
    """The content of `path`, unpacked if need be. Raises ValueError if it is not MNIST's `name`."""
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):  # gzip, whatever the name says
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"its gzip is cut short or damaged ({error})") from error
    if sha256(content) != MNIST[name]:
        raise ValueError(_difference(content, name))
    return content


def _difference(content: bytes, name: str) -> str:
    """What a content has that MNIST's `name` has not.

    IDX: two zeros, 8 for uint8, the number of axes, the size of each in 4 bytes, the values.
    """
    axes = 3 if "images" in name else 1
    magic, header = bytes([0, 0, 8, axes]), 4 + 4 * axes
    if content[:4] != magic:
        return f"its magic number is {content[:4].hex(' ')} and not {magic.hex(' ')}"
    sizes = np.frombuffer(content[4:header].ljust(4 * axes, b"\0"), ">u4").tolist()
    if len(content) != header + math.prod(sizes):
        return f"it has {len(content)} bytes and not the {header + math.prod(sizes)} of its header"
    if sizes[1:] != [28, 28][: axes - 1]:
        return f"its images have {sizes[1]} x {sizes[2]} pixels and not 28 x 28"
    if axes == 1 and (largest := max(content[header:], default=0)) > 9:
        return f"it has a label {largest}, and the digits are 0..9"
    return f"its form is right, but its SHA-256 is {sha256(content)} and not {MNIST[name]}"


def from_npz(path: str | Path) -> tuple[Tensor, Tensor]:
    """One's own images from `np.savez(path, x=..., y=...)`: x (N, C, H, W) in [-1, 1], y (N,).

    In the file x is uint8, (N, H, W) or with C = 1, 3 or 4 channels (N, H, W, C), and y holds
    integers >= 0, the classes.

    Raises FileNotFoundError or ValueError that names the file and what to change.
    """
    x, y = _arrays(Path(path))
    if fault := _image_fault(x) or _label_fault(y, len(x)):
        raise ValueError(f"{path}: {fault}")
    x = x[..., None] if x.ndim == 3 else x
    return scaled(x.transpose(0, 3, 1, 2)), torch.from_numpy(y.astype(np.int64))


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    remedy = "write it with np.savez(path, x=images, y=labels)"
    try:
        with path.open("rb") as content, np.load(content) as file:  # refuses to unpickle
            return file["x"], file["y"]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing: {remedy}") from error
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} has no arrays x and y to read ({error}): {remedy}") from error


def _image_fault(x: np.ndarray) -> str:
    if x.dtype != np.uint8:
        return f"x is {x.dtype}: give uint8, 0..255; from x in [0, 1] by np.uint8(255 * x + 0.5)"
    if x.ndim not in (3, 4) or 0 in x.shape:
        return f"x has the shape {x.shape}: give images as (N, H, W) or (N, H, W, C)"
    if x.ndim == 4 and x.shape[3] not in (1, 3, 4):
        return f"x has the shape {x.shape}: channels come last, and are 1, 3 or 4"
    return ""


def _label_fault(y: np.ndarray, samples: int) -> str:
    if y.shape != (samples,):
        return f"y has the shape {y.shape}: give one label for each of the {samples} images"
    if not np.issubdtype(y.dtype, np.integer):
        return f"y is {y.dtype}: give whole numbers, such as y.astype(np.int64)"
    if (wrong := y[(y < 0) | (y > np.iinfo(np.int64).max)]).size:
        return f"y has a label {wrong[0]}: count classes from 0, for -1 means no class"
    return ""


def scaled(pixels: np.ndarray) -> Tensor:
    """Pixels 0..255 as float32 in [-1, 1]."""
    return torch.from_numpy(pixels.astype(np.float32, order="C")).div_(127.5).sub_(1)


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
