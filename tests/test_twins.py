"""Law: an algorithm written out in a lesson agrees with the library's function of that name.

Such a cell is tagged `twin:didiff.samplers.ddim`. It may use what the lesson imports and the twins
before it, and nothing else of the notebook.
"""

import ast
import types
from collections.abc import Callable

import pytest

from didiff.notebook import checks
from lessons.source import build, index

PREFIX = "twin:"


def python(cell) -> ast.Module:
    """The syntax tree of a cell without IPython's own lines."""
    lines = ["" if line.startswith(("%", "!")) else line for line in cell.source.splitlines()]
    return ast.parse("\n".join(lines))


def twins(source) -> dict[str, Callable]:
    """The library's dotted name -> the lesson's own function."""
    lesson, found = types.ModuleType(build.name(source)), {}
    _install, *cells = (cell for cell in index.built(source).cells if cell.cell_type == "code")
    for cell in cells:
        tags = cell.metadata.get("tags", [])
        names = [tag.removeprefix(PREFIX) for tag in tags if tag.startswith(PREFIX)]
        tree = python(cell)
        if not names:
            tree.body = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        exec(compile(tree, source.name, "exec"), lesson.__dict__)
        found |= {name: lesson.__dict__[name.rsplit(".", 1)[1]] for name in names}
    return found


TWINS = [
    (build.name(source), *twin) for source in build.sources() for twin in twins(source).items()
]


@pytest.mark.parametrize(
    ("name", "function"), [twin[1:] for twin in TWINS], ids=[f"{t[0]}-{t[1]}" for t in TWINS]
)
def test_a_lessons_own_function_agrees_with_the_library(name, function):
    checks.twin(name, function)
