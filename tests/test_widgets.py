"""Laws of the explorer: the latest value wins, nothing is swallowed, one output has three faces.

The generators are held by events, never by the clock.
"""

import base64
import html
import importlib
import inspect
import io
import json
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import IPython
import ipywidgets
import numpy as np
import pytest
import torch
from IPython.core.events import EventManager, available_events
from PIL import Image
from traitlets import TraitError

from didiff.notebook import face, versions, widgets
from didiff.notebook.frames import played
from didiff.notebook.pictures import png
from didiff.notebook.widgets import Explorer, Frame, choice, choices, final, slider

NAN = float("nan")
PATIENCE = 30.0  # seconds; only a failing test waits so long


@pytest.fixture(autouse=True)
def idle(monkeypatch):
    """A worker that idles for longer than any test waits: a lost wake-up fails, not passes late."""
    monkeypatch.setattr(widgets, "IDLE_SECONDS", 4 * PATIENCE)


def picture(value: float, kind: int = 0) -> bytes:
    """A PNG that tells its value: one grey level each."""
    return png(np.full((8, 12), round(10 * value) % 250 + kind, np.uint8))


def shown(explorer: Explorer) -> int:
    with Image.open(io.BytesIO(explorer.picture)) as image:
        return int(np.asarray(image)[0, 0])


def plain(omega):
    yield Frame(picture(omega, 1), f"preview {omega:g}")
    yield Frame(picture(omega), f"final {omega:g}")


def omega_slider():
    return slider("guidance scale ω", 0.0, 8.0, value=1.0, step=0.25)


class Held:
    """A callback that stops before its final frame until it is let go, and writes a diary."""

    def __init__(self):
        self.started, self.finished, self.closed = [], [], []
        self.previewed, self.go = threading.Semaphore(0), threading.Event()

    def __call__(self, omega):
        self.started.append(omega)
        try:
            yield Frame(picture(omega, 1), f"preview {omega:g}")
            self.previewed.release()  # reached only when the preview is shown and the run goes on
            assert self.go.wait(PATIENCE)
            yield Frame(picture(omega), f"final {omega:g}")
            self.finished.append(omega)
        finally:
            self.closed.append(omega)


@pytest.fixture
def displayed(monkeypatch):
    """What `show` displays: a list of (bundle, metadata)."""
    outputs = []
    monkeypatch.setattr(
        widgets, "display", lambda bundle, raw, metadata: outputs.append((bundle, metadata))
    )
    return outputs


def test_waiting_makes_the_picture_belong_to_the_value():
    explorer = Explorer(plain, {"omega": omega_slider()})
    explorer.wait()
    assert (explorer.readout, shown(explorer)) == ("final 1", 10)
    explorer["omega"].value = 3.0
    explorer.wait()
    assert (explorer.readout, shown(explorer)) == ("final 3", 30)


def test_what_is_shown_is_what_the_callback_yields_last():
    explorer = Explorer(plain, {"omega": omega_slider()})
    for value in choices(explorer["omega"]):
        explorer["omega"].value = value
        explorer.wait()
        assert Frame(explorer.picture, explorer.readout) == final(plain(value))


def test_the_preview_is_shown_before_the_final_frame():
    held = Held()
    explorer = Explorer(held, {"omega": omega_slider()})
    explorer["omega"].value = 2.0
    assert held.previewed.acquire(timeout=PATIENCE)
    assert (explorer.readout, shown(explorer)) == ("preview 2", 21)
    held.go.set()
    explorer.wait()
    assert (explorer.readout, shown(explorer)) == ("final 2", 20)


def test_of_fifty_quick_changes_the_last_wins_and_the_others_are_abandoned():
    held = Held()
    explorer = Explorer(held, {"omega": slider("ω", 0, 50, value=0)})
    explorer["omega"].value = 1
    assert held.previewed.acquire(timeout=PATIENCE)  # the first run is at work
    for value in range(2, 51):
        explorer["omega"].value = value
    held.go.set()
    explorer.wait()
    assert explorer.readout == "final 50"
    assert held.started == [1, 50]
    assert held.finished == [50], "the first run went on although its value was stale"


