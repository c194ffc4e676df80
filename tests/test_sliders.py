"""Law: a slider's callback draws wherever its controls can stand, and the picture follows them.

The cells of a lesson run in this process, so that the callbacks themselves can be called.
"""

import itertools

import pytest

from didiff.notebook import widgets
from lessons.source import build

# What a lesson warns of is told by its stored notebook, not here.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

PNG = b"\x89PNG"


def explorers(lesson: str) -> list[widgets.Explorer]:
    """The explorers that the cells of a lesson show, in order."""
    shown: list[widgets.Explorer] = []
    (source,) = build.sources(lesson)

    def show(explorer, **_):
        explorer.wait()
        shown.append(explorer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(widgets.Explorer, "show", show)
        cells = {"__name__": "__main__"}
        for number, cell in enumerate(build.read(source).cells):
            if cell.cell_type == "code":
                exec(compile(cell.source, f"{lesson}, cell {number}", "exec"), cells)
    return shown


def places(explorer: widgets.Explorer) -> list[dict]:
    """Each control over its whole grid while the others rest, and every corner of all of them."""
    rest = explorer.values
    grids = {name: widgets.choices(control) for name, control in explorer.controls.items()}
    along = [rest | {name: value} for name, grid in grids.items() for value in grid]
    ends = itertools.product(*((grid[0], grid[-1]) for grid in grids.values()))
    return along + [dict(zip(grids, corner, strict=True)) for corner in ends]


@pytest.mark.parametrize("lesson", [source.stem for source in build.sources()])
def test_every_slider_of_a_lesson_draws_over_its_whole_grid(lesson):
    found = explorers(lesson)
    assert found, "no slider in the whole lesson"
    for explorer in found:
        pictures, readouts = set(), set()
        for values in places(explorer):
            frames = list(explorer.frames(**values))
            assert all(frame.picture.startswith(PNG) for frame in frames), values
            assert frames[-1].readout.strip(), values
            pictures.add(frames[-1].picture)
            readouts.add(frames[-1].readout)
        assert len(pictures) > 1
        assert len(readouts) > 1
