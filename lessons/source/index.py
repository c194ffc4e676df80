"""lessons/README.md, on which `make lab` opens: where to begin, all sliders; then an index, from a
slide to the cell that runs it, from an erratum to what shows it.

    python -m lessons.source.index

It is built from course.toml, which says what each lesson owes, and from the tags of the cells,
which say where it is paid. Nothing is run for it, so the stored page can be checked at once. A link
leads to the cell itself in JupyterLab, and to its notebook wherever that is not understood.
"""

import functools
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from pathlib import Path
from typing import Any, NamedTuple

from lessons.source import build

SLIDER = "still_over="  # what a cell that shows an explorer says, and no other
OPENING = "the beginning"  # of a lesson, before its first section
DEEPER = "deeper: derivations and checks"
PAGE = build.LESSONS / "README.md"
COURSE = tomllib.loads((build.SOURCES / "course.toml").read_text())
LESSONS: dict[str, dict[str, Any]] = {
    name: entry for name, entry in COURSE.items() if re.match(r"\d\d_", name)
}
ID = re.compile(r"(L6|L19|DS|L22|E|T)-\d\d")

NOTE = """\
<!-- In JupyterLab: a right click here, then "Show Markdown Preview". Built from course.toml and the
     cells of the lessons by: python -m lessons.source.index -->"""
HOW_TO_READ = """\
A number in brackets is the one beside the cell when its lesson has run from the top; *text* is a
cell of words. In JupyterLab a link opens the notebook at the first cell it speaks of."""


class Place(NamedTuple):
    """A cell. number: of a code cell in the order of running, 0 for words."""

    lesson: str  # or deeper/lesson
    section: str
    cell: str
    number: int
    slider: bool = False


# -- what is owed -----------------------------------------------------------------------------


def owed(lesson: str) -> dict[str, Any]:
    """The rows, errata and traps of a lesson: {id: what it is about}."""
    return {tag: about for tag, about in LESSONS[lesson].items() if ID.fullmatch(tag)}


def also(lesson: str) -> set[str]:
    """Ids that another lesson owes and that are met in this one too."""
    return set(LESSONS[lesson].get("also", ()))


def home() -> dict[str, str]:
    """Every id -> the lesson that owes it."""
    return {tag: lesson for lesson in LESSONS for tag in owed(lesson)}


# -- where it is ------------------------------------------------------------------------------


built = functools.cache(build.build)


@functools.cache
def places(source: Path) -> tuple[tuple[str | None, Place], ...]:
    """Each cell of a lesson once without a tag, then once for every id it is tagged with."""
    return tuple(_places(source))


def _places(source: Path) -> Iterator[tuple[str | None, Place]]:
    section, number = "", 0
    for cell in built(source).cells:
        number += cell.cell_type == "code"
        if cell.cell_type == "markdown":
            section = [section, *re.findall(r"^## (.+)$", cell.source, re.MULTILINE)][-1]
        is_code = cell.cell_type == "code"
        slider = is_code and SLIDER in cell.source
        here = Place(build.name(source), section, cell.id, number * is_code, slider)
        yield None, here
        yield from ((tag, here) for tag in cell.metadata.get("tags", []) if ID.fullmatch(tag))


class Index:
    """All places of all lessons that are written, and links to them."""

    def __init__(self) -> None:
        self.tagged: dict[str, list[Place]] = defaultdict(list)
        self.cells: dict[str, list[Place]] = {}
        for source in build.sources():
            found = list(places(source))
            self.cells[build.name(source)] = [place for tag, place in found if tag is None]
            for tag, place in found:
                if tag is not None:
                    self.tagged[tag].append(place)

    def lesson(self, lesson: str) -> str:
        """A link to a lesson, or only its name while it is not written."""
        name = f"{lesson[:2]} {LESSONS[lesson]['title']}"
        return f"[{name}]({lesson}.ipynb)" if lesson in self.cells else f"*{name}*"

    def deeper(self, lesson: str) -> str:
        """A link to what the lesson leaves out, or nothing where it is not split."""
        return f"<br>[{DEEPER}](deeper/{lesson}.ipynb)" if f"deeper/{lesson}" in self.cells else ""

    def sliders(self, lesson: str) -> str:
        """Links to the sliders of a lesson, named by their sections."""
        cells = chain(self.cells.get(lesson, ()), self.cells.get(f"deeper/{lesson}", ()))
        lines = []
        for section, group in groupby(filter(is_slider, cells), lambda place: place.section):
            first, *others = (f"{place.lesson}.ipynb#cell-id={place.cell}" for place in group)
            again = (f" · [{k}]({cell})" for k, cell in enumerate(others, start=2))
            name = section.partition(". ")[2] or OPENING.capitalize()
            lines.append(f"[{name}]({first}){''.join(again)}")
        return "<br>".join(lines)

    def section(self, lesson: str, number: str) -> str:
        """A link to the section "number. heading". Raises ValueError where there is none."""
        if lesson not in self.cells:
            return f"{self.lesson(lesson)}, section {number}"
        for place in self.cells[lesson]:
            if place.section.startswith(f"{number}. "):
                return link([place])
        raise ValueError(f"course.toml speaks of section {number} of {lesson}, which has none")

    def prose(self, text: str) -> str:
        """A text with [[03]] and [[03.5]] made links, its lines as long as they are."""

        def linked(match: re.Match[str]) -> str:
            (lesson,) = (name for name in LESSONS if name[:2] == match[1])
            return self.section(lesson, match[2]) if match[2] else self.lesson(lesson)

        return re.sub(r"\[\[(\d\d)(?:\.(\d+))?\]\]", linked, text.strip())

    def where(self, tag: str, lesson: str) -> str:
        """Where an id is met, section by section: first in the lesson that owes it."""
        homes = [lesson, f"deeper/{lesson}"]
        met = sorted(self.tagged[tag], key=lambda place: place.lesson not in homes)
        sections = [list(group) for _, group in groupby(met, lambda place: place[:2])]
        lines = [f"{link(group)} {numbers(group)}" for group in sections]
        if lesson not in self.cells:
            lines.append(f"to come: lesson {lesson[:2]}")
        return "<br>".join(lines)


