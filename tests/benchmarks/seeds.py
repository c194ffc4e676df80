"""Do the lessons' checks hold for other random numbers than those that are stored?

Every seed that a lesson sets is moved, in its setup cell and wherever it makes a generator of its
own, and all its code is run again. Only what no check looks at is left out: nothing is displayed,
and a slider is drawn where it stands, not at every stop.
"""

import ast
import contextlib
import io
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch

from didiff.notebook import plots, widgets
from lessons.source import build, index
from tests.benchmarks import Row, at_most, benchmark

SEEDS = range(1, 21)
RUNS = 5  # by one process
APART = 1000  # more than any seed in a lesson, so that no two runs share one


class Failure(NamedTuple):
    """A statement that did not hold. cell: the number beside it in the notebook."""

    lesson: str
    seed: int
    cell: int
    error: str


@benchmark
def seeds() -> Iterator[Row]:
    """For each lesson how many checks fail in 20 runs, and in how many runs each cell does."""
    # a process is renewed after a few runs: what lessons leave behind would fill the memory
    # (the executor of concurrent.futures can do so too, but halts there: CPython's issue 115634)
    with get_context("spawn").Pool(os.cpu_count(), quiet, maxtasksperchild=RUNS) as pool:
        for lesson in map(build.name, build.sources()):
            runs = pool.starmap(failures_of, product([lesson], SEEDS), chunksize=1)
            found = list(chain(*runs))
            for failure in found:
                print(failure, file=sys.stderr, flush=True)
            yield at_most(f"seeds_{index.called(lesson)}", len(found), 0, "failures")
            failing = {(failure.cell, failure.seed) for failure in found}
            for cell, count in sorted(Counter(cell for cell, _ in failing).items()):
                yield Row(f"seeds_{index.called(lesson)}.cell_{cell}", count, f"of {len(SEEDS)}")


def quiet() -> None:
    """Prepares a process of its own: one thread, in the lessons' folder, and nothing is shown."""
    torch.set_num_threads(1)
    os.chdir(build.LESSONS)
    plt.switch_backend("agg")
    mute: dict[tuple[Any, str], Any] = {
        (plots, "show"): lambda picture, **words: plt.close("all"),
        (plots, "table"): lambda rows, **words: None,
        (widgets.Explorer, "show"): lambda explorer, **words: explorer.wait(),
        (torch, "set_num_threads"): lambda n: None,
    }
    for (owner, name), silent in mute.items():
        setattr(owner, name, silent)


def failures_of(lesson: str, seed: int) -> list[Failure]:
    """Runs a lesson with its seeds moved; each statement of it, whatever became of the others."""
    (source,) = build.sources(lesson)
    names: dict[str, Any] = {"__name__": "__main__"}
    found = []
    for number, cell in enumerate(code_cells(source), start=1):
        for statement in ast.parse(moved(cell, seed)).body:
            program = compile(ast.Module([statement], []), f"{lesson} [{number}]", "exec")
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(program, names)
            except Exception as error:
                text = f"{type(error).__name__}: {str(error) or ast.unparse(statement)}"
                found.append(Failure(lesson, seed, number, text[:200]))
    plt.close("all")
    return found


def code_cells(source: Path) -> list[str]:
    """The code cells of a lesson as in its notebook; the first, which installs, is empty."""
    cells = [cell.source for cell in build.build(source).cells if cell.cell_type == "code"]
    return ["", *cells[1:]]


def moved(code: str, seed: int) -> str:
    """The same code with other random numbers."""
    return re.sub(r"\bmanual_seed\(", f"manual_seed({seed * APART} + ", code)