def test_an_abandoned_generator_is_closed_before_the_next_one_starts():
    order = []

    def frames(omega):
        order.append(("open", omega))
        try:
            yield Frame(picture(omega), "")
            explorer["omega"].value = 2.0  # the hand moves while the run is at work
            yield Frame(picture(omega), "")
            order.append(("went on", omega))
        finally:
            order.append(("close", omega))

    explorer = Explorer(frames, {"omega": omega_slider()})
    explorer.wait()
    assert order[:3] == [("open", 1.0), ("close", 1.0), ("open", 2.0)]
    assert order[3:] == [("went on", 2.0), ("close", 2.0)]


def test_a_frame_that_comes_too_late_is_still_shown_under_a_moving_hand():
    seen = []

    def frames(omega):
        if omega < 4:
            explorer["omega"].value = omega + 1  # the hand is always faster than the first frame
        yield Frame(picture(omega), f"final {omega:g}")

    explorer = Explorer(frames, {"omega": omega_slider()})
    explorer._picture.observe(lambda _: seen.append(shown(explorer)), "value")
    explorer.wait()
    assert seen == [10, 20, 30, 40]


def test_a_value_that_leaves_and_returns_is_drawn_again():
    held = Held()
    explorer = Explorer(held, {"omega": omega_slider()})
    held.go.set()
    explorer.wait()
    held.go.clear()
    explorer["omega"].value = 2.0
    assert held.previewed.acquire(timeout=PATIENCE)
    assert held.previewed.acquire(timeout=PATIENCE)  # once for ω = 1, once for ω = 2
    explorer["omega"].value = 1.0
    held.go.set()
    explorer.wait()
    assert (explorer.readout, shown(explorer)) == ("final 1", 10)


def test_a_value_set_twice_is_drawn_once():
    held = Held()
    held.go.set()
    explorer = Explorer(held, {"omega": omega_slider()})
    explorer.wait()
    explorer.wait()
    explorer["omega"].value = 1.0
    explorer.wait()
    assert held.started == [1.0]


def test_values_set_from_several_threads_end_at_the_values_that_stand():
    def frames(a, b):
        yield Frame(picture(0), f"{a} {b}")

    explorer = Explorer(frames, {name: slider(name, 0, 99, value=0) for name in "ab"})

    def move(name):
        for value in range(100):
            explorer[name].value = value

    hands = [threading.Thread(target=move, args=(name,)) for name in "ab"]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    explorer.wait()
    assert explorer.readout == "99 99"


def test_an_error_is_shown_to_the_reader_and_raised_by_wait():
    def frames(omega):
        yield Frame(picture(omega), "fine")
        if omega > 4:
            raise ValueError(f"ω = {omega} <is> too much")

    explorer = Explorer(frames, {"omega": omega_slider()})
    explorer["omega"].value = 5.0
    for _ in range(2):  # it does not wear off
        with pytest.raises(ValueError, match=r"ω = 5.0 <is> too much"):
            explorer.wait()
    assert explorer.readout == "ValueError: ω = 5.0 <is> too much"
    assert 'role="alert"' in explorer._line.value
    assert "&lt;is&gt;" in explorer._line.value
    explorer["omega"].value = 2.0
    explorer.wait()
    assert explorer.readout == "fine"
    assert 'role="status"' in explorer._line.value


@pytest.mark.parametrize("problem", [SystemExit("no"), KeyboardInterrupt("stop")])
def test_no_exception_kills_the_worker_unseen(problem):
    def frames(omega):
        if omega > 4:
            raise problem
        yield Frame(picture(omega), "fine")

    explorer = Explorer(frames, {"omega": omega_slider()})
    explorer["omega"].value = 5.0
    with pytest.raises(type(problem)):
        explorer.wait()
    explorer["omega"].value = 1.0
    explorer.wait()
    assert explorer.readout == "fine"


def test_a_callback_that_yields_nothing_is_an_error():
    def frames(omega):
        yield from ()

    explorer = Explorer(frames, {"omega": omega_slider()})
    with pytest.raises(ValueError, match="yielded nothing"):
        explorer.wait()
    with pytest.raises(ValueError, match="yielded nothing"):
        final(frames(1.0))


def test_a_wait_that_is_too_short_says_so():
    held = Held()
    explorer = Explorer(held, {"omega": omega_slider()})
    with pytest.raises(TimeoutError, match=r"'omega': 1.0"):
        explorer.wait(timeout=0.0)
    held.go.set()
    explorer.wait()


