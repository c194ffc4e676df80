"""Installs into the environment of the Python that runs it: uv does it in seconds, pip in minutes.

    .venv/bin/python .ci/install.py --constraint constraints.txt --editable ".[dev]"

uv does not read pip's settings, so what pip was told about indexes and folders is handed on to it.
Whoever told neither of them anything gets the build of torch that fits the machine: on Linux the
usual one brings gigabytes for NVIDIA's cards.
"""

import ast
import os
import shutil
import subprocess
import sys

PIP = [sys.executable, "-m", "pip"]
# pip takes the best version of all its indexes; uv must be told to
UV = [sys.executable, "-m", "uv", "pip", "install", "--python", sys.executable]
UV += ["--index-strategy", "unsafe-best-match"]

SETTINGS = ("index-url", "extra-index-url", "find-links")
UV_SETTINGS = ["INDEX", "DEFAULT_INDEX", "INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS"]
UV_SETTINGS += ["TORCH_BACKEND", "NO_INDEX", "OFFLINE", "CONFIG_FILE"]

TORCH_THAT_FITS = ["--torch-backend", "auto"]
TORCH_WITHOUT_CUDA = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]


def told_to_pip() -> list[str]:
    """pip's settings about where packages lie, as arguments that uv and pip understand."""
    listed = subprocess.run([*PIP, "config", "list"], capture_output=True, text=True, check=True)
    arguments = []
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        if section in ("global", "install", ":env:"):
            values = str(ast.literal_eval(value)).split()
            if key in SETTINGS:
                arguments += [word for each in values for word in (f"--{key}", each)]
            elif key == "no-index" and values[0].lower() in ("1", "true", "yes", "on"):
                arguments += ["--no-index"]
    return arguments


def told_to_uv() -> bool:
    """Whether the environment tells uv where packages lie."""
    return any(os.environ.get(f"UV_{name}") for name in UV_SETTINGS)


def commands(wanted: list[str]) -> tuple[list[str], list[str]]:
    """The command lines of uv and, where that fails, of pip."""
    told = told_to_pip()
    uv = [*UV, *told, *wanted]
    pip = [*PIP, "install", *wanted]
    if told or told_to_uv():
        return uv, pip
    without_card = sys.platform == "linux" and not shutil.which("nvidia-smi")
    return uv + TORCH_THAT_FITS, pip + TORCH_WITHOUT_CUDA * without_card


def main(wanted: list[str]) -> int:
    uv, pip = commands(wanted)
    has_uv = subprocess.run([*PIP, "install", "--quiet", "uv"]).returncode == 0
    if has_uv and subprocess.run(uv).returncode == 0:
        return 0
    print("without uv: pip takes a few minutes", flush=True)
    return subprocess.run(pip).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
