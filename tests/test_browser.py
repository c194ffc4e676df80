"""Law: in a real JupyterLab every slider moves its picture and its readout, by key and by mouse.

Pictures of what the browser saw are left in build/shots/.
"""

import base64
import os
import re
import signal
import textwrap
from pathlib import Path

import nbformat
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from didiff.notebook import stills
from didiff.notebook.frames import Frame
from didiff.notebook.pictures import png
from lessons.source import build
from tests import colab, labdrive, slices

ROOT = Path(__file__).parents[1]
LESSONS = ("07_samplers", "11_classifier_free_guidance")

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# A live slider and one that is wired to nothing, in the shape of the lessons' explorers.
TWO_EXPLORERS = """\
import io
import ipywidgets
from PIL import Image

def explorer(name, wired):
    slider = ipywidgets.IntSlider(3, min=1, max=9, description=name)
    picture = ipywidgets.Image(width=200)
    readout = ipywidgets.HTML()
    def show(change):
        data = io.BytesIO()
        Image.new("RGB", (20, 20), (0, 0, 25 * slider.value)).save(data, format="png")
        picture.value, readout.value = data.getvalue(), f"blue {slider.value}"
    show(None)
    if wired:
        slider.observe(show, "value")
    picture.add_class("didiff-picture")
    readout.add_class("didiff-readout")
    box = ipywidgets.VBox([slider, picture, readout])
    box.add_class("didiff-explorer")
    return box

display(explorer("alive", True), explorer("dead", False))
"""

DRIVEN = (
    """\
from didiff.notebook.pictures import png
from didiff.notebook.widgets import Explorer, Frame, slider
import numpy as np

def frames(du):
    yield Frame(png(np.full((20, 20), 255 * du, "uint8")), f"du = {du}")

explorer = Explorer(frames, {"du": slider("du", 0.05, 1.0, value=0.1, step=0.05)}, 200)
explorer.show(alt="a square", still_over="du", values=[0.1])""",
    """\
for du in (0.05, 0.4, 0.1):
    explorer["du"].value = du
    explorer.wait()""",
)


# Explorers of the lessons' shapes, with pictures that cost nothing: the controls as in the sources,
# width and height as in the stored notebooks. The last one draws when the test lets it.
SHAPES = (
    """\
import os, time
from pathlib import Path
import numpy as np
from didiff.notebook.pictures import png
from didiff.notebook.playground import Playground
from didiff.notebook.widgets import Explorer, Frame, choice, slider

def field(width, height, ready=lambda: True):
    def frames(**values):
        while not ready():
            time.sleep(0.01)
        shade = sum(map(ord, repr(sorted(values.items())))) % 199
        shades = np.linspace(0, 56, width) + shade + np.zeros((height, 1))
        yield Frame(png(shades.astype("uint8")), f"{values}"[:120])
    return frames

def show(controls, width, height, ready=lambda: True):
    first = next(iter(controls))
    explorer = Explorer(field(width, height, ready), controls, width)
    explorer.show(alt="shades of grey", still_over=first, values=[controls[first].value])

def play(*methods, width=693, height=171, view="explorer"):
    explorer = getattr(Playground(dict.fromkeys(methods), {}, None), view)()
    explorer.frames = field(width, height)
    explorer.show(alt="shades of grey", still_over="omega", values=[3.0])

def scale(label="scale ω ="):
    return slider(label, 0.0, 8.0, value=1.0, step=0.25)

print("kernel", os.getpid())""",
    'show({"k": slider("step k", 0, 1000, value=150, step=10)}, 560, 261)',
    """\
eta = slider("share of fresh noise η", 0.0, 1.0, value=0.0, step=0.1)
show({"eta": eta, "steps": slider("number of steps", 1, 50, value=30)}, 420, 300)""",
    """\
sampler = choice("sampler", ["DDIM", "DDPM", "Heun", "DPM-Solver++"], value="DDIM")
show({"sampler": sampler, "steps": slider("number of steps", 1, 50, value=8)}, 400, 362)""",
    """\
k = slider("noise level, step k =", 50, 1000, value=200, step=50)
show({"k": k, "omega": scale("guidance scale ω =")}, 576, 297)""",
    'show({"omega": scale(), "steps": slider("DDIM steps", 1, 50, value=30)}, 400, 361)',
    'play("critic", "clean critic", "the painter itself")',
    'play("critic", "clean critic", "the painter itself", view="trajectory")',
    'play("classifier-free", "in the cleaner half only", "x0 clipped at every step")',
    'play("classifier-free", "classifier", "classifier-free, cleaner half only")',
    'play("classifier-free", "classifier")',
    'show({"omega": scale()}, 400, 200, lambda: not Path("hold").exists())',
)
SLOW = -1  # the explorer that the file `hold` holds