def test_an_idle_worker_ends_and_the_next_change_starts_another(monkeypatch):
    monkeypatch.setattr(widgets, "IDLE_SECONDS", 0.0)
    explorer = Explorer(plain, {"omega": omega_slider()})
    for value in (2.0, 3.0):
        explorer["omega"].value = value
        worker = explorer._worker
        explorer.wait()
        if worker is not None:
            worker.join(PATIENCE)
            assert not worker.is_alive()
        assert explorer._worker is None
        assert explorer.readout == f"final {value:g}"


def test_before_anything_is_asked_there_is_no_thread():
    assert Explorer(plain, {"omega": omega_slider()})._worker is None


def test_the_hook_classes_are_where_a_browser_looks_for_them():
    explorer = Explorer(plain, {"omega": omega_slider()})
    for part, name in [
        (explorer._box, "explorer"), (explorer._picture, "picture"), (explorer._line, "readout"),
        (explorer._behaviour, "behaviour"),
    ]:  # fmt: skip
        assert f"didiff-{name}" in part._dom_classes


def test_a_callback_may_return_one_frame_or_a_list_of_them():
    for frames in (
        lambda omega: Frame(picture(omega), f"{omega:g}"),
        lambda omega: [Frame(picture(0), "preview"), Frame(picture(omega), f"{omega:g}")],
    ):
        explorer = Explorer(frames, {"omega": omega_slider()})
        explorer["omega"].value = 3.0
        explorer.wait()
        assert (explorer.readout, shown(explorer)) == ("3", 30)
        assert final(frames(3.0)) == Frame(picture(3.0), "3")


@pytest.mark.parametrize("result", [None, 3, [None], [(b"", "")]])
def test_a_callback_that_gives_no_frame_is_told_what_to_give(result):
    explorer = Explorer(lambda omega: result, {"omega": omega_slider()})
    with pytest.raises(ValueError, match=r"the callback (returned|yielded) .*: yield Frame\("):
        explorer.wait()


def test_a_run_that_is_left_closes_its_generator_whoever_holds_it():
    run = plain(1.0)
    playing = played(run)
    next(playing)
    playing.close()
    assert inspect.getgeneratorstate(run) == inspect.GEN_CLOSED


def test_moves_are_drawn_one_after_another_and_never_two_at_once(displayed):
    """The stills of `show` are drawn in the calling thread: a callback may own a cached figure."""
    inside, most, begun = [], [], threading.Event()

    def frames(omega):
        inside.append(omega)
        most.append(len(inside))
        if omega == 8.0 and not begun.is_set():  # a still: a hand moves the slider meanwhile
            begun.set()
            explorer["omega"].value = 4.0
            time.sleep(0.05)  # the worker's chance to come in
        yield Frame(picture(omega), f"final {omega:g}")
        inside.remove(omega)

    explorer = Explorer(frames, {"omega": omega_slider()})
    explorer.show(alt="a field of grey", still_over="omega", values=[8.0])
    explorer.wait()
    assert begun.is_set()
    assert max(most) == 1
    assert explorer.readout == "final 4"


# -- what the page is told --------------------------------------------------------------------


def told(explorer: Explorer) -> tuple[int, bool]:
    """How many moves the page knows to be heard, and whether a frame is awaited."""
    names = explorer._box._dom_classes
    (count,) = [name.removeprefix("didiff-heard-") for name in names if "heard" in name]
    return int(count), "didiff-busy" in names


def test_from_a_move_to_its_first_frame_the_page_knows_that_a_frame_is_awaited():
    begun, go = threading.Semaphore(0), threading.Semaphore(0)

    def frames(omega):
        begun.release()
        assert go.acquire(timeout=PATIENCE)
        yield Frame(picture(omega, 1), "preview")
        begun.release()
        assert go.acquire(timeout=PATIENCE)
        yield Frame(picture(omega), "final")

    explorer = Explorer(frames, {"omega": omega_slider()})
    assert told(explorer) == (0, False)
    for move, value in enumerate((2.0, 3.0), start=1):
        explorer["omega"].value = value
        assert told(explorer) == (move, True), "at once, before the callback can do anything"
        assert begun.acquire(timeout=PATIENCE)
        assert told(explorer) == (move, True), "the worker has taken it up"
        go.release()
        assert begun.acquire(timeout=PATIENCE)
        assert told(explorer) == (move, False), "a preview is a sign of life"
        go.release()
        explorer.wait()
        assert told(explorer) == (move, False)


