"""Laws of the explorer: the latest value wins, nothing is swallowed, one output has three faces.

The generators are held by events, never by the clock.
"""

import base64
import io
import re
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from IPython.core.events import EventManager, available_events
from PIL import Image
from traitlets import TraitError

from didiff.notebook import widgets
from didiff.notebook.pictures import png
from didiff.notebook.widgets import Explorer, Frame, choice, choices, final, slider

NAN = float("nan")
PATIENCE = 30.0  # seconds; only a failing test waits so long


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
    ]:  # fmt: skip
        assert f"didiff-{name}" in part._dom_classes


# -- three faces ------------------------------------------------------------------------------


def show(displayed, alt="digits <drawn> under guidance", **more):
    Explorer(plain, {"omega": omega_slider()}).show(alt=alt, still_over="omega", **more)
    return displayed[-1]


def test_one_output_holds_the_live_view_the_page_and_the_strip(displayed):
    bundle, metadata = show(displayed)
    assert set(bundle) == {
        "application/vnd.jupyter.widget-view+json", "text/html", "image/png", "text/plain",
    }  # fmt: skip
    with Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))) as strip:
        assert strip.width > strip.height
    assert metadata["image/png"]["alt"] == bundle["text/plain"] == "digits <drawn> under guidance"


def test_the_live_picture_is_named_in_words(displayed):
    explorer = Explorer(plain, {"omega": omega_slider()})
    explorer.show(alt="sixteen digits", still_over="omega", values=[1.0])
    state = explorer._picture.get_state()
    assert state["tooltip"] == "sixteen digits"
    assert state["description"] == "", "a browser fails to set a tooltip beside no description"


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

    Explorer(frames, {"omega": omega_slider()}).show(alt="a cloud that shrinks", still_over="omega")
    assert sum(len(str(face)) for face in displayed[-1][0].values()) < 220_000


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_alt_text_is_required(displayed, alt):
    with pytest.raises(ValueError, match="alt is empty"):
        show(displayed, alt=alt)
    assert not displayed


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
    with pytest.raises(TraitError, match=r"ω = 0.31: choose a stop, 0.00, 0.05, .., 0.95"):
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
