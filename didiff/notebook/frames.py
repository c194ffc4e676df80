"""What a callback gives to a slider: frames, previews first and the final one last."""

from collections.abc import Callable, Generator, Iterable
from typing import Any, NamedTuple

NO_FRAME = "the callback yielded nothing: yield Frame(picture, readout) at least once"


class Frame(NamedTuple):
    """What a slider shows: a picture (PNG bytes) and a line of plain text that says what it is."""

    picture: bytes
    readout: str


Frames = Callable[..., Iterable[Frame] | Frame]
"""A callback: a generator function of the controls' values, or one that returns a single Frame."""


def played(result: Any) -> Generator[Frame, None, None]:
    """The frames of what a callback returned, closed with this generator.

    result: a generator, any other iterable of frames, or one Frame. Raises ValueError for anything
    else and if there is no frame.
    """
    frames = [result] if isinstance(result, Frame) else result
    if not isinstance(frames, Iterable):
        raise ValueError(f"the callback returned {frames!r:.60}: yield Frame(picture, readout)")
    frame = None
    try:
        for frame in frames:
            if not isinstance(frame, Frame):
                raise ValueError(f"the callback yielded {frame!r:.60}: yield Frame(picture, text)")
            yield frame
    finally:
        if isinstance(frames, Generator):
            frames.close()
    if frame is None:
        raise ValueError(NO_FRAME)


def final(result: Any) -> Frame:
    """The last frame of what a callback returned. Raises ValueError if there is none."""
    *_, last = played(result)
    return last
