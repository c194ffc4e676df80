"""The lessons with the packages that Colab has: every cell of one, every slider of all.

    python -m tests.colab                  # all that `make colab` asks for
    python -m tests.colab 08 11            # the sliders of these lessons

An environment is made from colab.txt, with the Python and the torch of this one, and a lesson
installs the course there as it would on Colab: its first cell finds a wheel beside the notebook.
Then the cells run in kernels of that environment, and each slider is moved once, by the message
that a browser sends; the picture must come back as the message that a browser gets.

A lesson's sliders need few of its cells (slices.py), and no training that teaches anything.
"""

import contextlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jupyter_client import KernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbformat import NotebookNode

from lessons.source import build
from tests import slices, wheel

PINS = Path(__file__).with_suffix(".txt")
WHOLE = "03_forward_process"
PATIENCE = 300.0  # seconds for a cell or a move, on a machine that has other work too

# one thread, as the lessons run side by side; and no word from the debugger, which nobody asked for
SILENT = {"OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
SLIDERS = {"IntSliderModel", "FloatSliderModel", "SelectionSliderModel"}
SHOWS_A_SLIDER = "still_over="  # what each cell with an explorer says, and no other cell

RECORD = """\
from didiff.notebook.widgets import Explorer

explorers, show = [], Explorer.show

def recorded(self, **told):
    explorers.append(self)
    show(self, **(told | brief(self, told)))

def brief(self, told):
    return {}

Explorer.show = recorded
"""
BRIEF = """\
import torch
from didiff import training

def untaught(model, losses, batches, steps, *_, **__):
    model = model.eval().requires_grad_(False)
    for step in range(1, steps + 1):
        for weight in model.parameters():
            weight += 1e-4  # or no slider over a training would show a change
        yield training.Progress(step, torch.ones(()), model, model)

training.fit = training.loop.fit = untaught

def brief(self, told):
    return {"values": [self.values[told["still_over"]]]}
"""


# ------------------------------------------------------------------------ the environment


def pins() -> dict[str, str]:
    """{package: its version on Colab}."""
    lines = [line for line in PINS.read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split("==") for line in lines)


def like_colab(folder: Path) -> Path:
    """The Python of a new environment with Colab's packages, and the torch of this one."""
    torch = importlib.metadata.version("torch").split("+")[0]
    return wheel.environment(folder, *(f"{k}=={v}" for k, v in (pins() | {"torch": torch}).items()))


def changed(python: Path, course: Path) -> set[str]:
    """The names of the packages that installing the course would bring or change there."""
    command = [
        str(python),
        *["-m", "uv", "pip", "install", "--dry-run", "--python"],
        str(python),
        str(course),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    marked = [line.split() for line in done.stderr.splitlines() if line.startswith((" + ", " - "))]
    return {package.split("==")[0] for _, package, *_ in marked}


# ------------------------------------------------------------------------ a kernel


class Specs(KernelSpecManager):
    """Knows one kernel, that of the Python it is told."""

    python: Path

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="like Colab", language="python")


class Kernel:
    """A running kernel, and what a browser that is connected to it knows of its widgets."""

    def __init__(self, client) -> None:
        self.client = client
        self.models: dict[str, dict] = {}  # the state of each widget, by its name on the wire
        self.shown: list[str] = []  # the widgets displayed, in order

    def run(self, code: str) -> set[str]:
        """Executes a cell; returns the models whose picture was sent. Raises RuntimeError."""
        return self._until_idle(self.client.execute(code))

    def move(self, slider: str, number: int) -> set[str]:
        """Moves a slider by one stop and waits for explorer `number`; returns as `run` does."""
        state = self.models[slider]
        content = {"comm_id": slider, "data": one_stop_on(state)}
        self.client.shell_channel.send(self.client.session.msg("comm_msg", content))
        return self.run(f"explorers[{number}].wait({PATIENCE})")

    def inside(self, model: str) -> Iterator[str]:
        """A widget and all that it holds."""
        yield model
        for child in self.models[model].get("children", ()):
            yield from self.inside(child.removeprefix("IPY_MODEL_"))

    def _until_idle(self, request: str) -> set[str]:
        pictures: set[str] = set()
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            kind, content = message["msg_type"], message["content"]
            ours = message["parent_header"].get("msg_id") == request
            if kind == "error":
                raise RuntimeError("\n".join(content["traceback"]))
            if kind == "comm_open":
                self.models[content["comm_id"]] = content["data"].get("state", {})
            elif kind == "comm_msg" and content["data"].get("method") == "update":
                self.models.setdefault(content["comm_id"], {}).update(content["data"]["state"])
                if ["value"] in content["data"].get("buffer_paths", ()):
                    pictures.add(content["comm_id"])
            elif kind == "display_data" and build.LIVE_WIDGET in content["data"]:
                self.shown.append(content["data"][build.LIVE_WIDGET]["model_id"])
            elif ours and content.get("execution_state") == "idle":
                return pictures


def one_stop_on(state: dict[str, Any]) -> dict[str, Any]:
    """What a browser sends when a hand moves a slider by one stop, up where there is room."""
    if "index" in state:
        last = len(state["_options_labels"]) - 1
        index = state["index"]
        moved = {"index": index + 1 if index < last else index - 1}
    else:
        step = state["step"] if state["value"] < state["max"] else -state["step"]
        moved = {"value": state["value"] + step}
    return {"method": "update", "state": moved, "buffer_paths": []}


@contextlib.contextmanager
def kernel(python: Path, folder: Path) -> Iterator[Kernel]:
    """A kernel of that Python, which runs in `folder` and sees nothing of this clone."""
    specs = Specs()
    specs.python = python
    manager = KernelManager(kernel_spec_manager=specs)
    manager.start_kernel(cwd=str(folder), env=wheel.outside() | SILENT)
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE)
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


