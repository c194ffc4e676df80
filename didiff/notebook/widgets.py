"""Sliders over pictures: an `Explorer` wires controls to a generator of frames.

A callback is a plain generator function, `frames(omega, steps) -> Iterator[Frame]`: early previews
first, the final frame last. It knows nothing of widgets, so a test calls it directly (`final`); and
the widgets know nothing of what they show.

A callback runs in a thread of its own, and there anything thread-local starts afresh: it must not
count on a `torch.no_grad()` around the cell, and it takes its noise as data, not from a global
generator that other threads draw from.
"""

import hashlib
import html
import json
import math
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from decimal import Decimal
from functools import partial
from string import Template
from typing import Any, NamedTuple

import ipywidgets
import traitlets
from IPython import get_ipython
from IPython.display import display

from .openmp import dismiss_helpers
from .pictures import base64_of, palette, require_alt, strip

IDLE_SECONDS = 10.0  # a worker out of work lives on so long: a warm one keeps torch's thread pool
STILL_FRAMES, STILL_COLOURS, STRIP_FRAMES = 33, 32, 4  # about 150 kB for a plot 400 pixels wide
RED = "#B00020"
NO_FRAME = "the callback yielded nothing: yield Frame(picture, readout) at least once"
LABELLED = {"description_width": "initial"}  # the default cuts labels at 80 pixels

# Without a kernel. Every element of the class is wired, as one page may hold an output twice; arrow
# keys must not reach JupyterLab, which takes them for its own. The hint goes where scripts run.
PAGE = Template("""<div class="didiff-stills $mark">
<label>$label <input type="range" min="0" max="$last" value="$first" aria-valuetext="$value" \
style="width:20em;max-width:60%;vertical-align:middle"></label> <output>$value</output>
<small>(run the cell to move the slider)</small>
<div class="didiff-readout" role="status" aria-live="polite">$text</div>
<img class="didiff-picture" alt="$alt ($label $value)" width="$width" style="max-width:100%" \
src="data:image/png;base64,$picture">
</div>
<script>document.querySelectorAll(".$mark").forEach(function (box) {
  var data = $data, find = function (name) { return box.querySelector(name); };
  var range = find("input"), picture = find("img");
  find("small").hidden = true;
  range.addEventListener("keydown", function (event) { event.stopPropagation(); });
  range.addEventListener("input", function () {
    var name = data[0][range.value];
    picture.src = "data:image/png;base64," + data[2][range.value];
    picture.alt = data[3] + " (" + data[4] + " " + name + ")";
    find("output").textContent = name;
    range.setAttribute("aria-valuetext", name);
    find(".didiff-readout").textContent = data[1][range.value];
  });
});</script>""")


class Frame(NamedTuple):
    """What a slider shows: a picture (PNG bytes) and a line of plain text that says what it is."""

    picture: bytes
    readout: str


Frames = Callable[..., Generator[Frame, None, None]]


def final(frames: Iterable[Frame]) -> Frame:
    """The last of `frames`. Raises ValueError if there is none."""
    last = None
    for last in frames:  # noqa: B007  the name is what we want
        pass
    if last is None:
        raise ValueError(NO_FRAME)
    return last


# -- controls ---------------------------------------------------------------------------------


class _Stops(ipywidgets.SelectionSlider):
    """A slider over decimals that names its stops to whoever sets another value.

    Not a FloatSlider: its browser half rounds what Python sets it to, and sends that back some time
    later, as if a hand had moved it.
    """

    @traitlets.validate("value")
    def _validate_value(self, proposal):
        try:
            return super()._validate_value(proposal)
        except traitlets.TraitError as error:
            names = [name for name, _ in self.options]
            stops = ", ".join([*names[:2], "..", names[-1]])
            raise traitlets.TraitError(
                f"{self.description} = {proposal.value}: choose a stop, {stops}"
            ) from error


