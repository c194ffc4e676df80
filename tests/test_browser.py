"""Law: in a real JupyterLab every slider moves its picture and its readout, by key and by mouse.

Pictures of what the browser saw are left in build/shots/.
"""

import os
import shutil
import textwrap
from pathlib import Path

import nbformat
import pytest

from lessons.source import build
from tests import labdrive

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


@pytest.mark.parametrize("lesson", LESSONS)
def test_every_slider_of_a_lesson_moves_its_picture_and_its_readout(
    lesson, browser, server, folder, shots
):
    shutil.copy(ROOT / "lessons" / f"{lesson}.ipynb", folder)  # JupyterLab saves what it opens
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
