"""A file from the first server that has it, going on where an earlier attempt stopped.

pooch asks and streams; it begins every download anew, so going on is done here.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from tqdm.auto import tqdm
from tqdm.utils import CallbackIOWrapper

SILENCE = 20.0
"""Seconds without a byte after which a server is given up."""

ALL_OF_IT, NOTHING_FOLLOWS = 200, 416
"""What servers answer, besides 206, to the question what follows the bytes one has."""


def fetch(urls: Sequence[str], path: Path, check: Callable[[Path], object]) -> None:
    """Download `path` from the first of `urls` that serves it, with a progress bar.

    check: raises ValueError for a file that is not the right one. What has arrived waits beside
    `path`, as .part, for the next url or the next call; it takes the name once it passes.

    Raises ConnectionError with what each url did, OSError where the disk refuses.
    """
    part = path.with_name(path.name + ".part")
    failures = []
    with _alone_with(part):
        if path.exists():  # another process had the same wish, and was first
            return
        for url in urls:
            try:
                _complete(part, url, check)
            except (requests.RequestException, ValueError) as error:
                failures.append(f"{url}: {_root(error)}")
            else:
                part.replace(path)
                return
        if not _size(part):
            part.unlink(missing_ok=True)
    raise ConnectionError(f"{path.name} cannot be downloaded ({'; '.join(failures)})")


def _complete(part: Path, url: str, check: Callable[[Path], object]) -> None:
    """Make `part` whole from `url`, which is asked again as long as each answer brings more.

    What fails the check is deleted. If an earlier attempt began it, that may be to blame, and
    `url` is asked for all of it.
    """
    while True:
        held = _size(part)
        try:
            _append(part, url)
            check(part)
            return
        except requests.RequestException:
            if _size(part) <= held:
                raise
        except ValueError:
            part.unlink()
            if not held:
                raise


def _append(part: Path, url: str) -> None:
    """Add to `part` what it lacks; a server that sends all of it anew replaces it."""
    held = _size(part)
    # Packed for the journey, a file would have other bytes to count ranges in.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={held}-"} if held else {})
    bar = tqdm(desc=part.stem, unit="B", unit_scale=True, leave=False)
    with part.open("ab") as file, bar, ExitStack() as at_the_end:

        def begin(response, **_):
            at_the_end.callback(response.close)  # pooch leaves it open when the disk refuses
            if response.status_code == ALL_OF_IT:
                file.truncate(0)
            bar.reset(_size(part) + int(response.headers.get("Content-Length", 0)))
            bar.initial = bar.n = bar.last_print_n = _size(part)

        download = pooch.HTTPDownloader(timeout=SILENCE, headers=headers, hooks={"response": begin})
        try:
            download(url, CallbackIOWrapper(bar.update, file, "write"), None)
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code != NOTHING_FOLLOWS:
                raise
        os.fsync(file.fileno())  # the bytes must be on the disk before the name points at them


@contextmanager
def _alone_with(part: Path) -> Iterator[None]:
    """For one process at a time; a disk that refuses is explained."""
    try:
        with FileLock(part.parent / ".lock"):  # makes the folder; a process that dies lets go
            yield
    except OSError as error:
        raise OSError(
            f"{part} cannot be written ({error}): make room and call again, what has arrived is "
            "kept; or name a folder elsewhere in the environment variable DIDIFF_DATA"
        ) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _root(error: BaseException) -> BaseException:
    """What began it: the network libraries wrap a plain cause three times."""
    while error.__context__:
        error = error.__context__
    return error
