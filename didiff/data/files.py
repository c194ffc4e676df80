"""What touches the disk: where data lies, and writing that a crash cannot spoil."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def data_folder() -> Path:
    """The folder the environment variable DIDIFF_DATA names, else `data/` beside the package."""
    return Path(os.environ.get("DIDIFF_DATA") or Path(__file__).parents[2] / "data")


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """A neighbour of `path` to write to; it takes that name only when the block ends well.

    Whatever stood there before stays whole until then. Raises OSError where the name cannot be
    taken, as on Windows while another program reads the file; the neighbour is kept then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    try:
        yield beside
        with beside.open("r+b") as file:  # Windows lets those who may write alone ask for it
            os.fsync(file.fileno())  # the bytes must be on the disk before the name points at them
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    try:
        beside.replace(path)
    except OSError as error:
        raise OSError(
            f"{path} cannot be replaced ({error}): close what has it open, then rename "
            f"{beside.name}, which is whole, to {path.name}"
        ) from error


def sha256(content: bytes) -> str:
    """The checksum of `content` in hexadecimal, as `sha256sum` prints it."""
    return hashlib.sha256(content).hexdigest()