def test_every_move_is_heard_even_while_the_worker_is_busy_and_back_where_it_was():
    held = Held()
    explorer = Explorer(held, {"omega": omega_slider()})
    explorer["omega"].value = 2.0
    assert held.previewed.acquire(timeout=PATIENCE)
    assert told(explorer) == (1, False)
    explorer["omega"].value = 3.0
    assert told(explorer) == (2, True), "the run at work is stale"
    explorer["omega"].value = 2.0
    assert told(explorer)[0] == 3
    held.go.set()
    explorer.wait()
    assert told(explorer) == (3, False)
    assert explorer.readout == "final 2"


def test_a_stale_frame_leaves_the_page_waiting_for_the_next():
    begun, go = threading.Semaphore(0), threading.Semaphore(0)

    def frames(omega):
        begun.release()
        assert go.acquire(timeout=PATIENCE)
        yield Frame(picture(omega), f"final {omega:g}")

    explorer = Explorer(frames, {"omega": omega_slider()})
    explorer["omega"].value = 2.0
    assert begun.acquire(timeout=PATIENCE)
    explorer["omega"].value = 3.0
    go.release()
    assert begun.acquire(timeout=PATIENCE)  # the frame of 2 is shown, 3 is at work
    assert (explorer.readout, told(explorer)) == ("final 2", (2, True))
    go.release()
    explorer.wait()
    assert (explorer.readout, told(explorer)) == ("final 3", (2, False))


def test_an_error_ends_the_waiting():
    def frames(omega):
        raise ValueError("no")
        yield

    explorer = Explorer(frames, {"omega": omega_slider()})
    with pytest.raises(ValueError, match="no"):
        explorer.wait()
    assert told(explorer) == (0, False)


def test_waiting_is_no_move():
    explorer = Explorer(plain, {"omega": omega_slider()})
    explorer.wait()
    explorer.wait()
    assert told(explorer) == (0, False)


# -- how it is arranged -----------------------------------------------------------------------


def tree(widget) -> list:
    """A widget and all that it holds."""
    return [widget, *(part for child in getattr(widget, "children", ()) for part in tree(child))]


def test_every_part_is_in_the_box_once_and_folded_controls_follow_their_button():
    controls = {name: slider(name, 0, 9, value=0) for name in ("a", "seed", "b")}
    explorer = Explorer(lambda **_: Frame(picture(0), ""), controls, folded=["seed"])
    parts = tree(explorer._box)
    for part in (*controls.values(), explorer._line, explorer._picture, explorer._behaviour):
        assert parts.count(part) == 1
    order = [part for part in parts if part in controls.values()]
    assert order == [controls["a"], controls["b"], controls["seed"]]
    (more,) = (part for part in parts if "didiff-more" in part._dom_classes)
    content = parts[parts.index(more) + 1]  # the style sheet hides a button's next sibling
    assert "didiff-folded" in content._dom_classes
    assert list(content.children) == [controls["seed"]]


def test_without_folded_controls_there_is_no_button():
    parts = tree(Explorer(plain, {"omega": omega_slider()})._box)
    assert not any("didiff-more" in part._dom_classes for part in parts)


def test_a_folded_control_must_be_one():
    with pytest.raises(ValueError, match=r"no control \['seed'\] among \['omega'\]"):
        Explorer(plain, {"omega": omega_slider()}, folded=["seed"])


def test_labels_of_one_explorer_have_one_width_that_holds_the_longest():
    controls = {
        "omega": omega_slider(), "y": choice("y", "abcde", value="a"),
        "m": choice("mode", "ab", value="b"),
    }  # fmt: skip
    Explorer(lambda **_: Frame(picture(0), ""), controls, folded=["omega"])
    widths = {control.style.description_width for control in controls.values()}
    assert widths == {f"{0.9 * len('guidance scale ω'):g}ch"}


def test_a_picture_has_the_width_asked_for_where_the_text_has_its_usual_size():
    explorer = Explorer(plain, {"omega": omega_slider()}, 560)
    assert explorer._picture.layout.width == "40em"
    assert 40 * face.PIXELS_PER_EM == 560


