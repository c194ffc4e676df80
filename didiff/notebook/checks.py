"""Checks: is a function written in a notebook the same as the library's?

`twin(name, function)` compares the two in several worlds with the same random numbers. The course
uses it for its own cells, and a student for an answer: the message says what is off, and where. A
module, a part of a network, is compared with the library's of the same weights.
"""

import copy
import operator
import pkgutil
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..samplers import State
from ..sde import SDE
from .worlds import LEVELS, POINTS, TIMES, WORLDS

ROUNDING = 1e-9  # how far another order of the same operations may lead, in float64
LONGEST = 100  # no world has so many results: a walk without end is left here
LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


def twin(name: str, function: Callable) -> None:
    """Compare `function` with the library function of that dotted name, in every world of it.

    Raises AssertionError that names the world and the first difference, also for a function that
    fails, does not end or changes its arguments; ValueError for a name that has no worlds. The
    caller's random numbers are left alone.
    """
    with torch.random.fork_rng(devices=[]):
        worlds = list(WORLDS[name]()) if name in WORLDS else []
        if not worlds:
            known = ", ".join(sorted(WORLDS))
            raise ValueError(f"no check for {name!r}: there are checks for {known}")
        original = pkgutil.resolve_name(name)
        call = _answer if isinstance(original, type) else operator.call
        for world, arguments in worlds:
            where = f"{original.__name__} {world}"
            ours, theirs = copy.deepcopy(arguments), copy.deepcopy(arguments)
            wanted = _run(call, original, ours)
            got = _attempt(where, call, function, theirs)
            _compare_arguments(where, arguments, ours, theirs)
            _compare(where, *got, *wanted)


# --- results --------------------------------------------------------------------------------------


def _run(call: Callable, function: Callable, arguments: tuple) -> tuple[Any, str]:
    """What the function gives under a fixed seed, followed to numbers, and what kind of thing."""
    torch.manual_seed(0)
    result = call(function, *arguments)
    return _follow(result), _kind(result)


def _attempt(where: str, call: Callable, function: Callable, arguments: tuple) -> tuple[Any, str]:
    """The same with a function that may fail: told in a sentence, without torch's own story."""
    try:
        return _run(call, function, arguments)
    except Exception as error:
        told = "" if isinstance(error, AssertionError) else f"raises {type(error).__name__}: "
        raise AssertionError(f"{where}: {told}{error}{_line(error)}") from None


def _line(error: Exception) -> str:
    """Where, in the notebook: the last line on the way to the error that is no library's."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(LIBRARIES):
            return f" (line {frame.lineno}: {frame.line})"
    return ""


def _answer(module: type[nn.Module], made: tuple, weights: dict, given: tuple) -> Tensor:
    """What a module made of `made`, with these weights, says to `given`."""
    own = module(*made).double()
    try:
        own.load_state_dict(weights)
    except RuntimeError as error:  # it names what is missing, and what has another shape
        raise AssertionError(f"name the layers as the library does: {error}") from error
    return own(*given)


def _follow(result) -> Any:
    """Walks, fits, processes and made denoisers as lists of what they give; the rest as it is."""
    if isinstance(result, SDE):
        return [(result.drift(POINTS.clone(), u), result.diffusion(u)) for u in TIMES]
    if isinstance(result, Iterator):
        return [_first_two(state) for state in islice(result, LONGEST)]
    if callable(result):
        return [result(POINTS.clone(), t) for t in LEVELS]
    return result


def _first_two(state) -> Any:
    """Of a fit's progress the step and the loss; the rest is a walk's."""
    return tuple(state[:2]) if isinstance(state, tuple) and not isinstance(state, State) else state


def _kind(thing) -> str:
    """What somebody gave, in a word or two."""
    if thing is None:
        return "nothing (no return?)"
    if isinstance(thing, (int, float)):
        return "a number"
    if isinstance(thing, (Iterator, list)):
        return "a sequence"
    if isinstance(thing, Tensor):
        return "a tensor"
    return "a function" if callable(thing) else type(thing).__name__


# --- comparison -----------------------------------------------------------------------------------


def _compare(where: str, got, kind: str, wanted, wanted_kind: str) -> None:
    """The same kinds, the same lengths, the same numbers to 1e-9, through sequences and tuples."""
    assert kind == wanted_kind, f"{where}: gives {kind}, not {wanted_kind}"
    if isinstance(wanted, Tensor):
        return _compare_tensors(where, got, wanted)
    if not isinstance(wanted, (list, tuple)):
        assert got == wanted, f"{where}: gives {got}, not {wanted}"
        return None
    assert len(got) == len(wanted), f"{where}: gives {len(got)} of them, the library {len(wanted)}"
    names = getattr(wanted, "_fields", range(len(wanted)))
    for part, a, b in zip(names, got, wanted, strict=True):
        place = f"{where}, {part}" if isinstance(part, str) else f"{where} [{part}]"
        _compare(place, a, _kind(a), b, _kind(b))
    return None


def _compare_tensors(where: str, got: Tensor, wanted: Tensor) -> None:
    traits = [(tuple(one.shape), one.dtype, one.device) for one in (got, wanted)]
    for name, a, b in zip(("shape", "dtype", "device"), *traits, strict=True):
        assert a == b, f"{where}: {name} {a}, not {b}"
    broken = int((~got.isfinite()).sum())
    assert not broken, f"{where}: {broken} of {got.numel()} numbers are NaN or infinite"
    worst = (got.double() - wanted.double()).abs().max()
    assert worst <= ROUNDING, f"{where}: differs by up to {worst:.3g}"


def _compare_arguments(where: str, before: tuple, ours: tuple, theirs: tuple) -> None:
    """What the library leaves alone must be left alone; `fit` changes its denoiser."""
    for place, kept in enumerate(zip(before, ours, theirs, strict=True), 1):
        was, library, own = (_tensors(argument) for argument in kept)
        if _same(was, library):
            assert _same(was, own), f"{where}: changes its argument {place}: leave it as it was"


def _same(some: list[Tensor], others: list[Tensor]) -> bool:
    return len(some) == len(others) and all(map(torch.equal, some, others))


def _tensors(thing) -> list[Tensor]:
    """All tensors in an argument: in lists, in modules, in mixtures."""
    if isinstance(thing, Tensor):
        return [thing]
    parts: Iterable = thing if isinstance(thing, (list, tuple)) else ()
    if not parts:
        parts = (thing if isinstance(thing, dict) else getattr(thing, "__dict__", {})).values()
    return [tensor for part in parts for tensor in _tensors(part)]
