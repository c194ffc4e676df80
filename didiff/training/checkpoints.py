"""The state of a run on the disk, so that one that was cut off goes on as if it had not been."""

from pathlib import Path

import torch
from torch import Tensor

from ..data.files import written_beside


def save(path: Path, parts: dict, **numbers) -> None:
    states = {name: part.state_dict() for name, part in parts.items()}
    with written_beside(path) as beside:
        torch.save(states | numbers, beside)


def restore(path: Path, parts: dict, steps: int) -> dict:
    """Read a checkpoint, check it against the parts, and only then load it into them."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        for name in ("model", "ema"):
            _check_same(held[name], parts[name].state_dict())
        if held["step"] > steps:
            raise ValueError(f"it is at step {held['step']}, past steps = {steps}")
    except Exception as error:  # unreadable files fail in many ways
        raise ValueError(
            f"cannot go on from {path}: {error}; delete it, or name another checkpoint"
        ) from error
    for name, part in parts.items():
        part.load_state_dict(held[name])
    return held


def get_rng() -> list[Tensor]:
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def set_rng(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    torch.cuda.set_rng_state_all(states[1:])


def _check_same(held: dict, wanted: dict) -> None:
    shapes, expected = ({k: tuple(v.shape) for k, v in d.items()} for d in (held, wanted))
    for name in sorted(shapes.keys() | expected.keys()):
        if shapes.get(name) != expected.get(name):
            raise ValueError(
                f"it holds another model ({name} is {shapes.get(name)} there and "
                f"{expected.get(name)} here)"
            )
