"""Laws of a lesson that is split: one finishes it in an hour, begins anywhere, lectures on it.

What it leaves out is in deeper/, and may be long.
"""

import builtins
import re

import nbformat
import pytest

from lessons.source import build, index
from tests import slices
from tests.benchmarks import reading

WIDTH = 76  # characters of code that a projector shows at 150 %
MOST_SLIDES = 22  # in fifty minutes
SPLIT = [
    lesson
    for source in build.sources()
    if build.is_deeper(source)
    for lesson in build.sources(source.stem)
]
LESSONS = pytest.mark.parametrize("source", SPLIT, ids=build.name)


def cells_of(source, kind):
    return [cell for cell in index.built(source).cells if cell.cell_type == kind]


def slide_type(cell):
    return cell.metadata.get("slideshow", {}).get("slide_type")


# ------------------------------------------------------------------------ to be finished


@LESSONS
def test_a_lesson_can_be_finished(source):
    sizes = reading.sizes(source)
    assert not {what: size for what, size in sizes.items() if size > reading.LIMITS[what]}


def test_what_is_read_is_counted_without_formulas_folded_code_and_ends_of_links():
    text = nbformat.v4.new_markdown_cell("Two <b>words</b>. $$a + b$$ A [link](https://x.org/a b).")
    assert len(reading.words_of(text)) == 4
    code = nbformat.v4.new_code_cell("x = 1\n\ny = 2")
    assert len(reading.shown_lines(code)) == 2
    code.metadata = build.metadata(["play", "draw"])
    assert reading.shown_lines(code) == []


@LESSONS
def test_a_lesson_opens_with_a_slider_and_ends_with_five_questions_and_folded_answers(source):
    _setup, sections = build.sections(source)
    assert index.SLIDER in "".join(sections[""])
    assert cells_of(source, "markdown")[-1].source.count("<details>") == 5


@LESSONS
def test_its_prose_is_free_of_the_codes_of_slides(source):
    assert not [
        found.group()
        for cell in cells_of(source, "markdown")
        for found in index.ID.finditer(cell.source)
    ]


@LESSONS
def test_a_cell_that_draws_is_folded(source):
    for cell in cells_of(source, "code"):
        if re.search(r"plots\.(show|panels|field)\(|\.show\(", cell.source):
            assert cell.metadata.get("jupyter", {}).get("source_hidden"), cell.source


@LESSONS
def test_a_projector_cuts_no_line_of_code(source):
    _install, *cells = cells_of(source, "code")
    lines = [line for cell in cells for line in cell.source.splitlines()]
    assert not [line for line in lines if len(line) > WIDTH]


# ------------------------------------------------------------------------ to be begun anywhere


def leaks(setup, sections):
    """{section: names that its cells read and that neither it nor the setup has bound before}."""
    given = set(dir(builtins)).union(*map(slices.bound, setup))
    found = {}
    for title, codes in sections.items():
        done, missing = set(given), set()
        for code in codes:
            missing |= slices.read(code) - done
            done |= slices.bound(code)
        found[title] = missing
    return {title: names for title, names in found.items() if names}


@LESSONS
def test_each_section_needs_nothing_but_the_setup(source):
    assert not leaks(*build.sections(source))


def test_a_name_that_leaks_from_one_section_to_the_next_is_noticed():
    setup = ["import math"]
    sections = {"1": ["x = math.pi", "def f():\n    return x"], "2": ["y = f()", "print(y)"]}
    assert leaks(setup, sections) == {"2": {"f"}}
    later = {"1": ["print(x)", "x = 1"]}
    assert leaks(setup, later) == {"1": {"x"}}


# ------------------------------------------------------------------------ to be lectured on


@LESSONS
def test_a_lecture_has_few_slides_each_with_a_place_and_notes_with_a_time(source):
    cells = index.built(source).cells
    types = [slide_type(cell) for cell in cells]
    assert types[0] == "slide"
    assert types.count("slide") + types.count("subslide") <= MOST_SLIDES
    minutes = [
        int(minutes)
        for cell, kind in zip(cells, types, strict=True)
        for minutes in re.findall(r"^\*\*(\d+) min", cell.source * (kind == "notes"), re.MULTILINE)
    ]
    assert len(minutes) == types.count("notes")
    assert 45 <= sum(minutes) <= 50


def test_tags_of_a_source_become_what_jupyter_folds_and_projects():
    made = build.metadata(["check", "L6-35", "draw", "subslide"])
    assert made == {
        "tags": ["check", "L6-35"],
        "jupyter": {"source_hidden": True},
        "slideshow": {"slide_type": "subslide"},
    }
    assert build.metadata([]) == {}
