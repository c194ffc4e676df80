"""Law: each lesson runs from top to bottom, and its sliders draw wherever their controls can stand.

Each runs once, in a fresh kernel as a reader's does; `tests.sweep` moves the sliders inside it.
"""

import os

import nbformat
import pytest

from lessons.source import build

# What a lesson warns of is told by its stored notebook, not here.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

PATIENCE = 1200  # seconds for one cell; that which moves all sliders is a long one


def cell(code: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(code)


def ran(notebook: nbformat.NotebookNode, monkeypatch) -> nbformat.NotebookNode:
    """The notebook, run while a sweep watches, and swept in the end."""
    monkeypatch.setattr(build, "TIMEOUT", PATIENCE)
    first, last = (cell(f"import tests.sweep; tests.sweep.{do}()") for do in ("watch", "over_all"))
    notebook.cells = [first, *notebook.cells, last]
    path = os.pathsep.join(filter(None, [str(build.LESSONS.parent), os.environ.get("PYTHONPATH")]))
    return build.run(notebook, PYTHONPATH=path, OMP_NUM_THREADS="1")


# the later a lesson the longer it takes, and what takes long is best begun first
@pytest.mark.parametrize("lesson", [source.stem for source in reversed(build.sources())])
def test_a_lesson_runs_and_its_sliders_draw_over_their_whole_grid(lesson, monkeypatch):
    (source,) = build.sources(lesson)
    ran(build.build(source), monkeypatch)


EXPLORER = """\
from didiff.notebook.pictures import png
from didiff.notebook.widgets import Explorer, Frame, slider
import numpy as np

def frames(grey):
    yield Frame({picture}, {readout})

Explorer(frames, {{"grey": slider("grey", 0, 9, value=3)}}).show(alt="grey", still_over="grey")"""
PICTURE, READOUT = "png(np.full((4, 4), grey, np.uint8))", "f'grey {grey}'"


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        (EXPLORER.format(picture=PICTURE, readout="'grey'"), "the readout never changes"),
        (EXPLORER.format(picture="png(np.zeros((4, 4), np.uint8))", readout=READOUT), "picture"),
        (EXPLORER.format(picture=PICTURE, readout=f"{READOUT} * (grey < 9)"), "'grey': 9"),
        ("x = 1", "no slider in the whole lesson"),
        (EXPLORER.format(picture=PICTURE, readout=READOUT) + "; assert 1 == 2", "assert 1 == 2"),
    ],
)
def test_a_sweep_sees_a_slider_that_moves_nothing_and_a_check_that_fails(
    code, complaint, monkeypatch
):
    notebook = nbformat.v4.new_notebook(cells=[cell(code)], metadata=build.METADATA)
    with pytest.raises(Exception, match=complaint):
        ran(notebook, monkeypatch)