def test_style_and_script_come_with_the_explorer_and_need_no_network(displayed):
    explorer = Explorer(plain, {"omega": omega_slider()})
    explorer.show(alt='digits "drawn" <here>', still_over="omega", values=[1.0])
    page = explorer._behaviour.value
    assert 'data-alt="digits &quot;drawn&quot; &lt;here&gt;"' in page
    assert page.count("<style") == page.count("</style>") == 1
    script = html.unescape(re.search(r'onload="([^"]*)"', page)[1])
    assert script == Path(face.__file__).with_name("explorer.js").read_text(encoding="utf-8")
    assert "http" not in page


@pytest.mark.parametrize("kind", ["css", "js"])
def test_style_and_script_look_for_classes_that_exist(kind):
    known = {
        "explorer", "heard", "busy", "picture", "readout", "controls", "stage", "more", "folded",
        "notice", "behaviour",
    }  # fmt: skip
    text = Path(face.__file__).with_name(f"explorer.{kind}").read_text(encoding="utf-8")
    assert set(re.findall(r"didiff-(\w+)", text)) <= known


# -- three faces ------------------------------------------------------------------------------


def show(displayed, alt="digits <drawn> under guidance", **more):
    Explorer(plain, {"omega": omega_slider()}).show(alt=alt, still_over="omega", **more)
    return displayed[-1]


def test_one_output_holds_the_live_view_the_page_and_the_strip(displayed):
    bundle, metadata = show(displayed)
    view = "application/vnd.jupyter.widget-view+json"
    assert set(bundle) == {view, "text/html", "image/png", "text/plain"}
    with Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))) as strip:
        assert strip.width > strip.height
    assert metadata["image/png"]["alt"] == bundle["text/plain"] == "digits <drawn> under guidance"


def test_the_picture_is_drawn_before_it_is_displayed(monkeypatch):
    explorer, seen = Explorer(plain, {"omega": omega_slider()}), []
    monkeypatch.setattr(widgets, "display", lambda *_, **__: seen.append(explorer.readout))
    explorer.show(alt="digits", still_over="omega", values=[2.0])
    assert seen == ["final 1"]


def test_the_page_holds_every_frame_its_readout_and_its_name(displayed):
    page = show(displayed, values=[0.0, 1.0, 2.5])[0]["text/html"]
    for value in (0.0, 1.0, 2.5):
        assert f'"{value:.2f}"' in page
        assert f"final {value:g}" in page
        small = widgets.palette(picture(value), widgets.STILL_COLOURS)
        assert base64.b64encode(small).decode() in page
    assert "preview" not in page
    assert 'max="2" value="1"' in page, "it starts at the control's own value"
    assert "stopPropagation" in page
    assert "http" not in page, "the page must work without a network"


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("names", "data[0]"), ("texts", "data[1]"), ("pictures", "data[2]"),
        ("picture.src", '"data:image/png;base64," + pictures[range.value]'),
        ("picture.alt", 'data[3] + " (" + data[4] + " " + name + ")"'),
        ('find("output").textContent', "name"), ("var name", "names[range.value]"),
        ('find(".didiff-readout").textContent', "texts[range.value]"),
    ],
)  # fmt: skip
def test_each_part_of_the_page_is_given_what_it_is_for(displayed, part, value):
    """To the letter: no fast test can run the script. A browser does, in test_browser."""
    page = show(displayed, values=[1.0])[0]["text/html"]
    assert re.search(rf"{re.escape(f'{part} = {value}')}[,;]", page)


def test_the_name_of_a_stop_is_told_to_who_does_not_see_the_slider(displayed):
    page = show(displayed, values=[1.0])[0]["text/html"]
    assert 'aria-valuetext="1.00"' in page
    assert 'range.setAttribute("aria-valuetext", name);' in page


def test_the_page_tells_its_picture_in_words_and_escapes_them(displayed):
    page = show(displayed)[0]["text/html"]
    assert 'alt="digits &lt;drawn&gt; under guidance (guidance scale ω 1.00)"' in page
    assert "<drawn>" not in page


def test_the_value_that_stands_is_among_the_stills(displayed):
    page = show(displayed, values=[0.0, 4.0])[0]["text/html"]
    assert 'max="2" value="1" aria-valuetext="1.00"' in page


