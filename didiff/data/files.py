"""What touches the disk: where data lies, and writing that a crash cannot spoil."""

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""Of a clone; of an installed copy it is site-packages, which is nobody's to write to."""

NOT_SPELLED_OUT = r"^~[^/\\]*|\$\w+|\$\{.*?\}|%\w+%"
A_DRIVE = r"|^[A-Za-z]:"  # means nothing where there are none


def data_folder() -> Path:
    """Where downloads and the weights of one's own lie: the folder that the environment variable
    DIDIFF_DATA names, else `data/` of a clone, else a folder in the user's cache.

    DIDIFF_DATA: as one writes it in a shell, with ~, $HOME, quotes or backslashes; relative to the
    working folder. Raises ValueError for a user, a variable or a drive that is not there.
    """
    if said := os.environ.get("DIDIFF_DATA", "").replace('"', "").strip("' \t\r\n"):
        return _spelled_out(said)
    if (ROOT / "lessons" / "source").is_dir():
        return ROOT / "data"
    import pooch  # costs more than all the rest of this module

    return Path(pooch.os_cache("didiff"))


def _spelled_out(said: str) -> Path:
    if os.sep == "/":  # where a backslash stands before a space, or is a separator of Windows
        said = said.replace("\\ ", " ").replace("\\", "/")
    path = os.path.expanduser(os.path.expandvars(said))
    unknown = re.search(NOT_SPELLED_OUT + (A_DRIVE if os.sep == "/" else ""), path)
    if unknown and not os.path.exists(path):
        raise ValueError(
            f"DIDIFF_DATA = {said!r}: there is no {unknown[0]} here; name a folder, such as "
            "~/didiff-data"
        )
    return Path(path).absolute()


def writable(folder: Path) -> Path:
    """The folder, made where it is missing. Raises OSError if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(
            f"{folder} cannot be written ({error}): name a folder elsewhere in the environment "
            "variable DIDIFF_DATA"
        ) from error
    return folder


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
