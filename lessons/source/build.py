"""Lessons are written in lessons/source/NN_slug.py and read in lessons/NN_slug.ipynb.

    python -m lessons.source.build        every lesson: build, run, store; one a core at a time
    python -m lessons.source.build 07 11  these two

A lesson that is split has a second source, deeper/NN_slug.py, with what its main path leaves out:
derivations, checks, slips, the bug museum. Both are built in the same way.

The tags of a cell say which rows of the index it pays and what kind it is; `draw` folds its code,
and `slide`, `subslide`, `fragment`, `skip`, `notes` say what it is in a lecture.

It stands beside the sources and is no part of the library:
whoever installs didiff needs none of it.

The way is one-way, and there is no building without running: what is stored is always the output of
the code above it. A rebuilt notebook equals the stored one cell for cell (`sources`), its cell ids
depend on the cells' content alone, and nothing of the machine, the time or a live widget is kept.
"""

import asyncio
import hashlib
import os
import re
import sys
import time
import tomllib
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Template

import jupytext
import nbclient
import nbformat
from nbformat import NotebookNode
from nbformat.warnings import DuplicateCellId

SOURCES = Path(__file__).parent
LESSONS = SOURCES.parent
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
FOLDED = "draw"  # tag of a code cell that only draws: what one sees is the algorithm
SLIDES = {"slide", "subslide", "fragment", "skip", "notes"}  # tags: what a cell is in a lecture
LIVE_WIDGET = "application/vnd.jupyter.widget-view+json"
TIMEOUT = 300  # seconds for one cell

INSTALL = Template("""\
import importlib.util
import sys
from glob import glob

# where the course is missing, it is installed: from a wheel here or in a mounted drive
WHEEL, ADDRESS = "$wheel", "$address"
PLACES = $above"", *("/content/drive/MyDrive/" + "*/" * deep for deep in range(4))


def missing():  # a mere folder of that name is found too, but has no origin
    importlib.invalidate_caches()
    return getattr(importlib.util.find_spec("didiff"), "origin", None) is None


if sys.version_info < $python:
    raise RuntimeError("didiff needs Python $oldest or newer, this is " + sys.version.split()[0])
if missing():
    wheels = [path for place in PLACES for path in glob(place + "didiff-*.whl")]
    source = next((path for path in wheels if path.endswith(WHEEL)), ADDRESS)
    if source:
        %pip install --quiet "{source}"
    if missing():
        found = f"{source} cannot be installed" if source else f"found {wheels or 'no wheel'}"
        remedy = f"put {WHEEL} here, undamaged, or say `pip install -e .` in the course's folder"
        raise ModuleNotFoundError(f"didiff is missing ({found}): {remedy}")
""")


def sources(*numbers: str) -> list[Path]:
    """The sources, lessons first, or those of these numbers or names ("07", "7", "07_samplers")."""
    paths = [*SOURCES.glob("[0-9][0-9]_*.py"), *SOURCES.glob("deeper/[0-9][0-9]_*.py")]
    found = {name(path): path for path in sorted(paths, key=lambda path: (is_deeper(path), path))}
    wanted = [number.zfill(2) for number in numbers]
    for number in wanted:
        if number not in found and not any(path.stem[:2] == number for path in paths):
            raise ValueError(f"no lesson {number!r} in {SOURCES}: there are {', '.join(found)}")
    return [p for n, p in found.items() if not wanted or n in wanted or p.stem[:2] in wanted]


def name(source: Path) -> str:
    """07_samplers, or deeper/07_samplers."""
    return source.relative_to(SOURCES).with_suffix("").as_posix()


def is_deeper(source: Path) -> bool:
    return source.parent.name == "deeper"


def notebook_of(source: Path) -> Path:
    """Where the notebook of a source is stored."""
    return LESSONS / f"{name(source)}.ipynb"


def read(source: Path) -> NotebookNode:
    """The cells as they are written: text and tags, no outputs, nothing added."""
    with warnings.catch_warnings():
        # its random ids meet once in a hundred thousand lessons; `build` gives others anyway
        warnings.simplefilter("ignore", DuplicateCellId)
        notebook = jupytext.read(source, fmt="py:percent")
    for cell in notebook.cells:
        cell.metadata = metadata(cell.metadata.get("tags", []))
    return notebook


def metadata(tags: list[str]) -> NotebookNode:
    """What the tags of a source say: those for the index, folding, and the place in a lecture."""
    kept = [tag for tag in tags if tag != FOLDED and tag not in SLIDES]
    found: dict[str, object] = {"tags": kept} if kept else {}
    if FOLDED in tags:
        found["jupyter"] = {"source_hidden": True}
    for tag in SLIDES.intersection(tags):
        found["slideshow"] = {"slide_type": tag}
    return nbformat.from_dict(found)