def test_same_stills_same_bytes(displayed):
    first, second = show(displayed)[0], show(displayed)[0]
    for kind in ("text/html", "image/png", "text/plain"):
        assert first[kind] == second[kind]
    other = show(displayed, alt="another")[0]["text/html"]
    mark = re.compile(r"didiff-[0-9a-f]{12}")
    assert mark.search(first["text/html"])[0] != mark.search(other)[0]


def test_a_long_grid_is_thinned_to_both_ends_and_the_present_value(displayed):
    steps = slider("steps", 1, 200, value=20)
    explorer = Explorer(lambda steps: plain(steps), {"steps": steps})
    explorer.show(alt="a grey field", still_over="steps")
    page = displayed[-1][0]["text/html"]
    names = re.search(r"data = \[\[(.*?)\]", page)[1].replace('"', "").split(", ")
    assert len(names) <= widgets.STILL_FRAMES + 1
    assert {"1", "20", "200"} <= set(names)
    assert [int(name) for name in names] == sorted(int(name) for name in names)


def test_a_plot_four_hundred_pixels_wide_stays_small(displayed):
    from didiff.notebook import plots

    figure, (ax,) = plots.panels(size=(4.2, 3.0))
    (dots,) = ax.plot([], [], ".", **{"color": plots.ROLE["model"]["color"]})
    ax.set(xlim=(-4, 4), ylim=(-4, 4))
    noise = np.random.default_rng(0).standard_normal((400, 2))

    def frames(omega):
        dots.set_data(*(noise / (1 + omega)).T)
        yield Frame(png(figure), f"spread {1 / (1 + omega):.2f}")

    explorer = Explorer(frames, {"omega": omega_slider()})
    stops = choices(explorer["omega"])
    explorer.show(alt="a cloud that shrinks", still_over="omega", values=stops[:: len(stops) // 8])
    bundle = displayed[-1][0]
    (names, *_), _ = stills_in(bundle["text/html"])
    assert len(names) == 9
    each = len(bundle["text/html"]) / len(names)
    rest = sum(len(str(face)) for kind, face in bundle.items() if kind != "text/html")
    assert widgets.STILL_FRAMES * each + rest < 220_000


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_alt_text_is_required(displayed, alt):
    with pytest.raises(ValueError, match="alt is empty"):
        show(displayed, alt=alt)
    assert not displayed


def test_the_live_view_is_the_box_in_the_words_of_every_ipywidgets(displayed):
    explorer = Explorer(plain, {"omega": omega_slider()})
    explorer.show(alt="digits", still_over="omega", values=[1.0])
    view = displayed[-1][0]["application/vnd.jupyter.widget-view+json"]
    assert view == {"version_major": 2, "version_minor": 0, "model_id": explorer._box.model_id}


def test_stills_over_an_unknown_control_are_refused(displayed):
    explorer = Explorer(plain, {"omega": omega_slider()})
    with pytest.raises(ValueError, match=r"'steps' among \['omega'\]"):
        explorer.show(alt="x", still_over="steps")


def threads() -> set[str]:
    return {task.name for task in Path("/proc/self/task").iterdir()}


@pytest.fixture
def computed():
    """Compute something with three OpenMP helpers, and return them."""
    before = torch.get_num_threads()

    def compute() -> set[str]:
        others = threads()
        torch.set_num_threads(4)
        torch.ones(10**6).exp()
        return threads() - others

    yield compute
    torch.set_num_threads(before)


def left(helpers: set[str]) -> bool:
    """Have they? They do when they are told, but not at once."""
    until = time.monotonic() + PATIENCE
    while helpers & threads() and time.monotonic() < until:
        time.sleep(0.01)
    return not helpers & threads()


on_linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


@on_linux
def test_a_move_dismisses_the_helpers_of_the_thread_that_made_it(computed):
    explorer = Explorer(plain, {"omega": omega_slider()})
    explorer.wait()
    helpers = computed()
    assert len(helpers) == 3
    explorer["omega"].value = 2.0
    assert left(helpers)


@on_linux
def test_once_a_slider_is_shown_every_cell_dismisses_its_helpers(computed, displayed, monkeypatch):
    kernel = SimpleNamespace(events=EventManager(None, available_events))
    monkeypatch.setattr(widgets, "get_ipython", lambda: kernel)
    Explorer(plain, {"omega": omega_slider()}).show(alt="a shade of grey", still_over="omega")
    helpers = computed()
    assert len(helpers) == 3
    kernel.events.trigger("post_run_cell", None)
    assert left(helpers)


# -- controls ---------------------------------------------------------------------------------


def test_a_slider_of_ints_stays_with_ints_and_reaches_both_ends():
    assert choices(slider("steps", 2, 8, value=4, step=2)) == [2, 4, 6, 8]
    assert choices(slider("ω", 0.0, 0.3, value=0.0, step=0.1)) == [0.0, 0.1, 0.2, 0.3]


def test_a_slider_of_decimals_stands_at_its_stops_alone_and_names_them_alike():
    control = slider("ω", 0.0, 1.0, value=0.5, step=0.125)
    assert [name for name, _ in control.options][:3] == ["0.000", "0.125", "0.250"]
    control = slider("ω", 0.0, 0.95, value=3 * 0.1, step=0.05)
    assert control.value == 0.3, "a rounding error away is near enough"
    assert slider("ω", -0.3, 0.3, value=0.1 + 0.2 - 0.3, step=0.1).value == 0, "so it is near 0"
    with pytest.raises(TraitError, match=r"ω: 0.31 is no stop, choose 0.00, 0.05, .., 0.95"):
        control.value = 0.31
    assert control.value == 0.3


@pytest.mark.parametrize(
    ("low", "high", "value", "step"),
    [
        (1, 1, 1, 1),
        (2, 1, 1, 1),
        (0, 1, 2, 1),
        (0, 9, 4, 3),
        (0.0, 1.0, 0.3, 0.25),
        (0, 1, 0, 0),
        (0, NAN, 0, 1),
        (0, 9, NAN, 1),
    ],
)
def test_an_impossible_slider_is_refused(low, high, value, step):
    with pytest.raises(ValueError, match="slider"):
        slider("x", low, high, value=value, step=step)


def test_a_choice_offers_what_it_was_given():
    for options in (["ddim", "heun"], list("abcdef")):
        control = choice("sampler", options, value=options[1])
        assert (choices(control), control.value) == (options, options[1])
    assert choices(choice("class", {"zero": 0, "one": 1}, value=1)) == [0, 1]
    with pytest.raises(ValueError, match="'euler' is not among"):
        choice("sampler", ["ddim"], value="euler")


@pytest.mark.parametrize(
    ("control", "names", "values"),
    [
        (ipywidgets.FloatSlider(0.5, min=0.0, max=1.0, step=0.25),
         ["0.00", "0.25", "0.50", "0.75", "1.00"], [0.0, 0.25, 0.5, 0.75, 1.0]),
        (ipywidgets.IntSlider(2, min=0, max=4, step=2), ["0", "2", "4"], [0, 2, 4]),
        (ipywidgets.BoundedIntText(1, min=0, max=2), ["0", "1", "2"], [0, 1, 2]),
        (ipywidgets.Checkbox(True), ["False", "True"], [False, True]),
        (ipywidgets.Dropdown(options=[1, "b"]), ["1", "b"], [1, "b"]),
        (ipywidgets.RadioButtons(options=[("one", 1), ("none", None)]), ["one", "none"], [1, None]),
    ],
)  # fmt: skip
def test_stills_run_over_any_control_that_has_a_list_of_values(displayed, control, names, values):
    control.description = "a control"
    assert choices(control) == values
    assert list(map(type, choices(control))) == list(map(type, values))
    explorer = Explorer(lambda x: Frame(picture(values.index(x)), f"at {x}"), {"x": control})
    explorer.show(alt="a field of grey", still_over="x")
    (stops, texts, *_), start = stills_in(displayed[-1][0]["text/html"])
    assert stops == names
    assert texts == [f"at {value}" for value in values]
    assert values[start] == control.value


def stills_in(page: str) -> tuple[list, int]:
    """The data of a page without a kernel, and the number of the still that it shows first."""
    data = json.loads(re.search(r"data = (\[.*?\]), names", page)[1])
    return data, int(re.search(r'value="(\d+)"', page)[1])


def test_stills_over_a_control_without_a_list_of_values_are_refused(displayed):
    text = ipywidgets.Text("x", description="prompt")
    explorer = Explorer(lambda x: Frame(picture(0), ""), {"x": text})
    with pytest.raises(ValueError, match="prompt: a Text has no list of values: take a slider"):
        explorer.show(alt="x", still_over="x")


def test_a_still_where_no_hand_can_move_the_slider_is_refused(displayed):
    explorer = Explorer(plain, {"omega": omega_slider()})
    with pytest.raises(ValueError, match=r"guidance scale ω: 0.3 is none of 0.00, .., 8.00"):
        explorer.show(alt="x", still_over="omega", values=[0.0, 0.3])


def test_the_stills_keep_the_order_of_the_control(displayed):
    control = choice("sampler", ["heun", "ddim", "ddpm"], value="ddim")
    explorer = Explorer(lambda s: Frame(picture(len(s)), s), {"s": control})
    explorer.show(alt="a field of grey", still_over="s", values=["ddpm", "heun"])
    (names, *_), start = stills_in(displayed[-1][0]["text/html"])
    assert names == ["heun", "ddim", "ddpm"]
    assert start == 1


def test_a_control_has_its_label_as_tooltip_where_it_can_have_one():
    for control in (omega_slider(), slider("n", 0, 9, value=1), choice("m", "ab", value="a")):
        if control.has_trait("tooltip"):
            assert control.tooltip == control.description


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ([1, 2, 3, 4], ipywidgets.ToggleButtons),
        ([1, 2, 3, 4, 5], ipywidgets.Dropdown),
        (["a" * 16, "b" * 16], ipywidgets.ToggleButtons),
        (["a" * 16, "b" * 17], ipywidgets.Dropdown),
    ],
)
def test_a_few_short_options_are_buttons_and_others_a_list(options, kind):
    assert type(choice("x", options, value=options[0])) is kind


