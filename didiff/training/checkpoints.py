"""The state of a run on the disk, so that one that was cut off goes on as if it had not been."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.files import written_beside
from .optimiser import Rates

# --- what a run is told, which its tensors do not say --------------------------------------------


def settings(model: nn.Module, optimiser, **numbers) -> dict[str, dict[str, Any]]:
    """Kinds and plain attributes of all modules and of the optimiser, such as target and betas.

    numbers: what else makes the run what it is. To be asked before the first step.
    """
    modules = {
        name: _plain(vars(module), ("training",)) | {"kind": type(module).__name__}
        for name, module in model.named_modules()
    }
    groups = {
        str(k): _plain(group, ("lr",)) | {"parameters": len(group["params"])}
        for k, group in enumerate(optimiser.param_groups)
    }
    kind = {"kind": type(optimiser).__name__}
    return {"model": _flat(modules), "optimiser": kind | _flat(groups), "run": numbers}


def _plain(attributes: dict, without: tuple) -> dict:
    def plain(value) -> bool:
        parts = value if isinstance(value, tuple) else (value,)
        return all(part is None or type(part) in (bool, int, float, str) for part in parts)

    named = {k: v for k, v in attributes.items() if not k.startswith("_") and k not in without}
    return {key: value for key, value in named.items() if plain(value)}


def _flat(parts: dict[str, dict]) -> dict[str, Any]:
    return {
        f"{name}.{key}".lstrip("."): value
        for name, part in parts.items()
        for key, value in part.items()
    }


# --- to the disk and back ------------------------------------------------------------------------


def save(path: Path, parts: dict, told: dict, rates: Rates, **numbers) -> None:
    """Write the states of `parts`, and what the run was told, in place of the last checkpoint."""
    states = {name: part.state_dict() for name, part in parts.items()}
    held = {"states": states, "settings": told, "rates": tuple(rates), "rng": get_rng()} | numbers
    with written_beside(path) as beside:
        torch.save(held, beside)


def restore(path: Path, parts: dict, told: dict, rates: Rates) -> dict:
    """Read a checkpoint, check that it is of this very run, and only then load it into `parts`.

    Raises ValueError that names the file and what is another there than here.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        for name in ("model", "ema"):
            _check_same("model", *map(_shapes, (held["states"][name], parts[name].state_dict())))
        for what, here in told.items():
            _check_same(what, *_common(held["settings"][what], here))
        _check_rates(Rates(*held["rates"]), rates, held["step"])
    except KeyError as error:
        raise _refusal(path, f"it lacks {error}, another version wrote it") from error
    except Exception as error:  # unreadable files fail in many ways
        raise _refusal(path, error) from error
    for name, part in parts.items():
        part.load_state_dict(held["states"][name])
    return held


def _refusal(path: Path, why) -> ValueError:
    return ValueError(f"cannot go on from {path}: {why}; delete it, or name another checkpoint")


def _shapes(state: dict) -> dict[str, tuple]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _common(there: dict, here: dict) -> tuple[dict, dict]:
    """What both tell: other versions of torch have a setting more or less."""
    return {k: there[k] for k in there if k in here}, {k: here[k] for k in there if k in here}


def _check_same(what: str, held: dict, wanted: dict) -> None:
    for name in {**held, **wanted}:
        there, here = held.get(name), wanted.get(name)
        if there != here:
            raise ValueError(f"it holds another {what} ({name} is {there} there and {here} here)")


def _check_rates(there: Rates, here: Rates, done: int) -> None:
    if done > here.steps:
        raise ValueError(f"it is at step {done}, past steps = {here.steps}")
    for step in range(1, done + 1):
        if there.at(step) != here.at(step):
            raise ValueError(
                f"its learning rate at step {step} was {there.at(step):g}, "
                f"and here it would be {here.at(step):g}"
            )


# --- the states of the random numbers ------------------------------------------------------------


def get_rng() -> list[Tensor]:
    """That of the CPU, then that of each GPU if this process computes on any."""
    of_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return [torch.get_rng_state(), *of_gpus]


def set_rng(states: list[Tensor]) -> None:
    """Set them; where there are fewer GPUs than there were, the rest has nowhere to go."""
    torch.set_rng_state(states[0])
    for gpu, state in zip(range(torch.cuda.device_count()), states[1:], strict=False):
        torch.cuda.set_rng_state(state, gpu)
