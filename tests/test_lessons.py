"""Laws of the lessons: built from their sources, run, readable without a kernel, tagged.

That each holds all it owes to the lectures is told in test_index.py.
"""

import re
import statistics
from html.parser import HTMLParser

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from lessons.source import build, index
from tests.benchmarks.reading import shown_lines

KINDS = {"setup", "formula", "check", "play", "exercise", "solution"}

CELL_LINES = 25
MEDIAN_LINES = 7
IMAGES = ("image/png", "image/jpeg")

WRITTEN = [build.name(source) for source in build.sources()]
LESSONS = pytest.mark.parametrize("lesson", WRITTEN)


def stored(lesson):
    return nbformat.read(build.LESSONS / f"{lesson}.ipynb", as_version=4)


def code_cells(lesson):
    return [cell for cell in stored(lesson).cells if cell.cell_type == "code"]


def outputs(lesson):
    return [output for cell in code_cells(lesson) for output in cell.outputs]


def tags(cell):
    return cell.metadata.get("tags", [])


def test_each_source_is_a_lesson_of_the_course_and_each_notebook_has_a_source():
    assert {source.stem for source in build.sources()} <= set(index.LESSONS)
    stored = [*build.LESSONS.glob("*.ipynb"), *build.LESSONS.glob("deeper/*.ipynb")]
    assert set(stored) == set(map(build.notebook_of, build.sources()))


# ------------------------------------------------------------------------ built and run


@LESSONS
def test_the_stored_notebook_is_the_one_its_source_builds(lesson):
    (source,) = build.sources(lesson)
    built, kept = index.built(source), stored(lesson)
    for cell in kept.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    assert kept == built, f"say: make lessons ONLY={lesson}"


@LESSONS
def test_every_cell_was_run_once_in_order_and_complained_of_nothing(lesson):
    counts = [cell.execution_count for cell in code_cells(lesson)]
    assert counts == list(range(1, len(counts) + 1))
    assert not [output for output in outputs(lesson) if output.output_type == "error"]
    assert not [output.text for output in outputs(lesson) if output.get("name") == "stderr"]


@LESSONS
def test_no_cell_shows_the_bare_value_of_its_last_line(lesson):
    assert not [out.data for out in outputs(lesson) if out.output_type == "execute_result"]


@LESSONS
def test_nothing_is_stored_that_dies_with_the_kernel(lesson):
    assert "widgets" not in stored(lesson).metadata
    assert not [output for output in outputs(lesson) if build.LIVE_WIDGET in output.get("data", {})]


@LESSONS
def test_the_first_code_cell_installs_the_course_where_it_is_missing(lesson):
    first, setup = code_cells(lesson)[:2]
    expected = build.install_cell(setup, lesson.startswith("deeper/"))
    assert (first.source, first.metadata) == (expected.source, expected.metadata)
    assert first.metadata["jupyter"]["source_hidden"]  # nobody comes for it


def test_an_inserted_cell_changes_no_other_cells_id():
    def ids(*texts):
        cells = [nbformat.v4.new_code_cell(text) for text in texts]
        build.name_cells(cells)
        return [cell.id for cell in cells]

    assert ids("new", "x = 1", "y = 2")[1:] == ids("x = 1", "y = 2")
    assert len(set(ids("x = 1", "x = 1", "x = 1"))) == 3


def asking(*codes):
    """Notebooks of one cell each."""
    return [
        nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)], metadata=build.METADATA)
        for code in codes
    ]


GIVEN = (
    "import os; print({}, os.environ.get('OMP_NUM_THREADS'), os.environ.get('MPLBACKEND') == 'agg')"
)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # jupyter_client's, about its own transport
def test_lessons_run_side_by_side_get_a_core_each_and_come_back_in_order(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MPLBACKEND", "agg")  # would keep pictures out of the notebook

    def printed(*numbers):
        ran = build.run_all(asking(*(GIVEN.format(n) for n in numbers)))
        return [notebook.cells[0].outputs[0].text.strip() for notebook, _ in ran]

    assert printed(1, 2, 3) == ["1 1 False", "2 1 False", "3 1 False"]
    assert printed(1) == ["1 None False"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_first_lesson_that_fails_ends_the_run():
    with pytest.raises(CellExecutionError, match="1 / 0"):
        list(build.run_all(asking("1 / 0", "x = 1")))


# ------------------------------------------------------------------------ readable


class Images(HTMLParser):
    """Collects the alt texts of the pictures in a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.alts = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.alts.append(dict(attrs).get("alt"))


@LESSONS
def test_code_cells_are_short(lesson):
    cells = code_cells(lesson)
    assert max(len(cell.source.splitlines()) for cell in cells) <= CELL_LINES
    assert statistics.median(len(shown_lines(cell)) for cell in cells) <= MEDIAN_LINES


@LESSONS
def test_every_picture_says_in_words_what_it_shows(lesson):
    alts = []
    for output in outputs(lesson):
        data, metadata = output.get("data", {}), output.get("metadata", {})
        alts += [metadata.get(kind, {}).get("alt") for kind in IMAGES if kind in data]
        alts += Images(data.get("text/html", "")).alts
    for cell in stored(lesson).cells:
        if cell.cell_type == "markdown":
            alts += re.findall(r"!\[(.*?)\]\(", cell.source) + Images(cell.source).alts
    assert alts, "a lesson without a picture"
    assert all(alt and alt.strip() for alt in alts), alts


# ------------------------------------------------------------------------ tagged


def is_known(tag):
    """Whether a tag belongs to the closed list: rows, errata, traps, twins and kinds of cells."""
    twin = re.fullmatch(r"twin:didiff(\.\w+)+", tag)
    return tag in index.home() or tag in KINDS or twin is not None


@LESSONS
def test_every_tag_is_a_known_one(lesson):
    found = {tag for cell in stored(lesson).cells for tag in tags(cell)}
    assert not {tag for tag in found if not is_known(tag)}