@pytest.fixture(scope="module")
def browser():
    if labdrive.find_chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium here, and in CI this test must run: see .ci/run")
        pytest.skip("no Chromium here: install chromium to see the sliders moved")
    with labdrive.chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lessons")


@pytest.fixture(scope="module")
def server(folder):
    with labdrive.lab(folder) as server:
        yield server


@pytest.fixture(scope="module")
def shots():
    path = ROOT / "build" / "shots"
    path.mkdir(parents=True, exist_ok=True)
    return path


def sliders_of(lesson: str) -> nbformat.NotebookNode:
    """The cells of a lesson that show a slider, with those that they need."""
    (source,) = build.sources(lesson)
    cells = colab.code_of(build.read(source))
    shown = [number for number, code in enumerate(cells) if colab.SHOWS_A_SLIDER in code]
    chosen = [nbformat.v4.new_code_cell(cells[k]) for k in slices.needed(cells, shown)]
    return nbformat.v4.new_notebook(cells=chosen, metadata=build.METADATA)


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_slider_of_a_lesson_moves_its_picture_and_its_readout(
    lesson, browser, server, folder, shots
):
    nbformat.write(sliders_of(lesson), folder / f"{lesson}.ipynb")
    faults = labdrive.visit(browser, server, f"{lesson}.ipynb", shots)
    assert not faults, "\n".join(faults)


def test_a_slider_that_a_cell_moves_stays_where_the_cell_left_it(browser, server, folder):
    """A slider must not send back what it was told: it would undo what came after (0.40)."""
    cells = [nbformat.v4.new_code_cell(source) for source in DRIVEN]
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=build.METADATA), folder / "driven.ipynb"
    )
    page = browser.new_page()
    labdrive.open_notebook(page, server, "driven.ipynb")
    labdrive.run_all(page)
    explorer = page.locator(f"{labdrive.PANEL} {labdrive.EXPLORER}")
    labdrive.at_rest(explorer)
    assert explorer.locator(".widget-readout").text_content() == "0.10"
    assert explorer.locator(labdrive.READOUT).text_content() == "du = 0.1"
    page.close()


def test_a_slider_that_moves_nothing_and_a_broken_cell_are_noticed(
    browser, server, folder, shots, monkeypatch
):
    cells = [nbformat.v4.new_code_cell(source) for source in (TWO_EXPLORERS, "1 / 0")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=build.METADATA)
    nbformat.write(notebook, folder / "faulty.ipynb")
    monkeypatch.setattr(labdrive, "MOVE", 3)
    faults = labdrive.visit(browser, server, "faulty.ipynb", shots)
    assert [fault for fault in faults if "slider" in fault] == textwrap.dedent("""\
        slider 'dead' by_keyboard leaves the picture as it was
        slider 'dead' by_keyboard leaves the readout as it was
        slider 'dead' by_mouse leaves the picture as it was
        slider 'dead' by_mouse leaves the readout as it was""").splitlines()
    assert any("ZeroDivisionError" in fault for fault in faults)


# ------------------------------------------------------------------------ every explorer

FRONTS = {"lab": labdrive.open_notebook, "notebook": labdrive.open_in_notebook}
in_every_front_end = pytest.mark.parametrize("front", FRONTS)


