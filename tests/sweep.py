"""Moves the sliders of a lesson, inside its kernel: everywhere fast, at the corners for real.

watch()     # before the first cell: notes every explorer that a cell shows
over_all()  # after the last: raises AssertionError for a place where one does not draw
"""

import contextlib
import itertools
import random
from collections.abc import Iterator
from unittest import mock

import torch
import torch.nn.functional as F

from didiff.networks import ConvNet, UNet
from didiff.notebook import widgets
from didiff.notebook.frames import played
from didiff.notebook.widgets import Explorer, Frame

PNG = b"\x89PNG"
CORNERS = 8  # of six controls there are 64, and each is a picture


SHOWN: list[Explorer] = []


def watch() -> None:
    """Every explorer that is shown from now on is one of SHOWN."""
    show = Explorer.show

    def noted(explorer, **words):
        SHOWN.append(explorer)
        show(explorer, **words)

    Explorer.show = noted


def over_all(least: int = 1) -> None:
    """Each explorer over all its places with stand-ins for the networks, at the ends with these.

    least: the explorers that a lesson must have shown.
    """
    assert len(SHOWN) >= least, "no slider in the whole lesson"
    for explorer in SHOWN:
        with stand_ins():
            drawn = [frame(explorer, values) for values in everywhere(explorer)]
        drawn += [frame(explorer, values) for values in ends(explorer)]
        pictures, readouts = map(set, zip(*drawn, strict=True))
        assert len(pictures) > 1, "the picture never changes"
        assert len(readouts) > 1, "the readout never changes"


def frame(explorer: Explorer, values: dict) -> Frame:
    """The last frame at these values, all frames looked at."""
    frames = list(played(explorer.frames(**values)))
    assert all(one.picture.startswith(PNG) for one in frames), values
    assert frames[-1].readout.strip(), values
    return frames[-1]


def everywhere(explorer: Explorer) -> list[dict]:
    """Each control over its whole grid while the others rest, and up to CORNERS of all corners."""
    rest, grids = explorer.values, choices(explorer)
    along = [rest | {name: value} for name, grid in grids.items() for value in grid]
    corners = list(itertools.product(*((grid[0], grid[-1]) for grid in grids.values())))
    drawn = random.Random(0).sample(corners, min(CORNERS, len(corners)))
    return along + [dict(zip(grids, corner, strict=True)) for corner in drawn]


def ends(explorer: Explorer) -> list[dict]:
    """Where the explorer rests, each control at its ends, and two opposite corners."""
    rest, grids = explorer.values, choices(explorer)
    single = [rest | {name: grid[end]} for name, grid in grids.items() for end in (0, -1)]
    both = [{name: grid[end] for name, grid in grids.items()} for end in (0, -1)]
    return [rest, *single, *both]


def choices(explorer: Explorer) -> dict[str, list]:
    return {name: widgets.choices(control) for name, control in explorer.controls.items()}


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """The library's networks for pictures answer at once, and with all they are told."""

    def draws(net, x, clock, y=None, omega=None):
        told = sum(v.to(x) / 10 for v in (clock, y, omega) if v is not None)
        return torch.tanh(x + told[:, None, None, None])

    def reads(net, x, clock):
        return 4 * F.adaptive_avg_pool2d(x, (2, 5)).flatten(1) + clock[:, None]

    with mock.patch.object(UNet, "forward", draws), mock.patch.object(ConvNet, "forward", reads):
        yield
