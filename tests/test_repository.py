"""Laws of the repository: rooms, sizes, and the files that describe the environment in step."""

import ast
import functools
import graphlib
import io
import itertools
import re
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "didiff"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

MATHEMATICS = "the top of didiff"
STANDS_ON = {
    MATHEMATICS: set(),
    "networks": set(),
    "data": set(),
    "training": {MATHEMATICS, "networks", "data"},
    "notebook": {MATHEMATICS, "networks", "data", "training"},
}
"""What each room imports from; whatever it stands on does not know of it."""

SHOWN = {"__init__": {"networks"}, "__main__": {"training"}}
"""What the two doors of the package hand on beside the mathematics."""

NEEDS_TORCH_ALONE = {MATHEMATICS, "networks"}

MODULE_LINES = 350
FUNCTION_LINES = 25
LONGER = {"fit": 35}  # the loop of the lessons with all that a long run needs, told in one go
PARAMETERS = 6
LESSONS_BYTES = 12_000_000

MODULES = sorted(PACKAGE.rglob("*.py"))
MODULE_NAMES = [
    ".".join(("didiff", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in MODULES
]


def room(name: str) -> str:
    """The room of a dotted name: didiff.data.sets is in data, didiff.process at the top."""
    part = name.split(".")[1] if "." in name else ""
    return part if part in STANDS_ON else MATHEMATICS


def imports(path: Path) -> set[str]:
    """The dotted names that a file of the package imports, anywhere in it."""
    package = ("didiff", *path.relative_to(PACKAGE).parent.parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            modules = {f"{base}.{alias.name}" for alias in node.names} & set(MODULE_NAMES)
            names |= modules or {base}
    return names


def own_imports(path: Path) -> set[str]:
    """The modules of didiff that a file imports."""
    return {name for name in imports(path) if name.split(".")[0] == "didiff"}


def functions(path: Path) -> list[ast.FunctionDef]:
    """The functions and methods of a file; those inside a function belong to it."""
    body = ast.parse(path.read_text()).body
    body += [node for owner in body if isinstance(owner, ast.ClassDef) for node in owner.body]
    return [node for node in body if isinstance(node, ast.FunctionDef)]


@functools.cache
def lines_of_code(source: str) -> set[int]:
    """The numbers of the lines that hold code: no blank ones or comments."""
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    return {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in silent
        for line in range(token.start[0], token.end[0] + 1)
    }


def code_lines(source: str, node: ast.FunctionDef) -> int:
    """Lines of a function that hold code: no blank ones, comments or docstrings."""
    docstrings = [
        line
        for inner in ast.walk(node)
        if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner)
        for line in range(inner.body[0].lineno, inner.body[0].end_lineno + 1)
    ]
    here = set(range(node.lineno, node.end_lineno + 1))
    return len(lines_of_code(source) & here - set(docstrings))


def forwards(node: ast.FunctionDef) -> bool:
    """Whether a function hands on keywords that it does not name."""
    taken = node.args.kwarg
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    handed = [word.value for call in calls for word in call.keywords if word.arg is None]
    return taken is not None and any(ast.unparse(value) == taken.arg for value in handed)


# ------------------------------------------------------------------------ rooms


EVERY_MODULE = pytest.mark.parametrize(
    ("path", "name"), list(zip(MODULES, MODULE_NAMES, strict=True)), ids=MODULE_NAMES
)


@EVERY_MODULE
def test_a_room_knows_only_those_it_stands_on(path, name):
    door = SHOWN.get(path.stem, set()) if path.parent == PACKAGE else set()
    allowed = {room(name)} | STANDS_ON[room(name)] | door
    for other in own_imports(path):
        assert other in MODULE_NAMES, f"{name} imports {other}, which is no module"
        assert room(other) in allowed, f"{name} imports {other}"


@EVERY_MODULE
def test_mathematics_and_networks_need_torch_alone(path, name):
    if room(name) in NEEDS_TORCH_ALONE:
        roots = {name.split(".")[0] for name in imports(path)} - {"didiff"}
        assert roots - sys.stdlib_module_names <= {"torch"}


def test_no_module_imports_itself_by_way_of_others():
    edges = {
        name: own_imports(path) - {name} for path, name in zip(MODULES, MODULE_NAMES, strict=True)
    }
    list(graphlib.TopologicalSorter(edges).static_order())  # raises CycleError that names the way


@EVERY_MODULE
def test_the_door_of_a_room_hands_on_and_defines_nothing(path, name):
    if path.stem == "__init__":
        body = ast.parse(path.read_text()).body
        docstring, *imported, shown = body
        assert isinstance(docstring, ast.Expr)
        assert all(isinstance(node, ast.ImportFrom) for node in imported)
        assert isinstance(shown, ast.Assign)
        assert ast.unparse(shown.targets[0]) == "__all__"


def test_importing_didiff_draws_and_learns_nothing():
    heavy = "matplotlib", "ipywidgets", "IPython", "sklearn", "PIL", "safetensors", "pooch"
    program = (
        f"import sys, didiff, didiff.data; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# ------------------------------------------------------------------------ sizes


@pytest.mark.parametrize("path", MODULES, ids=MODULE_NAMES)
def test_a_module_can_be_read_in_one_sitting(path):
    source = path.read_text()
    assert len(source.splitlines()) <= MODULE_LINES
    for node in functions(path):
        lines = code_lines(source, node)
        most = LONGER.get(node.name, FUNCTION_LINES)
        assert lines <= most, f"{node.name} has {lines} lines of code, more than {most}"


@pytest.mark.parametrize("path", MODULES, ids=MODULE_NAMES)
def test_a_function_takes_few_parameters_and_forwards_none_unseen(path):
    for node in functions(path):
        a = node.args
        names = [arg.arg for arg in a.posonlyargs + a.args + a.kwonlyargs]
        few = len(set(names) - {"self", "cls"}) <= PARAMETERS
        assert few or node.name in {"fit", "__init__"}, f"{node.name} takes {names}"
        assert not forwards(node), f"{node.name} forwards **{a.kwarg.arg}"


def test_the_lessons_stay_small():
    files = [path for path in (ROOT / "lessons").rglob("*") if path.is_file()]
    stored = [path for path in files if not {".ipynb_checkpoints", "__pycache__"} & {*path.parts}]
    assert sum(path.stat().st_size for path in stored) <= LESSONS_BYTES


# ------------------------------------------------------------------------ the environment


def requirements() -> list[Requirement]:
    """Everything that pyproject.toml asks for, extras included."""
    lists = PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()
    everything = map(Requirement, itertools.chain.from_iterable(lists))
    return [requirement for requirement in everything if requirement.name != PROJECT["name"]]


def pins() -> dict[str, Version]:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines()]
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name: Version(version) for name, version in pinned}


@pytest.mark.parametrize("requirement", requirements(), ids=lambda requirement: requirement.name)
def test_every_dependency_has_a_floor_and_a_tested_version_in_its_range(requirement):
    assert any(clause.operator == ">=" for clause in requirement.specifier)
    assert requirement.name in pins(), "pin it in constraints.txt"
    assert pins()[requirement.name] in requirement.specifier


def test_the_conda_environment_asks_for_what_pyproject_says():
    lines = [line.strip() for line in (ROOT / "environment.yml").read_text().splitlines()]
    assert f"name: {PROJECT['name']}" in lines
    assert f"- python{PROJECT['requires-python']}" in lines
    assert lines[-3:-1] == ["- pip:", "- --constraint constraints.txt"]
    (extra,) = re.fullmatch(r"- --editable \.\[(\w+)\]", lines[-1]).groups()
    assert extra in PROJECT["optional-dependencies"]


def test_the_makefile_asks_for_the_python_that_pyproject_says():
    major, minor = PROJECT["requires-python"].removeprefix(">=").split(".")
    makefile = (ROOT / "Makefile").read_text()
    assert f"sys.version_info < ({major}, {minor})" in makefile
    assert f"needs Python {major}.{minor} or newer" in makefile
