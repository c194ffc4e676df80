"""How an explorer looks and behaves on a page: its boxes, its style sheet and its script.

Everything is sized in em of the notebook's text, so labels, readout and picture grow with it and
with JupyterLab's Presentation Mode. Controls stand beside the picture where there is room for both,
above it in as many columns as fit where there is not; `explorer.css` and `explorer.js` do what
ipywidgets leaves undone, in versions 7 and 8 alike.
"""

import html
from collections.abc import Iterable
from pathlib import Path

import ipywidgets

PIXELS_PER_EM = 14  # of a notebook's text, before anybody enlarges it
TRACK = 13  # em that a slider needs beside its label: a track to move along, and its value
LETTER = 0.9  # of the width of a "0" in the same font: more than most letters of a label take
STYLE, SCRIPT = (
    Path(__file__).with_name(f"explorer.{kind}").read_text(encoding="utf-8")
    for kind in ("css", "js")
)


def arranged(shown: list, folded: list, readout, picture, behaviour) -> ipywidgets.Box:
    """The box of an explorer: controls, a disclosure over the folded ones, readout; the picture."""
    label = LETTER * max((len(control.description) for control in [*shown, *folded]), default=0)
    for control in [*shown, *folded]:
        control.style.description_width = f"{label:g}ch"  # tracks begin below one another
    for part, name in [(readout, "readout"), (picture, "picture"), (behaviour, "behaviour")]:
        part.add_class(f"didiff-{name}")
    need = 0.6 * label + TRACK
    parts = [
        _columns(shown, need),
        *(_disclosure(_columns(folded, need)) if folded else []),
        readout,
    ]
    sides = [
        _stack(parts, f"1 1 {need:g}em", "didiff-controls"),
        _stack([picture, behaviour], f"0 1 {em(picture.width)}", "didiff-stage"),
    ]
    layout = {"display": "flex", "flex_flow": "row wrap", "align_items": "flex-start"}
    return ipywidgets.Box(sides, layout={**layout, "overflow": "visible"})


def em(pixels: float | str) -> str:
    """A width in pixels as one that grows with the text."""
    return f"{float(pixels) / PIXELS_PER_EM:g}em"


def behaviour(alt: str) -> str:
    """HTML that brings style and script with it; alt: what the picture shows, in words.

    A script element would not run inside a widget, a style element's load event does.
    """
    script = html.escape(SCRIPT, quote=True)
    return (
        f'<style data-alt="{html.escape(alt)}" onload="{script}">{STYLE}</style>'
        '<div class="didiff-notice" role="alert"></div>'
    )


def _columns(controls: Iterable, need: float) -> ipywidgets.GridBox:
    columns = f"repeat(auto-fit, minmax(min(100%, {need:g}em), 1fr))"
    layout = {"grid_template_columns": columns, "overflow": "visible", "width": "100%"}
    return ipywidgets.GridBox(list(controls), layout=layout)


def _stack(parts: list, flex: str, name: str) -> ipywidgets.VBox:
    stack = ipywidgets.VBox(parts, layout={"flex": flex, "overflow": "visible", "min_width": "0"})
    stack.add_class(name)
    return stack


def _disclosure(content) -> list:
    """A button and the content that it shows; the style sheet hides it, without asking a kernel."""
    button = ipywidgets.ToggleButton(description="more controls", layout={"width": "auto"})
    if hasattr(button, "tooltip"):
        button.tooltip = "show or hide the controls that are rarely used"
    button.add_class("didiff-more")
    content.add_class("didiff-folded")
    return [button, content]
