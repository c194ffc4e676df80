"""Sliders over pictures: an `Explorer` wires controls to a generator of frames.

A callback is a plain generator function, `frames(omega, steps) -> Iterator[Frame]`: early previews
first, the final frame last. It knows nothing of widgets, so a test calls it directly (`final`); and
the widgets know nothing of what they show.

A callback runs in a thread of its own, and there anything thread-local starts afresh: it must not
count on a `torch.no_grad()` around the cell, and it takes its noise as data, not from a global
generator that other threads draw from.
"""

import html
import threading
from collections.abc import Collection, Sequence
from contextlib import closing
from typing import Any

import IPython
import ipywidgets
from IPython import get_ipython
from IPython.display import display

from . import face, versions
from .controls import choice, choices, slider, stop_name, stops
from .frames import Frame, Frames, final, played
from .openmp import dismiss_helpers
from .pictures import base64_of, palette, require_alt, strip
from .stills import spread, stills_html

__all__ = ["Explorer", "Frame", "Frames", "choice", "choices", "final", "slider", "stills_html"]

versions.require({"ipywidgets": ipywidgets.__version__, "IPython": IPython.__version__})

IDLE_SECONDS = 10.0  # a worker out of work lives on so long: a warm one keeps torch's thread pool
STILL_FRAMES, STILL_COLOURS, STRIP_FRAMES = 33, 32, 4  # about 150 kB for a plot 400 pixels wide
VIEW = "application/vnd.jupyter.widget-view+json"


