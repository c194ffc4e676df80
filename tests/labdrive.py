"""Does in a real JupyterLab what a reader does: opens a notebook, runs it, moves its sliders.

    with lab(folder) as server, chromium() as browser:
        faults = visit(browser, server, "07_samplers.ipynb", shots)

A fault is a sentence about what a reader would have seen go wrong; an empty list is a good lesson.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, sync_playwright

PANEL = ".jp-NotebookPanel:not(.lm-mod-hidden)"
EXPLORER = ".didiff-explorer"
PICTURE = ".didiff-picture"
FOLD = ".didiff-more:not(.mod-active)"
READOUT = ".didiff-readout"
SLIDER = ".widget-slider:has(.noUi-handle)"

START = 180  # seconds until a server answers, a notebook is open, a kernel is ready
RUN = 600  # seconds for all cells of a lesson, on a machine that has other work too
MOVE = 30  # seconds until a moved slider shows; a lesson's own goal is far below
QUIET = 0.6  # seconds without a change after which a picture is taken to be final

# Without these Chromium asks a container for rights it has not, or the network for news.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# JupyterLab's question whether it may show news would cover a corner of the notebook.
NO_NEWS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}
}


class Server(NamedTuple):
    """A running JupyterLab."""

    url: str
    token: str

    def answers(self) -> bool:
        """Whether it serves requests yet."""
        try:
            urllib.request.urlopen(f"{self.url}/api/status?token={self.token}", timeout=2).read()
        except OSError:
            return False
        return True

    def kernel_rests(self, name: str) -> bool:
        """Whether the kernel of a notebook has started, is at rest, and a page is connected."""
        with urllib.request.urlopen(f"{self.url}/api/sessions?token={self.token}") as answer:
            kernels = [
                session["kernel"] for session in json.load(answer) if session["path"] == name
            ]
        return any(k["execution_state"] == "idle" and k["connections"] > 0 for k in kernels)


class Shown(NamedTuple):
    """What an explorer shows: the bytes of its picture and the text of its readout."""

    picture: str
    readout: str


# ------------------------------------------------------------------------ server and browser


def find_chromium() -> str | None:
    """The path of an installed Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@contextlib.contextmanager
