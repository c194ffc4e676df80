"""Laws of the repository: floors, sizes, and the files that describe the environment in step."""

import ast
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

FLOORS = [
    {"process", "files", "openmp"},
    {"schedules", "mixtures", "sde", "networks"},
    {"denoiser", "classifier", "guidance", "samplers"},
    {"training", "data", "download", "metrics", "weights", "pictures"},
    {"widgets", "playground", "plots", "checks", "museum", "recipes", "cli", "__main__"},
]
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}
# Modules of one floor leave one another alone; these do not, and each pair has its reason.
NEIGHBOURS = {
    ("sde", "schedules"),  # a schedule is also an SDE
    ("data", "download"),  # a data set that is missing is fetched
    ("classifier", "denoiser"),  # both show a network its input in the same way
    ("metrics", "data"),  # the judge of digits learns from digits
    ("metrics", "weights"),  # and that of MNIST is shipped
    ("playground", "widgets"),  # it is a use of them
    ("museum", "plots"),  # its exhibits hang in figures and a table
    ("cli", "recipes"),  # `train digits` follows the recipe of that name
    ("__main__", "cli"),  # `python -m didiff` is the command line
}
LOWER_FLOORS_NEED = {"torch"}

MODULE_LINES = 350
FUNCTION_LINES = 25
LONGER = {"fit": 35}  # the loop of the lessons with all that a long run needs, told in one go
PARAMETERS = 6
LESSONS_BYTES = 10_000_000

MODULES = sorted(PACKAGE.rglob("*.py"))


def unit(path: Path) -> str:
    """The name by which a file of the package stands on its floor: networks/mlp.py is networks."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


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
            names |= {base} if base != "didiff" else {f"didiff.{a.name}" for a in node.names}
    return names


def imported_units(path: Path) -> set[str]:
    """The parts of didiff that a file imports; a name of `didiff` itself is a part too."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("didiff.")}


def functions(path: Path) -> list[ast.FunctionDef]:
    """The functions and methods of a file; those inside a function belong to it."""
    body = ast.parse(path.read_text()).body
    body += [node for owner in body if isinstance(owner, ast.ClassDef) for node in owner.body]
    return [node for node in body if isinstance(node, ast.FunctionDef)]


def code_lines(source: str, node: ast.FunctionDef) -> int:
    """Lines of a function that hold code: no blank ones, comments or docstrings."""
    docstrings = [
        line
        for inner in ast.walk(node)
        if isinstance(inner, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(inner)
        for line in range(inner.body[0].lineno, inner.body[0].end_lineno + 1)
    ]
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in silent
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(lines & set(range(node.lineno, node.end_lineno + 1)) - set(docstrings))


def forwards(node: ast.FunctionDef) -> bool:
    """Whether a function hands on keywords that it does not name."""
    taken = node.args.kwarg
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    handed = [word.value for call in calls for word in call.keywords if word.arg is None]
    return taken is not None and any(ast.unparse(value) == taken.arg for value in handed)


# ------------------------------------------------------------------------ floors


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    here = unit(path)
    if here == "__init__":
        assert all(FLOOR[name] <= 2 for name in imported_units(path)), "didiff shows floors 0 to 2"
        return
    assert here in FLOOR, f"{here} has no floor: give it one in {Path(__file__).name}"
    for name in imported_units(path) - {here}:
        assert name in FLOOR, f"{here} imports {name} from didiff: import it from its module"
        assert FLOOR[name] < FLOOR[here] or (here, name) in NEIGHBOURS, (
            f"{here} (floor {FLOOR[here]}) imports {name} (floor {FLOOR[name]})"
        )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_floors_0_to_2_need_torch_alone(path):
    if FLOOR.get(unit(path), 0) <= 2:
        roots = {name.split(".")[0] for name in imports(path)} - {"didiff"}
        assert roots - sys.stdlib_module_names <= LOWER_FLOORS_NEED


def test_importing_didiff_draws_and_learns_nothing():
    heavy = "matplotlib", "ipywidgets", "IPython", "sklearn", "PIL", "safetensors", "pooch"
    program = (
        f"import sys, didiff, didiff.data; print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


# ------------------------------------------------------------------------ sizes


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_can_be_read_in_one_sitting(path):
    source = path.read_text()
    assert len(source.splitlines()) <= MODULE_LINES
    for node in functions(path):
        lines = code_lines(source, node)
        most = LONGER.get(node.name, FUNCTION_LINES)
        assert lines <= most, f"{node.name} has {lines} lines of code, more than {most}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_function_takes_few_parameters_and_forwards_none_unseen(path):
    for node in functions(path):
        a = node.args
        names = [arg.arg for arg in a.posonlyargs + a.args + a.kwonlyargs]
        few = len(set(names) - {"self", "cls"}) <= PARAMETERS
        assert few or node.name in {"fit", "__init__"}, f"{node.name} takes {names}"
        assert not forwards(node), f"{node.name} forwards **{a.kwarg.arg}"


def test_the_lessons_stay_small():
    files = [path for path in (ROOT / "lessons").rglob("*") if path.is_file()]
    stored = [path for path in files if ".ipynb_checkpoints" not in path.parts]
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