@pytest.fixture(scope="module")
def opened(browser, server, folder):
    """The explorers of the lessons' shapes, shown by a front end: opened("lab") is a page."""
    pages = {}

    def opened(front):
        if front not in pages:
            cells = [nbformat.v4.new_code_cell(source) for source in SHAPES]
            notebook = nbformat.v4.new_notebook(cells=cells, metadata=build.METADATA)
            nbformat.write(notebook, folder / f"{front}.ipynb")
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            FRONTS[front](page, server, f"{front}.ipynb")
            labdrive.run_all(page)
            assert not labdrive.cell_faults(page)
            pages[front] = page
        return pages[front]

    return opened


def explorers(page):
    found = page.locator(f"{labdrive.PANEL} {labdrive.EXPLORER}")
    assert found.count() == len(SHAPES) - 1
    return found


def focus(explorer, number=0):
    explorer.scroll_into_view_if_needed()
    explorer.locator(".noUi-handle").nth(number).focus()


@in_every_front_end
def test_the_keys_of_a_slider_move_it_and_not_the_notebook(opened, front):
    page = opened(front)
    explorer = explorers(page).nth(1)
    focus(explorer, 1)
    cell = page.locator(".jp-Cell.jp-mod-selected").last.element_handle()
    for key, value in [
        ("ArrowRight", "31"), ("ArrowUp", "32"), ("ArrowLeft", "31"), ("ArrowDown", "30"),
        ("End", "50"), ("Home", "1"), ("PageUp", "6"), ("PageDown", "1"),
    ]:  # fmt: skip
        page.keyboard.press(key)
        readout = explorer.locator(labdrive.READOUT)
        says = f"'steps': {value}}}"
        labdrive.until(lambda: says in readout.inner_text(), 30, lambda: f"{key}: not {says}")  # noqa: B023
    assert page.evaluate("cell => cell.classList.contains('jp-mod-selected')", cell)
    page.keyboard.press("Control+Enter")  # all other keys are the notebook's: the cell runs anew
    labdrive.until(lambda: "'steps': 30}" in readout.inner_text(), 30, lambda: "did not run")


@in_every_front_end
def test_one_tab_leads_from_slider_to_slider(opened, front):
    page = opened(front)
    focus(explorers(page).nth(4), 0)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "DDIM steps"


def audit(page, part=labdrive.EXPLORER) -> list[str]:
    """What axe-core finds wrong with the explorers, or with another part of the page."""
    found = Axe().run(page, context=part).response["violations"]
    return [f"{fault['id']}: {node['html'][:150]}" for fault in found for node in fault["nodes"]]


@in_every_front_end
def test_an_explorer_can_be_used_without_seeing_it(opened, front, shots):
    page = opened(front)
    for explorer in explorers(page).all():  # those out of sight are not looked at
        explorer.scroll_into_view_if_needed()
        assert not audit(page)
    page.locator(".noUi-handle").first.evaluate("handle => handle.removeAttribute('aria-label')")
    page.locator(f"img{labdrive.PICTURE}").first.evaluate("picture => picture.alt = null")
    explorers(page).first.scroll_into_view_if_needed()
    assert [fault for fault in audit(page) if fault.startswith("aria-input-field-name")]


def test_the_words_of_the_picture_are_its_alt(opened):
    pictures = explorers(opened("lab")).locator(f"img{labdrive.PICTURE}")
    for picture in pictures.all()[1:]:
        assert picture.get_attribute("alt") == "shades of grey"
        assert not picture.get_attribute("title")


def lefts(page, part: str) -> list[list[int]]:
    """Where a part of each control begins, in pixels from its explorer's left, by explorer."""
    return page.evaluate(
        """part => [...document.querySelectorAll(".didiff-explorer")].map(box =>
            [...box.querySelectorAll(part)].filter(it => it.offsetParent).map(it =>
                Math.round(it.getBoundingClientRect().left - box.getBoundingClientRect().left)))""",
        part,
    )