def lab(folder: Path) -> Iterator[Server]:
    """A JupyterLab that serves `folder` and keeps its state to itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(f"http://127.0.0.1:{port}", secrets.token_hex(8))
    with tempfile.TemporaryDirectory(prefix="didiff-lab-") as state:
        log = Path(state, "log")
        with log.open("w") as out:
            process = subprocess.Popen(
                lab_command(server, port, folder),
                env=private_state(Path(state)),
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            until(server.answers, START, lambda: f"JupyterLab does not answer: {log.read_text()}")
            yield server
        finally:
            process.terminate()  # JupyterLab then shuts its kernels down
            process.wait(START)


def lab_command(server: Server, port: int, folder: Path) -> list[str]:
    """The command line of a server that nobody else can use."""
    return [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={folder}",
        f"--IdentityProvider.token={server.token}",
    ]


def private_state(state: Path) -> dict[str, str]:
    """An environment in which Jupyter reads and writes no settings but those in `state`."""
    settings = state / "config" / "labconfig" / "default_setting_overrides.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(NO_NEWS))
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    return {**os.environ, **{name: str(state / folder) for name, folder in folders.items()}}


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The installed Chromium, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield browser
        browser.close()


# ------------------------------------------------------------------------ one notebook


def visit(browser: Browser, server: Server, name: str, shots: Path) -> list[str]:
    """Opens a notebook, runs it, moves every slider by key and by mouse; returns the faults."""
    faults: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.on("pageerror", lambda error: faults.append(f"page: {str(error)[:200]}"))
    page.on("console", lambda message: faults.extend(console_faults(message)))
    open_notebook(page, server, name)
    run_all(page)
    faults += cell_faults(page)
    explorers = page.locator(f"{PANEL} {EXPLORER}")
    if explorers.count() == 0:
        faults.append("no slider with a picture in the whole notebook")
    for number, explorer in enumerate(explorers.all(), start=1):
        faults += explorer_faults(page, explorer)
        page.screenshot(path=shots / f"{Path(name).stem}_{number}.png")
    page.close()
    return faults


def console_faults(message: ConsoleMessage) -> list[str]:
    """Errors that JupyterLab writes where only its developers look."""
    return [f"console: {message.text[:200]}"] if message.type == "error" else []


def open_notebook(page: Page, server: Server, name: str) -> None:
    """Opens it in a workspace of its own (old tabs come back otherwise) and awaits the kernel."""
    workspace = secrets.token_hex(4)
    page.goto(f"{server.url}/lab/workspaces/{workspace}/tree/{name}?token={server.token}")
    page.wait_for_selector(f"{PANEL} .jp-Notebook .jp-Cell", timeout=START * 1000)
    # The notebook's own indicator says "idle" before there is a kernel; the status bar does not.
    bar = page.locator("#jp-main-statusbar")
    until(lambda: "| Idle" in bar.inner_text(), START, lambda: f"no kernel: {bar.inner_text()}")


def open_in_notebook(page: Page, server: Server, name: str) -> None:
    """Opens it in Notebook 7, which has no status bar, and awaits the kernel by the server."""
    page.goto(f"{server.url}/notebooks/{name}?token={server.token}")
    page.wait_for_selector(f"{PANEL} .jp-Notebook .jp-Cell", timeout=START * 1000)
    until(lambda: server.kernel_rests(name), START, lambda: f"no kernel for {name}")


def choose(page: Page, *path: str) -> None:
    """Chooses from the menus: the name of a menu, of the menus in it, and the command at last."""
    menu, *inner, command = path
    page.click(f'.lm-MenuBar-item:has-text("{menu}")')
    for name in inner:
        page.hover(f'.lm-Menu-item:has-text("{name}")')
    page.click(f'.lm-Menu-item[data-command="{command}"]')


def run_all(page: Page) -> None:
    """Run > Run All Cells, as a reader does it, until no cell waits."""
    choose(page, "Run", "runmenu:run-all")
    until(lambda: finished(page), RUN, lambda: f"cells still wait: {prompts(page)}")


def prompts(page: Page) -> list[str]:
    """What stands before the code cells: [1]: where it ran, [*]: where it waits or runs."""
    # not inner_texts: JupyterLab leaves cells beyond the window undrawn, and those have none
    return page.locator(f"{PANEL} .jp-CodeCell .jp-InputArea-prompt").all_text_contents()


def finished(page: Page) -> bool:
    """Whether cells ran, none waits, and the kernel rests."""
    marks = prompts(page)
    indicator = page.locator(f"{PANEL} .jp-Notebook-ExecutionIndicator").first
    ran = any(mark.strip("[]: ").isdigit() for mark in marks)
    return ran and "[*]:" not in marks and indicator.get_attribute("data-status") == "idle"


def cell_faults(page: Page) -> list[str]:
    """Cells that did not run or that show an error."""
    silent = [k for k, mark in enumerate(prompts(page)) if not mark.strip("[]: ").isdigit()]
    faults = [f"code cell {k} did not run" for k in silent]
    for kind in ("error", "stderr"):
        shown = page.locator(f'{PANEL} [data-mime-type="application/vnd.jupyter.{kind}"]')
        faults += [f"{kind}: {text.strip()[-300:]}" for text in shown.all_text_contents()]
    for broken in ("Error displaying widget", "Click to show javascript error"):
        if page.get_by_text(broken).count():
            faults.append(f"a widget could not be displayed: {broken}")
    return faults


# ------------------------------------------------------------------------ one slider


def explorer_faults(page: Page, explorer: Locator) -> list[str]:
    """The sliders of one explorer that do not move its picture and its readout."""
    for button in explorer.locator(FOLD).all():
        button.click()
    parts = (SLIDER, PICTURE, READOUT)
    faults = [f"an explorer without {part}" for part in parts if not explorer.locator(part).count()]
    for slider in [] if faults else explorer.locator(SLIDER).all():
        label = slider.locator(".widget-label").first.text_content() or ""
        if not label.strip():
            faults.append("a slider without a label")
        for move in (by_keyboard, by_mouse):
            before = at_rest(explorer)
            move(page, slider)
            await_change(explorer, before)
            faults += unmoved(f"slider {label!r} {move.__name__}", before, at_rest(explorer))
    return faults


def by_keyboard(page: Page, slider: Locator) -> None:
    """One arrow to the right, then End; to the left and Home where the slider stands far right."""
    slider.scroll_into_view_if_needed()
    slider.locator(".noUi-handle").first.focus()
    for key in ("ArrowLeft", "Home") if position(slider) > 0.5 else ("ArrowRight", "End"):
        page.keyboard.press(key)


def by_mouse(page: Page, slider: Locator) -> None:
    """Drags the handle in a dozen small steps to the far quarter of its track."""
    slider.scroll_into_view_if_needed()
    handle, track = box(slider, ".noUi-handle"), box(slider, ".noUi-base")
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    share = 0.25 if position(slider) > 0.5 else 0.75
    goal = track["x"] + share * track["width"]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(goal, y, steps=12)
    page.mouse.up()


def position(slider: Locator) -> float:
    """Where the handle stands on its track, 0 to 1."""
    handle, track = box(slider, ".noUi-handle"), box(slider, ".noUi-base")
    return (handle["x"] + handle["width"] / 2 - track["x"]) / track["width"]


def box(slider: Locator, part: str) -> dict[str, float]:
    """The rectangle of a part of a slider on the page, in pixels."""
    found = slider.locator(part).first.bounding_box()
    assert found, f"{part} is not on the page"
    return dict(found)  # type: ignore[arg-type]


def shown(explorer: Locator) -> Shown:
    """What an explorer shows at this moment. The picture is known by a checksum of its bytes."""
    picture = explorer.locator(PICTURE).first.evaluate(
        """async img => {
            const bytes = await (await fetch(img.src)).arrayBuffer();
            const digest = await crypto.subtle.digest("SHA-256", bytes);
            return String(new Uint8Array(digest));
        }"""
    )
    return Shown(picture, explorer.locator(READOUT).first.inner_text())


def at_rest(explorer: Locator) -> Shown:
    """What an explorer shows when it has shown the same for a while: previews are over."""
    last, since = shown(explorer), time.monotonic()

    def resting() -> bool:
        nonlocal last, since
        now = shown(explorer)
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > QUIET

    until(resting, MOVE, lambda: "the picture never comes to rest")
    return last


def await_change(explorer: Locator, before: Shown) -> None:
    """Waits until picture and readout both differ from before, or until a reader would give up."""

    def changed() -> bool:
        now = shown(explorer)
        return now.picture != before.picture and now.readout != before.readout

    with contextlib.suppress(TimeoutError):
        until(changed, MOVE, str)


def unmoved(what: str, before: Shown, after: Shown) -> list[str]:
    """A fault for each of picture and readout that is the same as before."""
    same = [part for part in Shown._fields if getattr(before, part) == getattr(after, part)]
    return [f"{what} leaves the {part} as it was" for part in same]


def until(condition: Callable[[], bool], seconds: float, complaint: Callable[[], str]) -> None:
    """Waits for a condition. Raises TimeoutError with the complaint after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds} s: {complaint()}")
        time.sleep(0.05)
