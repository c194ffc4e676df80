"""Laws of the lessons: built from their sources, run, readable without a kernel, complete."""

import re
import statistics
from html.parser import HTMLParser

import nbformat
import pytest

from lessons import build

# The rows of the lectures that each lesson holds as executed cells, tagged with the row.
ROWS = {
    "03_forward_process": """
        DS-27 DS-28 DS-29 DS-30 DS-31 DS-39 DS-40 DS-41 DS-42 DS-43
        L6-36 L6-37 L6-38 L6-39 L6-40 L19-50""",
    "06_score_and_noise": """
        DS-25 L6-35 L6-41 L6-42 L6-43 L6-44 L6-45 L6-46 L6-47 L6-48 L6-49 L6-50 L6-51 L6-52""",
    "07_samplers": """
        DS-53 DS-54 DS-59 L19-26 L19-27 L19-52
        L22-31 L22-32 L22-34 L22-35 L22-36 L22-37 L22-46 L22-47""",
    "11_classifier_free_guidance": """
        L6-62 L6-63 L6-64 L6-65 L6-66 L6-67 L6-68 L6-69 L6-70 L6-71 L6-72
        L19-12 L19-13 L19-14 L19-15 L19-16 L19-17 DS-65 DS-66
        L22-11 L22-12 L22-13 L22-14 L22-15 L22-16 L22-17 L22-18 L22-19 L22-20""",
}
# The rows of each deck, the errata and the traps are numbered 1 to this.
NUMBERED = {"L6": 75, "L19": 53, "DS": 80, "L22": 55, "E": 75, "T": 34}
KINDS = {"setup", "formula", "check", "play", "exercise", "solution"}

CELL_LINES = 25
MEDIAN_LINES = 7
IMAGES = ("image/png", "image/jpeg")

LESSONS = pytest.mark.parametrize("lesson", ROWS)


def stored(lesson):
    return nbformat.read(build.LESSONS / f"{lesson}.ipynb", as_version=4)


def code_cells(lesson):
    return [cell for cell in stored(lesson).cells if cell.cell_type == "code"]


def outputs(lesson):
    return [output for cell in code_cells(lesson) for output in cell.outputs]


def tags(cell):
    return cell.metadata.get("tags", [])


def test_each_source_is_listed_here_and_each_notebook_has_a_source():
    written = [source.stem for source in build.sources()]
    assert written == list(ROWS)
    assert sorted(path.stem for path in build.LESSONS.glob("*.ipynb")) == written


# ------------------------------------------------------------------------ built and run


@LESSONS
def test_the_stored_notebook_is_the_one_its_source_builds(lesson):
    (source,) = build.sources(lesson)
    built, kept = build.build(source), stored(lesson)
    for cell in kept.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    assert kept == built, f"say: make lessons ONLY={lesson[:2]}"


@LESSONS
def test_every_cell_was_run_once_in_order_and_complained_of_nothing(lesson):
    counts = [cell.execution_count for cell in code_cells(lesson)]
    assert counts == list(range(1, len(counts) + 1))
    assert not [output for output in outputs(lesson) if output.output_type == "error"]
    assert not [output.text for output in outputs(lesson) if output.get("name") == "stderr"]


@LESSONS
def test_nothing_is_stored_that_dies_with_the_kernel(lesson):
    assert "widgets" not in stored(lesson).metadata
    assert not [output for output in outputs(lesson) if build.LIVE_WIDGET in output.get("data", {})]


@LESSONS
def test_the_first_code_cell_installs_the_course_where_it_is_missing(lesson):
    assert code_cells(lesson)[0].source == build.install_cell().source


def test_building_twice_gives_the_same_bytes(tmp_path):
    for source in build.sources():
        once, twice = (nbformat.writes(build.build(source)) for _ in range(2))
        assert once == twice


def test_an_inserted_cell_changes_no_other_cells_id():
    def ids(*texts):
        cells = [nbformat.v4.new_code_cell(text) for text in texts]
        build.name_cells(cells)
        return [cell.id for cell in cells]

    assert ids("new", "x = 1", "y = 2")[1:] == ids("x = 1", "y = 2")
    assert len(set(ids("x = 1", "x = 1", "x = 1"))) == 3


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
    lengths = [len(list(filter(str.strip, c.source.splitlines()))) for c in code_cells(lesson)]
    assert max(lengths) <= CELL_LINES
    assert statistics.median(lengths) <= MEDIAN_LINES


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


# ------------------------------------------------------------------------ complete


def is_known(tag):
    """Whether a tag belongs to the closed list: rows, errata, traps, twins and kinds of cells."""
    if match := re.fullmatch(r"(L6|L19|DS|L22|E|T)-(\d\d)", tag):
        return 1 <= int(match[2]) <= NUMBERED[match[1]]
    return tag in KINDS or re.fullmatch(r"twin:didiff(\.\w+)+", tag) is not None


@LESSONS
def test_every_row_of_the_lectures_is_a_tagged_cell(lesson):
    found = {tag for cell in stored(lesson).cells for tag in tags(cell)}
    assert not set(ROWS[lesson].split()) - found
    assert not {tag for tag in found if not is_known(tag)}