PROJECTOR = {"width": 1280 * 2 // 3, "height": 720 * 2 // 3}  # 1280 x 720 at 150 %


def test_controls_and_picture_of_each_explorer_fit_together_on_a_projector(opened, shots):
    page = opened("lab")
    page.set_viewport_size(PROJECTOR)
    page.locator('.jp-SideBar [data-id="filebrowser"]').click()  # a lecturer puts the files away
    room = page.locator(f"{labdrive.PANEL} .jp-WindowedPanel-outer").bounding_box()
    assert round(room["height"]) <= 360
    for number, explorer in enumerate(explorers(page).all()):
        explorer.scroll_into_view_if_needed()
        picture = explorer.locator(labdrive.PICTURE)
        fits = lambda: explorer.bounding_box()["height"] <= room["height"]  # noqa: B023, E731
        labdrive.until(fits, 10, lambda: f"{number}: {explorer.bounding_box()}, {room}")  # noqa: B023
        assert explorer.bounding_box()["width"] <= room["width"]
        assert picture.bounding_box()["height"] >= 150, "and the picture can still be seen"
        page.screenshot(path=shots / f"projector_{number}.png")
    page.set_viewport_size({"width": 1280, "height": 720})


@in_every_front_end
def test_tracks_of_one_column_begin_at_one_place(opened, front):
    for places in lefts(opened(front), ".noUi-target"):
        apart = [b - a for a, b in zip(sorted(places), sorted(places)[1:], strict=False)]
        assert all(gap == 0 or gap > 200 for gap in apart), places


def test_everything_grows_in_presentation_mode(opened, shots):
    page = opened("lab")
    explorer = explorers(page).nth(1)

    def sizes():
        explorer.scroll_into_view_if_needed()
        text = [
            explorer.locator(part).first.evaluate("it => parseFloat(getComputedStyle(it).fontSize)")
            for part in (".widget-label", ".widget-readout", labdrive.READOUT)
        ]
        return [*text, explorer.locator(labdrive.PICTURE).bounding_box()["width"]]

    def toggle():
        labdrive.choose(page, "View", "Appearance", "application:toggle-presentation-mode")

    before = sizes()
    assert before == [14, 14, 14, 420]
    toggle()
    labdrive.until(lambda: sizes() == [17, 17, 17, 510], 10, lambda: f"{sizes()}")
    page.screenshot(path=shots / "presentation.png")
    toggle()
    labdrive.until(lambda: sizes() == before, 10, lambda: f"{sizes()}")


@in_every_front_end
def test_a_picture_that_is_long_in_coming_is_dimmed_until_it_comes(opened, front, folder):
    page = opened(front)
    explorer = explorers(page).nth(SLOW)
    dim = """explorer => [
        getComputedStyle(explorer.querySelector("img.didiff-picture")).opacity < 0.5,
        getComputedStyle(explorer.querySelector(".didiff-stage"), "::after").visibility,
    ]"""
    focus(explorer)
    before = labdrive.at_rest(explorer)
    assert explorer.evaluate(dim) == [False, "hidden"]
    hold = folder / "hold"
    hold.touch()
    try:
        page.keyboard.press("ArrowRight")
        labdrive.until(lambda: explorer.evaluate(dim) == [True, "visible"], 30, lambda: "not dim")
        assert labdrive.shown(explorer) == before
        assert not explorer.locator(".didiff-notice").text_content(), "the kernel has answered"
    finally:
        hold.unlink()
    labdrive.until(lambda: explorer.evaluate(dim) == [False, "hidden"], 30, lambda: "dim for ever")
    labdrive.await_change(explorer, before)
    assert "1.25" in labdrive.shown(explorer).readout


@in_every_front_end
def test_a_readout_of_two_lines_leaves_the_picture_where_it_is(opened, front):
    explorer = explorers(opened(front)).nth(5)
    top = lambda: explorer.locator(labdrive.PICTURE).bounding_box()["y"]  # noqa: E731
    text = explorer.locator(f"{labdrive.READOUT} [role=status]")
    explorer.scroll_into_view_if_needed()
    places = []
    for words in ("short", "a readout of two lines is longer than the column is wide " * 2):
        text.evaluate("(it, words) => { it.textContent = words; }", words)
        places.append(top())
    assert places[0] == places[1]


@in_every_front_end
def test_a_move_that_no_kernel_hears_of_is_told(opened, front, folder):
    """The kernel is stopped as if it were busy, wakes up, and is restarted in the end."""
    page = opened(front)
    explorer = explorers(page).first
    notice = explorer.locator(".didiff-notice")
    kernel = int(re.search(r"kernel (\d+)", page.locator(".jp-OutputArea").first.text_content())[1])
    told = lambda words: labdrive.until(  # noqa: E731
        lambda: words in (notice.text_content() or "nothing"),
        30,
        lambda: f"it does not say {words}",
    )
    focus(explorer)
    told("nothing")
    os.kill(kernel, signal.SIGSTOP)
    try:
        page.keyboard.press("ArrowRight")
        told("No answer")
        assert not audit(page)
    finally:
        os.kill(kernel, signal.SIGCONT)
    told("nothing")
    labdrive.choose(page, "Kernel", "kernelmenu:restart")
    page.locator(".jp-Dialog button.jp-mod-warn, .jp-Dialog button.jp-mod-accept").click()
    told("run the cell again")
    assert notice.is_visible()
    assert not audit(page)


# ------------------------------------------------------------------------ without a kernel


def test_the_slider_without_a_kernel_shows_the_picture_the_words_and_the_name_of_its_stop(browser):
    frames = {
        f"{k / 10:.1f}": Frame(png(np.full((4, 6), 40 * k, np.uint8)), f"shade <{k}>")
        for k in range(5)
    }
    page = browser.new_page()
    html = stills.stills_html(frames, "0.2", "ω & more", 'a "field"', 300)
    page.set_content(f"{html}<p>and once more</p>{html}")  # one page may hold an output twice
    for box in page.locator(".didiff-stills").all():
        slider = box.locator("input")
        assert not box.locator("small").is_visible(), "the hint is for pages without scripts"
        assert still(box) == ("0.2", *frames["0.2"])
        slider.focus()
        for key, name in [("ArrowRight", "0.3"), ("Home", "0.0"), ("End", "0.4")]:
            page.keyboard.press(key)
            assert still(box) == (name, *frames[name])
            assert slider.get_attribute("aria-valuetext") == name
            assert box.locator("img").get_attribute("alt") == f'a "field" (ω & more {name})'
    assert not audit(page, ".didiff-stills")
    page.close()


def still(box) -> tuple[str, bytes, str]:
    """The name of the stop, the bytes of the picture and the words that a reader sees."""
    source = box.locator("img").get_attribute("src").removeprefix("data:image/png;base64,")
    words = box.locator(".didiff-readout").inner_text()
    return box.locator("output").inner_text(), base64.b64decode(source), words


@in_every_front_end
def test_the_keys_of_the_slider_without_a_kernel_move_it_and_not_the_notebook(
    browser, server, folder, front
):
    frames = {str(k): Frame(png(np.full((4, 6), 40 * k, np.uint8)), f"shade {k}") for k in range(5)}
    html = stills.stills_html(frames, "2", "shade", "a field", 300)
    cells = [nbformat.v4.new_code_cell(f"from IPython.display import HTML\nHTML({html!r})")]
    cells.append(nbformat.v4.new_code_cell("1"))
    nbformat.write(
        nbformat.v4.new_notebook(cells=cells, metadata=build.METADATA),
        folder / f"stills_{front}.ipynb",
    )
    page = browser.new_page()
    FRONTS[front](page, server, f"stills_{front}.ipynb")
    labdrive.run_all(page)
    box = page.locator(".didiff-stills").first
    box.locator("input").focus()
    for key, name in [("ArrowRight", "3"), ("ArrowUp", "4"), ("ArrowDown", "3"), ("Home", "0")]:
        page.keyboard.press(key)
        assert still(box) == (name, *frames[name])
    page.close()