def slider(label: str, low: float, high: float, *, value: float, step: float = 1):
    """A labelled slider over low, low + step, .., high; whole numbers if all four are ints.

    label: name and unit. Raises ValueError if the range is empty or `value` is not one of these.
    """
    numbers = (low, high, value, step)
    if not (all(map(math.isfinite, numbers)) and low < high and step > 0):
        raise ValueError(f"a slider needs finite low < high, step > 0; got {low}, {high}, {step}")
    stops = _stops(low, high, step)
    if not any(_near(stop, value) for stop in stops.values()):
        raise ValueError(f"value {value} is none of the slider's {low}, {low + step}, .., {high}")
    words = {"description": label, "tooltip": label}  # the default tooltip shows as "null"
    looks = {"style": LABELLED, "layout": {"width": "min(34em, 98%)"}}
    if all(isinstance(number, int) for number in numbers):
        return ipywidgets.IntSlider(value, min=low, max=high, step=step, **words, **looks)
    return _Stops(options=list(stops.items()), value=value, equals=_near, **words, **looks)


def _stops(low: float, high: float, step: float) -> dict[str, float]:
    """{name: value} of low, low + step, .., in decimals, where 3 * 0.1 is 0.3."""
    first, last, by = (Decimal(str(number)) for number in (low, high, step))
    stops = (first + k * by for k in range(int((last - first) / by) + 1))
    return {f"{stop:f}": float(stop) for stop in stops}


_near = partial(math.isclose, abs_tol=1e-9)


def choice(label: str, options: Sequence[Any] | dict[str, Any], *, value: Any):
    """A labelled choice among a few: buttons for up to four options, a list for more.

    options: the values, or a dict {name shown: value}. Raises ValueError if `value` is not among
    them.
    """
    named = options if isinstance(options, dict) else {str(option): option for option in options}
    if value not in named.values():
        raise ValueError(f"value {value!r} is not among the options {list(named.values())}")
    few = len(named) <= 4
    kind = ipywidgets.ToggleButtons if few else ipywidgets.Dropdown
    style = {**LABELLED, "button_width": "auto"} if few else LABELLED
    return kind(
        options=list(named.items()), value=value, description=label, tooltip=label, style=style
    )


def choices(control) -> list[Any]:
    """Every value that a control can take, in order: the grid that a test sweeps."""
    if isinstance(control, ipywidgets.IntSlider):
        return list(range(control.min, control.max + 1, control.step))
    return [value for _, value in control.options]


def _name(control, value) -> str:
    if isinstance(control, ipywidgets.IntSlider):
        return str(value)
    return next(name for name, option in control.options if control.equals(option, value))


# -- the explorer -----------------------------------------------------------------------------


class _Picture(ipywidgets.Image):
    """An image with words to it: there is no alt, and a tooltip (a title, which names an image as
    well) breaks the browser's view of an `Image` that has no description."""

    description = traitlets.Unicode("").tag(sync=True)


