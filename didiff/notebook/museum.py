"""The bug museum: famous mistakes, each with its picture, its numbers, the check that catches it.

Many a mistake leaves samples that look right. So every version of an algorithm, the right one and
the wrong ones, goes through the same checks: those of an eye on its samples, and unit checks.

    exhibits = museum.inspect(
        {"right": tilde, "T-05: variance as std": tilde**2},
        eye={"std": Check(final_std, wanted=0.5, slack=0.03)},
        units={"variance at k = 1": Check(lambda variance: variance[0], wanted=0.0)},
    )
    museum.show(exhibits, caption="One bug in two is seen")
"""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from . import plots
from .pictures import require_alt

EXACT = 1e-10  # what rounding may do to a number of order 1 in float64


class Check(NamedTuple):
    """What to measure of a version, what it must be, how far chance or rounding may carry it."""

    measure: Callable[[Any], Any]  # a number
    wanted: float
    slack: float = EXACT

    def __str__(self) -> str:
        return f"{self.wanted:.4g}" + (f" ± {self.slack:.2g}" if self.slack > EXACT else "")


class Reading(NamedTuple):
    """A number measured, and its check."""

    value: float
    check: Check

    @property
    def passes(self) -> bool:
        return abs(self.value - self.check.wanted) <= self.check.slack  # NaN does not

    def __str__(self) -> str:
        value, wanted = self.value, self.check.wanted
        if self.passes:  # rounding differs among machines: let it not show
            return _digits(wanted if abs(value - wanted) <= EXACT else value, 3)
        enough = (n for n in range(3, 18) if _digits(value, n) != _digits(wanted, n))
        return f"{_digits(value, next(enough))} ✗"  # what is off must look so


def _digits(number: float, n: int) -> str:
    """Rounded to n digits; thousands are written out."""
    return f"{number:.0f}" if 10**n <= abs(number) < 1e6 else f"{number:.{n}g}"


class Exhibit(NamedTuple):
    """A version with its numbers by name: of an eye on the samples, and of the unit checks."""

    name: str
    version: Any
    eye: dict[str, Reading]
    units: dict[str, Reading]

    @property
    def visible(self) -> bool:
        """Is a number off that an eye on the samples sees?"""
        return any(not reading.passes for reading in self.eye.values())

    @property
    def caught(self) -> list[str]:
        """The unit checks that reject this version."""
        return [name for name, reading in self.units.items() if not reading.passes]


def inspect(
    versions: Mapping[str, Any], *, units: Mapping[str, Check], eye: Mapping[str, Check] = {}
) -> list[Exhibit]:
    """Every version before every check, all with the same random numbers.

    versions: the right one first, then the mistakes, each of which a unit check must catch; whether
    the eye sees it is a finding, not a demand. Raises AssertionError if the first fails a check, or
    if a mistake passes all unit checks.
    """
    state = torch.get_rng_state()

    def readings(version: Any, checks: Mapping[str, Check]) -> dict[str, Reading]:
        found = {}
        for name, check in checks.items():
            torch.set_rng_state(state)
            found[name] = Reading(float(check.measure(version)), check)
        return found

    exhibits = [
        Exhibit(name, version, readings(version, eye), readings(version, units))
        for name, version in versions.items()
    ]
    right, *mistakes = exhibits
    for name, reading in [*right.eye.items(), *right.units.items()]:
        assert reading.passes, f"{right.name!r}: {name} is {reading.value:.4g}, not {reading.check}"
    for mistake in mistakes:
        numbers = ", ".join(f"{name} {reading}" for name, reading in mistake.units.items())
        assert mistake.caught, f"{mistake.name!r} passes all unit checks: {numbers}"
    return exhibits


def show(
    exhibits: Sequence[Exhibit], *, caption: str, alt: str = "",
    draw: Callable[[Exhibit, Axes], Any] | None = None,
) -> None:  # fmt: skip
    """Display what `inspect` found as a table, wanted values in its header; ✗: not as wanted.

    draw: (exhibit, ax) fills a small panel for each exhibit, above the table, with the axes of the
    first; alt: those pictures in words, needed with `draw`.
    """
    if draw:
        require_alt(alt)
        plots.show(_gallery(exhibits, draw), alt=alt)
    right, *mistakes = exhibits
    checks = [*right.eye.items(), *right.units.items()]
    header = ["exhibit", *(f"{name} ({reading.check})" for name, reading in checks)]
    header += ["seen in samples", "caught by"] if right.eye else ["caught by"]
    rows = [[right.name, *_numbers(right), *["–"] * (2 if right.eye else 1)]]
    for one in mistakes:
        seen = ["yes" if one.visible else "no"] if one.eye else []
        rows.append([one.name, *_numbers(one), *seen, ", ".join(one.caught)])
    plots.table(rows, header=header, caption=caption)


def _numbers(exhibit: Exhibit) -> list[str]:
    return [str(reading) for reading in (*exhibit.eye.values(), *exhibit.units.values())]


def _gallery(exhibits: Sequence[Exhibit], draw: Callable[[Exhibit, Axes], Any]) -> Figure:
    """One panel per exhibit, at most four in a row, all with the limits of the first."""
    rows = -(-len(exhibits) // 4)
    columns = -(-len(exhibits) // rows)
    figure, axes = plots.panels(columns, rows, size=(2.3, 2.2))
    for place, (ax, exhibit) in enumerate(zip(axes, exhibits, strict=False)):
        draw(exhibit, ax)
        ax.set(xlim=axes[0].get_xlim(), ylim=axes[0].get_ylim())
        ax.set_title(textwrap.fill(exhibit.name, 28), fontsize="medium")
        if place % columns:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
        if place + columns < len(exhibits):
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
        if legend := ax.get_legend():
            legend.remove()
    for ax in axes[len(exhibits) :]:
        ax.remove()
    handles, labels = axes[0].get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
