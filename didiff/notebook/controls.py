"""Labelled sliders and choices, and the stops at which any control can stand."""

import math
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from typing import Any

import ipywidgets
import traitlets

LABELLED = {"description_width": "initial"}  # the default cuts labels at 80 pixels
FEW, SHORT = 4, 32  # options and letters in all that are still shown as buttons in a row
BROAD = {"width": "auto", "max_width": "34em"}  # as the column, but no longer than a hand's way


class _Stops(ipywidgets.SelectionSlider):
    """A slider over decimals that names its stops to whoever sets another value.

    Not a FloatSlider: its browser half rounds what Python sets it to, and sends that back some time
    later, as if a hand had moved it.
    """

    @traitlets.validate("value")
    def _validate_value(self, proposal):
        try:
            return super()._validate_value(proposal)
        except traitlets.TraitError as error:
            names = [name for name, _ in self.options]
            stops = ", ".join([*names[:2], "..", names[-1]])
            raise traitlets.TraitError(
                f"{self.description}: {proposal.value} is no stop, choose {stops}"
            ) from error


def slider(label: str, low: float, high: float, *, value: float, step: float = 1):
    """A labelled slider over low, low + step, .., high; whole numbers if all four are ints.

    label: name and unit. Raises ValueError if the range is empty or `value` is not one of these.
    """
    numbers = (low, high, value, step)
    if not (all(map(math.isfinite, numbers)) and low < high and step > 0):
        raise ValueError(f"a slider needs finite low < high, step > 0; got {low}, {high}, {step}")
    options = _decimals(low, high, step)
    if not any(_near(stop, value) for stop in options.values()):
        raise ValueError(f"value {value} is none of the slider's {low}, {low + step}, .., {high}")
    looks: dict[str, Any] = {"description": label, "style": LABELLED, "layout": BROAD}
    if all(isinstance(number, int) for number in numbers):
        return _titled(ipywidgets.IntSlider(value, min=low, max=high, step=step, **looks))
    return _titled(_Stops(options=list(options.items()), value=value, equals=_near, **looks))


def _decimals(low: float, high: float, step: float) -> dict[str, float]:
    """{name: value} of low, low + step, .., in decimals, where 3 * 0.1 is 0.3."""
    first, last, by = (Decimal(str(number)) for number in (low, high, step))
    numbers = (first + k * by for k in range(int((last - first) / by) + 1))
    return {f"{number:f}": float(number) for number in numbers}


_near = partial(math.isclose, abs_tol=1e-9)


def choice(label: str, options: Sequence[Any] | dict[str, Any], *, value: Any):
    """A labelled choice: buttons for up to four options with short names, a list for others.

    options: the values, or a dict {name shown: value}. Raises ValueError if `value` is not among
    them.
    """
    named = options if isinstance(options, dict) else {str(option): option for option in options}
    if value not in named.values():
        raise ValueError(f"value {value!r} is not among the options {list(named.values())}")
    looks: dict[str, Any] = {"description": label, "style": LABELLED, "layout": BROAD}
    if buttons := len(named) <= FEW and len("".join(named)) <= SHORT:
        looks["style"] = {**LABELLED, "button_width": "auto"}
    kind = ipywidgets.ToggleButtons if buttons else ipywidgets.Dropdown
    return _titled(kind(options=list(named.items()), value=value, **looks))


def _titled(control):
    """With its label as tooltip where there is one: ipywidgets 8 would show "null", 7 has none."""
    if control.has_trait("tooltip"):
        control.tooltip = control.description
    return control


# -- where a control can stand ----------------------------------------------------------------


def stops(control) -> dict[str, Any]:
    """{name shown: value} of every value that a control can take, in order.

    Of anything with options, of any slider, of a checkbox. Raises ValueError for other controls.
    """
    if hasattr(control, "_options_full"):  # the pairs, in whatever form the options were given
        return dict(control._options_full)
    if isinstance(control.value, bool):
        return {str(value): value for value in (False, True)}
    if isinstance(control.value, int | float) and hasattr(control, "step"):
        numbers = _decimals(control.min, control.max, control.step)
        whole = isinstance(control.value, int)
        return {name: int(value) if whole else value for name, value in numbers.items()}
    raise ValueError(
        f"{control.description}: a {type(control).__name__} has no list of values: take a slider, "
        "a choice or a checkbox"
    )


def choices(control) -> list[Any]:
    """Every value that a control can take, in order: the grid that a test sweeps."""
    return list(stops(control).values())


def stop_name(control, value: Any) -> str:
    """The name of the stop at `value`. Raises ValueError if there is none."""
    same = getattr(control, "equals", None) or _same
    for name, stop in stops(control).items():
        if same(stop, value):
            return name
    names = list(stops(control))
    raise ValueError(f"{control.description}: {value} is none of {names[0]}, .., {names[-1]}")


def _same(stop: Any, value: Any) -> bool:
    numbers = isinstance(stop, int | float) and isinstance(value, int | float)
    return _near(stop, value) if numbers else stop == value