class Explorer:
    """Controls, a picture and a readout: the latest value wins and the picture follows the hand.

    frames: generator function, called with the controls' values by name; each frame is shown at
    once. When a control moves, the run at work is closed at its next frame and a new one starts;
    that frame is still shown, or the picture would stand still under a moving hand. An exception
    in the callback is shown in the readout and raised by `wait`. width: of the picture, in pixels.

        explorer = Explorer(frames, {"omega": slider("guidance scale ω", 0., 8., value=1.)})
        explorer.show(alt="sixteen guided digits", still_over="omega")
        explorer["omega"].value = 3.; explorer.wait(); print(explorer.readout)
    """

    def __init__(self, frames: Frames, controls: dict[str, Any], width: int = 480):
        self.frames, self.controls = frames, dict(controls)
        self.readout = ""  # the text shown, as plain text
        self._picture = _Picture(format="png", width=width, layout={"max_width": "100%"})
        self._line = ipywidgets.HTML()
        self._box = ipywidgets.VBox([*self.controls.values(), self._line, self._picture])
        self._box.add_class("didiff-explorer")
        self._picture.add_class("didiff-picture")
        self._line.add_class("didiff-readout")
        self._running = threading.Lock()  # one run at a time: a callback may own a cached figure
        self._changed = threading.Condition()  # guards what follows
        self._wanted: dict[str, Any] = {}  # where the controls stand
        self._settled: dict[str, Any] | None = None  # the values whose final frame is shown
        self._error: BaseException | None = None  # what ended the run for the settled values
        self._worker: threading.Thread | None = None
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
        all). Raises ValueError if alt is blank or no control has that name.
        """
        require_alt(alt)
        if still_over not in self.controls:
            raise ValueError(f"no control {still_over!r} among {list(self.controls)}")
        if kernel := get_ipython():  # a move may come in a thread that is not the cells'
            kernel.events.register("post_run_cell", dismiss_helpers)
        self._picture.tooltip = alt
        self.wait()
        stills, start = self._stills(still_over, values)
        label, few = self.controls[still_over].description, _spread(list(stills), STRIP_FRAMES)
        bundle = dict(self._box._repr_mimebundle_())  # the live view
        bundle["text/html"] = stills_html(stills, start, label, alt, self._picture.width)
        sheet = strip([stills[name].picture for name in few], [f"{label} {name}" for name in few])
        bundle["image/png"] = base64_of(sheet)
        bundle["text/plain"] = alt
        display(bundle, raw=True, metadata={"image/png": {"alt": alt}})

    def _stills(self, over: str, values: Sequence[Any] | None) -> tuple[dict[str, Frame], str]:
        """Final frames along one control, {name: Frame} in few colours; and where it stands now."""
        control, here = self.controls[over], self.values
        stops = _spread(choices(control), STILL_FRAMES) if values is None else list(values)
        if here[over] not in stops:
            stops = sorted([*stops, here[over]])
        stills = {}
        with self._running:
            for value in stops:
                picture, readout = final(self.frames(**{**here, over: value}))
                stills[_name(control, value)] = Frame(palette(picture, STILL_COLOURS), readout)
        return stills, _name(control, here[over])

    # -- the worker ---------------------------------------------------------------------------

    def _ask(self, _change=None) -> None:
        """Note where the controls stand, and see that a worker is there to draw it.

        Called from any thread: kernels may run a widget's messages beside the main one.
        """
        dismiss_helpers()
        with self._changed:
            self._wanted = self.values
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
            return self._wanted

    def _draw(self, values: dict[str, Any]) -> None:
        """Show the frames for `values`, until they end or other values are wanted."""
        error = frame = None
        try:
            with self._running, closing(self.frames(**values)) as frames:
                for frame in frames:
                    self._put(frame)
                    if self._wanted != values:
                        return
                if frame is None:
                    raise ValueError(NO_FRAME)
        except BaseException as problem:  # the thread is ours alone: nobody else would see it
            error = problem
            self._say(f"{type(error).__name__}: {error}", f'role="alert" style="color:{RED}"')
        with self._changed:
            self._settled, self._error = values, error
            self._changed.notify_all()

    def _put(self, frame: Frame) -> None:
        self._picture.value, text = frame
        self._say(text, 'role="status" aria-live="polite"')

    def _say(self, text: str, attributes: str) -> None:
        self.readout = text
        self._line.value = f"<div {attributes}>{html.escape(text)}</div>"


# -- without a kernel -------------------------------------------------------------------------


def stills_html(stills: dict[str, Frame], start: str, label: str, alt: str, width) -> str:
    """A self-contained slider over ready pictures; keys, mouse and readout work without a kernel.

    stills: {name of the value: Frame}; start: the name shown first. Same stills, same bytes.
    """
    names, first = list(stills), list(stills).index(start)
    pictures = [base64_of(frame.picture) for frame in stills.values()]
    texts = [frame.readout for frame in stills.values()]
    data = json.dumps([names, texts, pictures, alt, label], ensure_ascii=False)
    parts = {
        "mark": "didiff-" + hashlib.sha256(data.encode()).hexdigest()[:12],
        "label": html.escape(label), "alt": html.escape(alt), "width": html.escape(str(width)),
        "last": len(names) - 1, "first": first, "value": html.escape(start),
        "text": html.escape(texts[first]), "picture": pictures[first],
        "data": data.replace("<", "\\u003c"),  # a readout must not be able to close the script
    }  # fmt: skip
    return PAGE.substitute(parts)


def _spread(items: list, most: int) -> list:
    """At most `most` of the items, evenly spread, both ends among them."""
    if len(items) <= most:
        return items
    return [items[round(k * (len(items) - 1) / (most - 1))] for k in range(most)]