def test_stills_run_over_a_choice_by_name(displayed):
    control = choice("class", {"zero": 0, "one": 1}, value=1)
    Explorer(lambda y: plain(y), {"y": control}).show(alt="a digit", still_over="y")
    page = displayed[-1][0]["text/html"]
    assert '["zero", "one"]' in page
    assert "<output>one</output>" in page


def test_the_readout_cannot_leave_the_script(displayed):
    def frames(omega):
        yield Frame(picture(omega), "</script><b>")

    Explorer(frames, {"omega": omega_slider()}).show(alt="x", still_over="omega", values=[1.0])
    page = displayed[-1][0]["text/html"]
    assert page.count("</script>") == 1
    assert "<b>" not in page


def test_a_discarded_explorer_leaves_no_thread_behind(monkeypatch):
    monkeypatch.setattr(widgets, "IDLE_SECONDS", 0.0)
    before = set(threading.enumerate())
    for _ in range(20):  # a cell run twenty times
        Explorer(plain, {"omega": omega_slider()}).wait()
    mine = set(threading.enumerate()) - before
    for worker in mine:
        worker.join(PATIENCE)
    assert not any(worker.is_alive() for worker in mine)


# -- versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (
            {"ipywidgets": "7.6.5"},
            "ipywidgets 7.6.5 is too old .* need 7.7 or newer: python -m pip ",
        ),
        ({"IPython": "7.33.0"}, r"IPython 7.33.0 is too old .* 'ipython>=7.34'"),
        ({"ipywidgets": "6.10.0"}, "ipywidgets 6.10.0 is too old"),
    ],
)
def test_company_that_is_too_old_is_told_with_the_remedy(found, complaint):
    with pytest.raises(ImportError, match=complaint) as caught:
        versions.require(found)
    assert "\n" not in str(caught.value)


def test_the_sliders_look_at_their_company_when_they_are_imported(monkeypatch):
    for package, least in ((ipywidgets, "7.7"), (IPython, "7.34")):
        with monkeypatch.context() as patch:
            patch.setattr(package, "__version__", "7.6.3")
            with pytest.raises(ImportError, match=f"7.6.3 is too old .* {least} or newer"):
                importlib.reload(widgets)


def test_a_python_that_is_too_old_is_told(monkeypatch):
    monkeypatch.setattr(versions.sys, "version_info", (3, 10, 12, "final", 0))
    with pytest.raises(ImportError, match=r"^didiff needs Python 3.11 or newer: this is 3.10.12$"):
        versions.require({})


@pytest.mark.parametrize("ours", ["7.7", "7.7.1", "7.10.0", "8.0.0rc1", "8.1.9", "10.0"])
def test_newer_company_is_welcome(ours):
    versions.require({"ipywidgets": ours})