# ------------------------------------------------------------------------ the lessons


def code_of(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def play(kernel: Kernel, cells: list[str]) -> int:
    """Runs cells, and moves every slider that they show once; returns how many these were."""
    moved = 0
    for code in cells:
        seen = len(kernel.shown)
        kernel.run(code)
        for number in range(seen, len(kernel.shown)):
            inside = list(kernel.inside(kernel.shown[number]))
            names = {model: kernel.models[model]["_model_name"] for model in inside}
            pictures = {model for model, name in names.items() if name == "ImageModel"}
            for slider in (model for model, name in names.items() if name in SLIDERS):
                label = kernel.models[slider]["description"]
                assert pictures & kernel.move(slider, number), f"{label!r} moves no picture"
                moved += 1
    return moved


def whole(python: Path, folder: Path) -> str:
    """Every cell of a lesson, the first included, which installs the wheel in `folder`."""
    install, *cells = code_of(build.build(*build.sources(WHOLE)))
    with kernel(python, folder) as running:
        running.run(install)
        running.run(RECORD)
        return told(WHOLE, len(cells) + 1, play(running, cells))


def sliders(python: Path, folder: Path, source: Path) -> str:
    """The cells of a lesson that show a slider, with what these need."""
    cells = code_of(build.read(source))
    chosen = slices.needed(cells, [k for k, code in enumerate(cells) if SHOWS_A_SLIDER in code])
    with kernel(python, folder) as running:
        running.run(RECORD + BRIEF)
        return told(build.name(source), len(chosen), play(running, [cells[k] for k in chosen]))


def told(lesson: str, cells: int, moved: int) -> str:
    assert moved, f"{lesson} shows no slider"
    return f"{lesson:32} {cells:3} cells, {moved:2} sliders moved"


def main(numbers: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="didiff-colab-") as name:
        folder = Path(name)
        python, course = like_colab(folder / "venv"), wheel.build(folder)
        brought = changed(python, course)
        assert brought == {"didiff"}, f"installing the course would change {brought}"
        print(whole(python, folder), flush=True)
        with ThreadPoolExecutor(os.cpu_count()) as cores:
            shown = [s for s in build.sources(*numbers) if SHOWS_A_SLIDER in s.read_text()]
            for line in cores.map(lambda s: sliders(python, folder, s), shown):
                print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
