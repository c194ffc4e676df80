"""Law: each lesson runs from top to bottom, and its sliders draw wherever their controls can stand.

Each runs once, in a fresh kernel as a reader's does; `tests.sweep` moves the sliders inside it.
"""

import os

import matplotlib
import nbformat
import numpy as np
import pytest
import torch
from nbclient.exceptions import CellExecutionError

from didiff.notebook.pictures import png
from didiff.notebook.widgets import Explorer, Frame, slider
from lessons.source import build
from tests import sweep
from tests.test_split import SPLIT

# What a lesson warns of is told by its stored notebook, not here.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

PATIENCE = 1200  # seconds for one cell; that which moves all sliders is a long one


def cell(code: str) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell(code)


def ran(notebook: nbformat.NotebookNode, monkeypatch, least: int = 1) -> nbformat.NotebookNode:
    """The notebook, run while a sweep watches, and swept in the end; least: number of sliders."""
    monkeypatch.setattr(build, "TIMEOUT", PATIENCE)
    sweeps = "watch()", f"over_all({least})"
    first, last = (cell(f"import tests.sweep; tests.sweep.{do}") for do in sweeps)
    notebook.cells = [first, *notebook.cells, last]
    path = os.pathsep.join(filter(None, [str(build.LESSONS.parent), os.environ.get("PYTHONPATH")]))
    return build.run(notebook, PYTHONPATH=path, OMP_NUM_THREADS="1")


# the later a lesson the longer it takes, and what takes long is best begun first
@pytest.mark.parametrize("lesson", [*map(build.name, reversed(build.sources()))])
def test_a_lesson_runs_and_its_sliders_draw_over_their_whole_grid(lesson, monkeypatch):
    (source,) = build.sources(lesson)
    ran(build.build(source), monkeypatch, least=0 if build.is_deeper(source) else 1)


@pytest.fixture
def own_style():
    """What a lesson sets for the whole process, put back for the tests that follow."""
    threads = torch.get_num_threads()
    with matplotlib.rc_context():
        yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("own_style")
@pytest.mark.parametrize("source", SPLIT, ids=build.name)
def test_each_section_of_a_split_lesson_runs_after_the_setup_alone(source):
    setup, sections = build.sections(source)
    for codes in sections.values():
        names = {"__name__": "__main__"}
        for code in [*setup, *codes]:
            exec(compile(code, source.name, "exec"), names)


def test_a_check_that_fails_ends_the_run(monkeypatch):
    notebook = nbformat.v4.new_notebook(cells=[cell("assert 1 == 2")], metadata=build.METADATA)
    with pytest.raises(CellExecutionError, match="assert 1 == 2"):
        ran(notebook, monkeypatch)


def grey(level: int) -> bytes:
    return png(np.full((4, 4), level, np.uint8))


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        (lambda level: Frame(grey(level), "grey"), "the readout never changes"),
        (lambda level: Frame(grey(0), f"grey {level}"), "the picture never changes"),
        (lambda level: Frame(grey(level), f"grey {level}" * (level < 9)), "'level': 9"),
        (lambda level: Frame(grey(level)[:-4] * (level > 0), f"grey {level}"), "'level': 0"),
    ],
)
def test_a_sweep_sees_a_slider_that_moves_nothing_or_draws_nothing(frame, complaint, monkeypatch):
    explorer = Explorer(frame, {"level": slider("level", 0, 9, value=3)})
    monkeypatch.setattr(sweep, "SHOWN", [explorer])
    with pytest.raises(AssertionError, match=complaint):
        sweep.over_all()


def test_a_lesson_without_a_slider_is_noticed(monkeypatch):
    monkeypatch.setattr(sweep, "SHOWN", [])
    with pytest.raises(AssertionError, match="no slider in the whole lesson"):
        sweep.over_all()
