"""The command line, `python -m didiff`: train the models that the lessons load."""

import argparse
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from ..data.files import data_folder, writable
from . import weights
from .loop import Progress
from .recipes import PLAIN, RECIPES, Run

LINES = 10  # in which a run reports its progress


def main(arguments: list[str] | None = None) -> None:
    """Do what the arguments (default: those of the process) ask for."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        run = Run(options.checkpoint, torch.bfloat16 if options.bf16 else None)
        train(options.model, options.steps, options.seed, options.out, run)
    except (OSError, ValueError) as error:
        parser.error(str(error))


def train(
    model: str, steps: int | None, seed: int = 0, out: Path | None = None, run: Run = PLAIN
) -> Path:
    """Train, measure and write a model of `RECIPES`; returns the path of its weights.

    steps: None for those of the recipe. out: a folder, None for `weights/` of the data.
    Raises ValueError for steps < 1, or a card that could not be written, OSError for a folder that
    cannot: all before the second step.
    """
    recipe = RECIPES[model]
    folder = writable(data_folder() / "weights" if out is None else out)
    steps = recipe.steps if steps is None else steps
    path = folder / f"{model}.safetensors"
    card = recipe.card() | {
        "command": f"python -m didiff train {model} --steps {steps} --seed {seed}"
        + (" --bf16" if run.dtype else ""),
        "seed": seed,
        "hardware": _hardware(),
    }
    progress = _trained(recipe.train(steps, seed, run), steps, card)
    card |= {"duration_s": round(progress.seconds, 1), "quality": {}}
    weights.save(path, progress.ema, card)  # first: measuring asks for other files, and may fail
    card["quality"] = recipe.quality(progress.ema)
    for circumstances, numbers in card["quality"].items():
        print(circumstances, *(f"{name} {value:g}" for name, value in numbers.items()), sep="  ")
    weights.save(path, progress.ema, card)
    print(f"written: {path}, {path.stat().st_size / 1e6:.1f} MB, and its card")
    return path


def _trained(run: Iterator[Progress], steps: int, card: dict) -> Progress:
    """The end of a run that is told as it goes, and whose card can be written."""
    for number, progress in enumerate(run):
        if number == 0:  # rather than after hours
            weights.check(progress.ema, card | {"duration_s": 0.0, "quality": {}})
        _report(progress, steps)
    return progress


def _report(progress: Progress, steps: int) -> None:
    if progress.step % max(1, steps // LINES) == 0:
        print(
            f"step {progress.step} of {steps}  loss {progress.loss:.4f}  {progress.seconds:.0f} s",
            flush=True,
        )


def _hardware() -> str:
    return (
        f"{os.cpu_count()} cores {platform.machine()}, {torch.get_num_threads()} threads of torch"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m didiff", description="Diffusion models small enough to read in an evening."
    )
    commands = parser.add_subparsers(title="commands", required=True)
    command = commands.add_parser(
        "train",
        help="train a model that the lessons load, measure it, and write its weights",
        description="Trains a model, measures it, and writes its weights (.safetensors) with a "
        "card (.json) that says how they were made.",
    )
    command.add_argument("model", choices=sorted(RECIPES), help="which model")
    command.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    command.add_argument("--steps", type=int, help="of the optimiser (default: the model's own)")
    command.add_argument(
        "--out", type=Path, help="folder to write to (default: weights/ in the folder of the data)"
    )
    command.add_argument(
        "--checkpoint", type=Path, help="file to keep a long run in; a run that was cut off goes on"
    )
    command.add_argument(
        "--bf16", action="store_true", help="run the network in bfloat16 (faster on new processors)"
    )
    return parser