class Explorer:
    """Controls, a picture and a readout: the latest value wins and the picture follows the hand.

    frames: generator function, called with the controls' values by name; each frame is shown at
    once. When a control moves, the run at work is closed at its next frame and a new one starts;
    that frame is still shown, or the picture would stand still under a moving hand. Until a frame
    of the new values comes, the picture is dimmed. An exception in the callback is shown in the
    readout and raised by `wait`. width: of the picture, in pixels at the usual size of text.
    folded: names of controls that are rarely used, kept behind a button. Raises ValueError if one
    of them is no control.

        explorer = Explorer(frames, {"omega": slider("guidance scale ω", 0., 8., value=1.)})
        explorer.show(alt="sixteen guided digits", still_over="omega")
        explorer["omega"].value = 3.; explorer.wait(); print(explorer.readout)
    """

    def __init__(
        self, frames: Frames, controls: dict[str, Any], width: int = 480,
        folded: Collection[str] = (),
    ):  # fmt: skip
        if unknown := set(folded) - set(controls):
            raise ValueError(f"folded: no control {sorted(unknown)} among {list(controls)}")
        self.frames, self.controls = frames, dict(controls)
        self.readout = ""  # the text shown, as plain text
        self._picture = ipywidgets.Image(format="png", width=width)
        self._picture.layout = {"width": face.em(width), "max_width": "100%"}
        self._line, self._behaviour = ipywidgets.HTML(), ipywidgets.HTML()
        shown = [control for name, control in self.controls.items() if name not in folded]
        rare = [self.controls[name] for name in folded]
        self._box = face.arranged(shown, rare, self._line, self._picture, self._behaviour)
        self._running = threading.Lock()  # one run at a time: a callback may own a cached figure
        self._changed = threading.Condition()  # guards what follows
        self._wanted: dict[str, Any] = {}  # where the controls stand
        self._settled: dict[str, Any] | None = None  # the values whose final frame is shown
        self._error: BaseException | None = None  # what ended the run for the settled values
        self._worker: threading.Thread | None = None
        self._heard = 0  # moves of a control
        self._tell(busy=False)
        for control in self.controls.values():
            control.observe(self._ask, "value")

    def __getitem__(self, name: str):
        """The control called `name`: set its `.value` as a hand would."""
        return self.controls[name]

    @property
    def values(self) -> dict[str, Any]:
        """Where the controls stand, by name."""
        return {name: control.value for name, control in self.controls.items()}

    @property
    def picture(self) -> bytes:
        """The PNG shown."""
        return bytes(self._picture.value)

    def wait(self, timeout: float = 60.0) -> None:
        """Return when the picture belongs to the controls' values; raise what the callback raised.

        timeout: in seconds. Raises TimeoutError when it has passed.
        """
        self._ask()
        with self._changed:
            if not self._changed.wait_for(lambda: self._settled == self._wanted, timeout):
                raise TimeoutError(f"no final picture for {self._wanted} within {timeout:g} s")
            if self._error is not None:
                raise self._error

    def show(self, *, alt: str, still_over: str, values: Sequence[Any] | None = None) -> None:
        """Display the live sliders and, in the same output, what serves a reader without a kernel:
        one slider over ready pictures (HTML; no network, no library) and a strip of stills.

        still_over: the control which that slider moves; values: its stops (default: at most 33 of
        all). Raises ValueError if alt is blank, or if no control has that name or it cannot stand
        at these values.
        """
        require_alt(alt)
        if still_over not in self.controls:
            raise ValueError(f"no control {still_over!r} among {list(self.controls)}")
        if kernel := get_ipython():  # a move may come in a thread that is not the cells'
            kernel.events.register("post_run_cell", dismiss_helpers)
        self._behaviour.value = face.behaviour(alt)
        self.wait()
        stills, start = self._stills(still_over, values)
        label, few = self.controls[still_over].description, spread(list(stills), STRIP_FRAMES)
        live = {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}
        bundle: dict[str, Any] = {VIEW: live}
        bundle["text/html"] = stills_html(stills, start, label, alt, self._picture.width)
        sheet = strip([stills[name].picture for name in few], [f"{label} {name}" for name in few])
        bundle["image/png"] = base64_of(sheet)
        bundle["text/plain"] = alt
        display(bundle, raw=True, metadata={"image/png": {"alt": alt}})

    def _stills(self, over: str, values: Sequence[Any] | None) -> tuple[dict[str, Frame], str]:
        """Final frames along one control, {name: Frame} in few colours; and where it stands now."""
        control, here = self.controls[over], self.values
        grid = list(stops(control))
        chosen = spread(grid, STILL_FRAMES) if values is None else [
            stop_name(control, value) for value in values
        ]  # fmt: skip
        start = stop_name(control, here[over])
        names, stills = {*chosen, start}, {}
        with self._running:
            for name, value in stops(control).items():
                if name in names:
                    picture, readout = final(self.frames(**{**here, over: value}))
                    stills[name] = Frame(palette(picture, STILL_COLOURS), readout)
        return stills, start

    # -- the worker ---------------------------------------------------------------------------

    def _ask(self, change=None) -> None:
        """Note where the controls stand, and see that a worker is there to draw it.

        Called from any thread: kernels may run a widget's messages beside the main one.
        """
        dismiss_helpers()
        with self._changed:
            before, self._wanted = self._wanted, self.values
            self._heard += change is not None
            self._tell(self._wanted != self._settled if self._wanted != before else self._busy)
            if self._worker is None and self._wanted != self._settled:
                self._worker = threading.Thread(target=self._work, name="didiff", daemon=True)
                self._worker.start()
            self._changed.notify_all()

    def _work(self) -> None:
        while (values := self._next()) is not None:
            self._draw(values)

    def _next(self) -> dict[str, Any] | None:
        """The values to draw; or None, and the worker is dismissed, if none come for a while."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._wanted != self._settled, IDLE_SECONDS):
                self._worker = None
                return None
            self._settled = None  # from here on the picture belongs to no values
            self._tell(busy=True)
            return self._wanted

    def _draw(self, values: dict[str, Any]) -> None:
        """Show the frames for `values`, until they end or other values are wanted."""
        error = None
        try:
            with self._running, closing(played(self.frames(**values))) as frames:
                for frame in frames:
                    self._put(frame)
                    if self._wanted != values:
                        return
        except BaseException as problem:  # the thread is ours alone: nobody else would see it
            error = problem
            self._say(f"{type(error).__name__}: {error}", 'role="alert"')
        with self._changed:
            self._settled, self._error = values, error
            self._tell(busy=self._wanted != values)
            self._changed.notify_all()

    def _put(self, frame: Frame) -> None:
        self._picture.value, text = frame
        self._say(text, 'role="status" aria-live="polite"')
        with self._changed:
            self._tell(busy=False)

    def _say(self, text: str, attributes: str) -> None:
        self.readout = text
        self._line.value = f"<div {attributes}>{html.escape(text)}</div>"

    def _tell(self, busy: bool) -> None:
        """Tell the page, in the box's class names, whether a frame is awaited, and what was heard.

        It counts moves, so that a page whose kernel is gone can see that nobody hears its own.
        """
        self._busy = busy
        names = ["didiff-explorer", f"didiff-heard-{self._heard}", *["didiff-busy"] * busy]
        self._box._dom_classes = names