def is_slider(place: Place) -> bool:
    return place.slider


def called(lesson: str) -> str:
    """06, or 06 deeper."""
    folder, _, name = lesson.rpartition("/")
    return f"{name[:2]} {folder}".strip()


def link(group: list[Place]) -> str:
    """A link to the first of some places in one section, named by lesson and heading."""
    first = group[0]
    name = f"{called(first.lesson)} · {first.section or OPENING}"
    return f"[{escaped(name)}]({first.lesson}.ipynb#cell-id={first.cell})"


def numbers(group: list[Place]) -> str:
    """The code cells among some places, as [3]–[5], [9]; *text* if all are words."""
    code = [place.number for place in group if place.number]
    runs: list[list[int]] = []
    for number in code:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    spans = [f"[{run[0]}]–[{run[-1]}]" if run[1:] else f"[{run[0]}]" for run in runs]
    return ", ".join(spans) or "*text*"


def escaped(text: str) -> str:
    """Without what would end a cell of a table."""
    return text.replace("|", "\\|")


# -- the page ---------------------------------------------------------------------------------


def page() -> str:
    """The whole of lessons/README.md."""
    index, start = Index(), COURSE["start"]
    parts = [
        "# Diffusion models, to be touched",
        NOTE,
        f"![{start['alt']}]({start['picture']})",
        *(index.prose(start[part]) for part in ("what", "learn", "teach")),
        "## The lessons and their sliders",
        index.prose(start["trust"]),
        *overview(index),
        index.prose(COURSE["map"]),
        "## Three ways through",
        *(f"**{name}.** {index.prose(text)}" for name, text in COURSE["paths"].items()),
        "## From slide to cell",
        HOW_TO_READ,
        *(part for deck in COURSE["decks"].items() for part in slides(index, *deck)),
        *errata(index),
        *traps(index),
    ]
    return "\n\n".join(parts) + "\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def overview(index: Index) -> list[str]:
    """The lessons that are written, with their questions, sliders and times."""
    written = {lesson: entry for lesson, entry in LESSONS.items() if lesson in index.cells}
    rows = [
        (
            f"{index.lesson(lesson)}<br>{entry['question']}{index.deeper(lesson)}",
            index.sliders(lesson),
            f"{entry['seconds']} s",
        )
        for lesson, entry in written.items()
    ]
    total = sum(entry["seconds"] for entry in written.values())
    about = f"Times are of computing on two cores, {total} s in all; no GPU, no network."
    return [table(("lesson", "its sliders", "time"), rows), about]


def numbered(kind: str) -> list[tuple[str, str, Any]]:
    """Id, lesson and content of everything whose id starts with `kind`, in order of its number."""
    found = [(tag, lesson) for tag, lesson in home().items() if tag.split("-")[0] == kind]
    return [(tag, lesson, LESSONS[lesson][tag]) for tag, lesson in sorted(found)]


def slides(index: Index, deck: str, name: str) -> list[str]:
    rows = [(tag, escaped(words), index.where(tag, at)) for tag, at, words in numbered(deck)]
    return [f"### {deck} · {name}", table(("slide", "about", "lesson and cell"), rows)]


def errata(index: Index) -> list[str]:
    rows = [
        (tag, slip["on"].replace(" ", ", "), escaped(slip["words"]), index.where(tag, lesson))
        for tag, lesson, slip in numbered("E")
    ]
    words = "Where a slide slips, a cell asks, measures and puts it right."
    head = ("no.", "on slide", "what is right", "shown in")
    return ["## Errata", words, table(head, rows)]


def traps(index: Index) -> list[str]:
    rows = [(tag, escaped(words), index.where(tag, lesson)) for tag, lesson, words in numbered("T")]
    words = "Mistakes that everybody makes once, each with the check that sees it."
    return ["## Traps", words, table(("no.", "mistake", "met in"), rows)]


def main() -> None:
    PAGE.write_text(page())
    print(f"{PAGE.name} of {sum(map(len, map(owed, LESSONS)))} rows, errata and traps")


if __name__ == "__main__":
    main()