def build(source: Path) -> NotebookNode:
    """The notebook of a source, not yet run: the same cells, the same ids, every time."""
    notebook = read(source)
    notebook.metadata = nbformat.from_dict(METADATA)
    first = next(i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    notebook.cells.insert(first, install_cell(notebook.cells[first], is_deeper(source)))
    name_cells(notebook.cells)
    nbformat.validate(notebook)
    return notebook


def sections(source: Path) -> tuple[list[str], dict[str, list[str]]]:
    """The code of a lesson: of its setup, and of each section, {heading: cells}.

    What stands before the first heading and is no setup is a section too, of the heading "".
    """
    setup, found, heading = list[str](), dict[str, list[str]](), ""
    for cell in read(source).cells:
        if cell.cell_type == "markdown":
            heading = [heading, *re.findall(r"^## (.+)$", cell.source, re.MULTILINE)][-1]
        elif "setup" in cell.metadata.get("tags", []):
            setup.append(cell.source)
        else:
            found.setdefault(heading, []).append(cell.source)
    return setup, found


def install_cell(before: NotebookNode | None = None, deeper: bool = False) -> NotebookNode:
    """The first code cell: brings the course where it is missing, or says what to do.

    before: the cell that follows; in a lecture both are left out, or shown, together.
    deeper: in the folder below the lessons, so a wheel may lie above it.
    """
    settings = tomllib.loads((LESSONS.parent / "pyproject.toml").read_text())
    project, address = settings["project"], settings["tool"]["didiff"]["repository"]
    oldest = project["requires-python"].removeprefix(">=")
    text = INSTALL.substitute(
        wheel=f"{project['name']}-{project['version']}-py3-none-any.whl",
        above='"../", ' if deeper else "",
        address=address and f"git+{address}",
        python=f"({oldest.replace('.', ', ')})",
        oldest=oldest,
    )
    folded: dict[str, object] = {"tags": ["setup"], "jupyter": {"source_hidden": True}}
    if before and "slideshow" in before.metadata:
        folded["slideshow"] = dict(before.metadata.slideshow)
    return nbformat.v4.new_code_cell(text.rstrip(), metadata=folded)


def name_cells(cells: list[NotebookNode]) -> None:
    """Ids from the content: an edit changes one id, an inserted cell none of the others."""
    seen: Counter[str] = Counter()
    for cell in cells:
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def run(notebook: NotebookNode, **environment: str) -> NotebookNode:
    """Runs all cells in a fresh kernel in lessons/; raises at the first error.

    environment: variables that the kernel is given beside those of this process.
    """
    resources = {"metadata": {"path": str(LESSONS)}}
    client = nbclient.NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        resources=resources,
        coalesce_streams=True,
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],
    )
    ours = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    # in a loop that is closed again, so that it can be done in any thread; without MPLBACKEND
    # the kernel draws into the notebook
    return asyncio.run(client.async_execute(env=ours | environment))


def strip(notebook: NotebookNode) -> NotebookNode:
    """Without what dies with the kernel; each output must keep a face for those who only read."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("data", {}).pop(LIVE_WIDGET, None) and set(output.data) <= {"text/plain"}:
                raise ValueError(
                    f"this cell stores a widget that shows nothing without a kernel; give it a "
                    f"picture too (didiff.notebook.widgets does):\n{cell.source}"
                )
    return notebook


def store(notebook: NotebookNode, path: Path) -> None:
    """Written beside and renamed, so that a broken run leaves the old notebook whole."""
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".ipynb.new")
    nbformat.write(notebook, beside)
    beside.replace(path)


def run_all(notebooks: list[NotebookNode]) -> Iterator[tuple[NotebookNode, float]]:
    """Each notebook, run, and its seconds; in order, as many at a time as the machine has cores.

    Most of a lesson keeps one core busy, as its networks are too small to be shared by two. So
    each of several lessons is given one; two that want all of them would wait for one another.
    """
    threads = {"OMP_NUM_THREADS": "1"} if len(notebooks) > 1 else {}

    def timed(notebook: NotebookNode) -> tuple[NotebookNode, float]:
        start = time.perf_counter()
        return run(notebook, **threads), time.perf_counter() - start

    with ThreadPoolExecutor(os.cpu_count()) as cores:
        yield from cores.map(timed, notebooks)


def main(numbers: list[str]) -> None:
    chosen = sources(*numbers)
    built = [build(source) for source in chosen]
    for source, (notebook, seconds) in zip(chosen, run_all(built), strict=True):
        store(strip(notebook), notebook_of(source))
        print(f"{name(source):36} {seconds:5.1f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
