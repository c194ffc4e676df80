"""Builds the wheel of didiff into dist/ and tries it in a new environment: python -m tests.wheel

What it tries is what a lecturer hands out: nothing of the clone is in reach, the weights are those
inside the wheel, and one digit is drawn with them.
"""

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSTALL = ROOT / ".ci" / "install.py"

TRIAL = """\
import torch, didiff
from didiff.training import metrics, recipes, weights
from didiff.notebook import widgets

denoiser, y = weights.load("digits"), torch.tensor([3])
torch.manual_seed(0)
levels = didiff.grid(recipes.SCHEDULE, 20)
noise = didiff.initial_noise((1, 1, 8, 8), levels[0], dtype=torch.float32)
guided = didiff.guidance.classifier_free(denoiser, y, 2.0)
digit = didiff.last(didiff.ddim(guided, noise, levels))
assert metrics.recognised(digit, y) == 1, digit
print("a three was drawn by", didiff.__file__)
"""


def build(folder: Path) -> Path:
    """The wheel of this clone, built into `folder`."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    done = subprocess.run(
        [*command, str(folder.absolute())], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the wheel cannot be built:\n{done.stdout}{done.stderr}")
    (wheel,) = folder.glob("didiff-*.whl")
    return wheel


def environment(folder: Path, *wanted: str) -> Path:
    """A new environment with what is wanted, made as the Makefile makes it; returns its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    subprocess.run([python, INSTALL, "--quiet", *wanted], check=True)
    return python


def outside() -> dict[str, str]:
    """The environment's variables without what leads to this clone or to data of one's own."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DIDIFF_DATA")}


def try_out(wheel: Path) -> None:
    """Raises CalledProcessError if the wheel does not draw a digit where only it is installed."""
    with tempfile.TemporaryDirectory(prefix="didiff-wheel-") as folder:
        pins = "--constraint", str(ROOT / "constraints.txt")
        python = environment(Path(folder, "venv"), *pins, str(wheel))
        subprocess.run([python, "-c", TRIAL], check=True, cwd=folder, env=outside())


def main() -> None:
    dist = ROOT / "dist"
    for old in dist.glob("didiff-*.whl"):
        old.unlink()
    wheel = build(dist)
    try_out(wheel)
    print(f"{wheel.relative_to(ROOT)}, {wheel.stat().st_size / 1e6:.1f} MB, draws digits")


if __name__ == "__main__":
    main()
