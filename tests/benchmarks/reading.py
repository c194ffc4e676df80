"""How long a lesson is for whoever reads it, counted in the notebook that its source builds."""

import re
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode

from lessons.source import build, index
from tests.benchmarks import Row, at_most, benchmark

LIMITS = {"cells": 50, "code cells": 25, "words": 2000, "minutes": 60}
WORDS, LINES = 150, 10  # read in a minute
SLIDER, EXERCISE = 2, 3  # minutes for each


@benchmark
def reading() -> Iterator[Row]:
    """The size of each lesson; what it leaves out for deeper/ may be long."""
    for source in build.sources():
        if not build.is_deeper(source):
            for what, size in sizes(source).items():
                yield at_most(f"reading.{build.name(source)}", size, LIMITS[what], what)


def sizes(source: Path) -> dict[str, float]:
    """Cells, code cells, words and minutes of a lesson."""
    cells = index.built(source).cells
    code = [cell for cell in cells if cell.cell_type == "code"]
    words = sum(len(words_of(cell)) for cell in cells if cell.cell_type == "markdown")
    sliders = sum(index.SLIDER in cell.source for cell in code)
    exercises = sum("exercise" in cell.metadata.get("tags", []) for cell in cells)
    lines = sum(len(shown_lines(cell)) for cell in code)
    minutes = words / WORDS + lines / LINES + SLIDER * sliders + EXERCISE * exercises
    return {"cells": len(cells), "code cells": len(code), "words": words, "minutes": minutes}


def words_of(cell: NotebookNode) -> list[str]:
    """The words of a text; not its displayed equations, the tags of HTML, the ends of links."""
    text = re.sub(r"\$\$.*?\$\$|<[^>]*>|\]\([^)]*\)", " ", cell.source, flags=re.DOTALL)
    return re.findall(r"\S*\w\S*", text)


def shown_lines(cell: NotebookNode) -> list[str]:
    """The lines of code that a reader sees: none of a folded cell."""
    folded = cell.metadata.get("jupyter", {}).get("source_hidden")
    return [] if folded else list(filter(str.strip, cell.source.splitlines()))
