"""Laws of the index: it knows every row of the lectures, misses no cell, and is the one stored."""

import re

import nbformat
import pytest

from lessons.source import build, index

# The rows of each deck, the errata and the traps are numbered 1 to this.
NUMBERED = {"L6": 75, "L19": 53, "DS": 80, "L22": 55, "E": 75, "T": 34}
IDS = {f"{kind}-{n:02}" for kind, last in NUMBERED.items() for n in range(1, last + 1)}
LESSONS = [source.stem for source in build.sources() if not build.is_deeper(source)]
WRITTEN = pytest.mark.parametrize("lesson", LESSONS)


@pytest.fixture(scope="module")
def page():
    return index.page()


def lines_about(page, tag):
    return [line for line in page.splitlines() if line.startswith(f"| {tag} |")]


# ------------------------------------------------------------------------ the course as data


def test_every_row_erratum_and_trap_belongs_to_exactly_one_lesson():
    owed = [tag for lesson in index.LESSONS for tag in index.owed(lesson)]
    assert len(owed) == len(set(owed))
    assert set(owed) == IDS


def test_the_lessons_are_numbered_from_one_and_each_asks_a_question():
    assert [lesson[:2] for lesson in index.LESSONS] == [f"{n:02}" for n in range(1, 20)]
    assert all(entry["question"].endswith("?") for entry in index.LESSONS.values())


def test_an_erratum_is_owed_by_a_lesson_that_teaches_one_of_its_slides():
    home = index.home()
    for tag in (tag for tag in home if tag.startswith("E-")):
        slides = index.LESSONS[home[tag]][tag]["on"].split()
        assert set(slides) <= IDS
        assert home[tag] in {home[slide] for slide in slides}, tag


def test_what_is_also_met_in_a_lesson_is_owed_by_another():
    for lesson in index.LESSONS:
        assert index.also(lesson) <= IDS - set(index.owed(lesson))


# ------------------------------------------------------------------------ the lessons


@WRITTEN
def test_a_lesson_has_a_cell_for_all_that_it_owes_and_no_tag_that_nobody_expects(lesson):
    both = build.sources(lesson[:2])  # the lesson, and what it leaves out
    found = {tag for source in both for tag, _ in index.places(source) if tag is not None}
    expected = set(index.owed(lesson)) | index.also(lesson)
    assert not expected - found, "no cell has these tags"
    assert not found - expected, f'name them under "also" of {lesson} in course.toml'


@WRITTEN
def test_every_row_of_a_lecture_is_run_or_told_where_its_lesson_says(lesson, page):
    for tag in {*index.owed(lesson), *index.also(lesson)}:
        (line,) = lines_about(page, tag)
        assert re.search(rf"\]\((deeper/)?{lesson}\.ipynb#cell-id=", line)


@WRITTEN
def test_the_title_in_the_index_is_the_one_on_the_lesson(lesson):
    for source in build.sources(lesson[:2]):
        first = index.built(source).cells[0].source
        headings = re.search(r"^# (\d\d)[ ·]+(.+?)(, deeper)?$", first, re.MULTILINE)
        assert headings.groups()[:2] == (lesson[:2], index.LESSONS[lesson]["title"])
        assert bool(headings[3]) == build.is_deeper(source)


@WRITTEN
def test_a_lesson_that_is_there_has_a_measured_time(lesson):
    assert index.LESSONS[lesson].get("seconds", 0) > 0, "see the head of course.toml"


# ------------------------------------------------------------------------ the page


def test_the_stored_index_is_the_one_that_the_lessons_build(page):
    assert index.PAGE.read_text() == page, "say: python -m lessons.source.index"


def test_every_row_stands_in_the_index_once_with_a_cell_or_the_lesson_to_come(page):
    for tag, lesson in index.home().items():
        (line,) = lines_about(page, tag)
        written = (build.LESSONS / f"{lesson}.ipynb").exists()
        assert f"{lesson}.ipynb#" in line if written else f"to come: lesson {lesson[:2]}" in line


def test_every_link_leads_to_a_notebook_and_to_a_cell_of_it(page):
    cells = {
        build.name(source): {cell.id for cell in index.built(source).cells}
        for source in build.sources()
    }
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", page)
    assert pictures
    assert all((build.LESSONS / picture).is_file() for picture in pictures)
    links = re.findall(r"\]\(([\w/]+)\.ipynb(?:#cell-id=([\w-]+))?\)", page)
    assert len(links) == page.count("](") - len(pictures)
    assert {lesson for lesson, _ in links} == set(cells)  # what is deeper is linked too
    for lesson, cell in links:
        assert not cell or cell in cells[lesson]


def test_every_slider_is_one_click_away(page):
    shown = {
        (build.name(source), cell.id)
        for source in build.sources()
        for cell in index.built(source).cells
        if cell.cell_type == "code" and re.search(r"\.show\([^)]*still_over=", cell.source, re.S)
    }
    rows = [line for line in page.splitlines() if re.match(r"\| \[\d\d .*\d s \|$", line)]
    assert len(rows) == len(LESSONS)
    assert set(re.findall(r"\(([\w/]+)\.ipynb#cell-id=([\w-]+)\)", "".join(rows))) == shown


def test_the_page_begins_with_a_picture_and_says_where_to_begin_before_any_table(page):
    head = page[: page.index("\n| ")]
    places = [head.index(word) for word in ("![", "To learn", "To teach", "Trust Notebook")]
    assert places == sorted(places)
    assert len(re.sub(r"\(.*?\)|<!--.*?-->", "", head, flags=re.S).split()) < 200


def test_the_number_of_a_cell_is_the_one_beside_it_when_it_has_run():
    for source in build.sources():
        stored = nbformat.read(build.notebook_of(source), as_version=4)
        run = {cell.id: cell.get("execution_count", 0) for cell in stored.cells}
        assert run == {place.cell: place.number for _, place in index.places(source)}


def test_random_ids_that_happen_to_meet_do_not_stop_a_build(monkeypatch):
    source, *_ = build.sources()
    wanted = [cell.id for cell in build.build(source).cells]
    monkeypatch.setattr(nbformat.v4.nbbase, "random_cell_id", lambda: "same")
    assert [cell.id for cell in build.build(source).cells] == wanted


def test_neighbours_are_written_as_a_span_and_words_as_words():
    def place(number):
        return index.Place("03_forward_process", "1. A number", "id", number)

    assert index.numbers([place(n) for n in (3, 4, 5, 0, 9)]) == "[3]–[5], [9]"
    assert index.numbers([place(0)]) == "*text*"


def test_a_text_that_speaks_of_a_missing_section_is_refused():
    with pytest.raises(ValueError, match="section 99"):
        index.Index().prose("see [[03.99]]")
