"""Figures of the lessons: colour by role, doubled by line style or marker; never without alt text.

Each plot takes data and returns its `Figure`; `show` displays a figure with the words that stand
for it. Give `ax` to draw into one panel of `panels`.
"""

import html
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import torch
from cycler import cycler
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from .pictures import base64_of, mosaic, png, require_alt, small

__all__ = [
    "ROLE", "Fan", "Stage", "contours", "densities", "field", "heatmap", "images", "lines",
    "mosaic", "panels", "paths", "png", "scatter", "show", "style", "table",
]  # fmt: skip

# Okabe and Ito's colours, which colour-blind readers tell apart. As keywords for `Axes.plot`.
ROLE: dict[str, dict[str, Any]] = {
    "data": {"color": "#0072B2", "linestyle": "-", "marker": "o"},
    "noise": {"color": "#999999", "linestyle": ":", "marker": "."},
    "model": {"color": "#D55E00", "linestyle": "-.", "marker": "s"},
    "exact": {"color": "#000000", "linestyle": "--", "marker": "x"},
    "guidance": {"color": "#CC79A7", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "^"},
    "highlight": {"color": "#E69F00", "linestyle": "-", "marker": "*"},
}
# what plays none of these roles
OTHERS: list[dict[str, Any]] = [
    {"color": "#009E73", "linestyle": "-", "marker": "D"},
    {"color": "#56B4E9", "linestyle": "--", "marker": "v"},
    {"color": "#0072B2", "linestyle": "-.", "marker": "o"},
    {"color": "#D55E00", "linestyle": ":", "marker": "s"},
    {"color": "#CC79A7", "linestyle": "-", "marker": "^"},
    {"color": "#000000", "linestyle": "--", "marker": "x"},
]


def style() -> None:
    """Set matplotlib's defaults for a lesson: modest size, quiet frame, colours by role."""
    cycle = cycler(
        color=[look["color"] for look in ROLE.values()],
        linestyle=[look["linestyle"] for look in ROLE.values()],
    )
    matplotlib.rcParams.update(
        {
            "figure.dpi": 96, "figure.figsize": (4.8, 3.0), "figure.constrained_layout.use": True,
            "font.size": 9, "axes.prop_cycle": cycle, "axes.spines.top": False,
            "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6",
            "axes.axisbelow": True, "lines.linewidth": 1.6, "lines.markersize": 4.5,
            "legend.frameon": False, "image.cmap": "viridis", "savefig.dpi": 96,
        }
    )  # fmt: skip


def panels(columns: int = 1, rows: int = 1, size: tuple[float, float] = (4.8, 3.0)):
    """A figure of rows x columns axes, each `size` inches (width, height): (figure, [axes, ..])."""
    figure = Figure((size[0] * columns, size[1] * rows), dpi=96, layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


# -- what is displayed ------------------------------------------------------------------------


def show(picture: Figure | np.ndarray, *, alt: str, caption: str | None = None) -> None:
    """Display a figure, or a mosaic, with the words that stand for it.

    alt: what a reader who cannot see it should know; caption: a line under it for everybody.
    Raises ValueError if alt is blank.
    """
    require_alt(alt)
    data = base64_of(small(png(picture)))
    under = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'
    bundle = {
        "text/html": f'<figure style="margin:0">{image}{under}</figure>',
        "image/png": data,  # for readers that show no HTML
        "text/plain": alt,
    }
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}})


def table(rows: Sequence[Sequence], *, header: Sequence[str], caption: str) -> None:
    """Display a small table, floats to four digits. Raises ValueError for a ragged row."""
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"row {list(row)} has {len(row)} cells, the header {len(header)}")
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *cells]
    ]
    body = "".join(_html_row("td", row) for row in cells)
    heads = _html_row('th scope="col"', header)
    page = f"<table><caption>{html.escape(caption)}</caption>{heads}{body}</table>"
    display({"text/html": page, "text/plain": "\n".join([caption, *text])}, raw=True)


def _cell(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _html_row(tag: str, cells: Sequence[str]) -> str:
    end = tag.split()[0]
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{end}>" for cell in cells) + "</tr>"


# -- plots ------------------------------------------------------------------------------------


def densities(
    x, curves: Mapping[str, Any], *, samples: Mapping[str, Any] | None = None,
    xlabel: str = "x", ylabel: str = "density", ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Curves over x (N,), {label: y (N,)}, and histograms of samples, {label: (n,)}.

    A label's first word may name a role: "model, 20 steps" is drawn as the model.
    """
    ax = ax or panels()[1][0]
    x, samples = _array(x), samples or {}
    for (label, values), look in _looks(samples):
        bins = np.linspace(x.min(), x.max(), 61).tolist()
        ax.hist(_array(values), bins, density=True, color=look["color"], alpha=0.35, label=label)
    for (label, y), look in _looks(curves):
        ax.plot(x, _array(y), label=label, **{**look, "marker": None})
    return _finish(ax, xlabel, ylabel, len(curves) + len(samples))


def lines(
    curves: Mapping[str, tuple[Any, Any]], *, xlabel: str, ylabel: str, log: bool = False,
    orders: Sequence[int] = (), ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Marked lines {label: (x, y)}; log: both axes; orders: grey guides y ~ x^-order for them."""
    ax = ax or panels()[1][0]
    for (label, (x, y)), look in _looks(curves):
        ax.plot(_array(x), _array(y), label=label, **look)
    if log:
        ax.set(xscale="log", yscale="log")
    x, y = (_array(values) for values in next(iter(curves.values())))
    for order in orders:
        guide = y[0] * (x / x[0]) ** -float(order)
        ax.plot(x, guide, color="#999999", linewidth=0.8, linestyle=(0, (1, order)))
        ax.text(x[-1], guide[-1], f"  order {order}", color="#666666", va="bottom")
    return _finish(ax, xlabel, ylabel, len(curves))


def paths(
    times, values, *, role: str = "data", xlabel: str = "t", ylabel: str = "x",
    ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Many trajectories over time: times (T,), values (T, n)."""
    ax = ax or panels()[1][0]
    values = _array(values)
    faint = max(0.08, min(1.0, 8 / values.shape[1]))
    ax.plot(_array(times), values, color=ROLE[role]["color"], lw=0.8, alpha=faint, ls="-")
    return _finish(ax, xlabel, ylabel, 1)


def field(
    points, vectors, *, contours: tuple[Any, Any] | None = None, role: str = "model",
    ax: Axes | None = None,
) -> Figure:  # fmt: skip
    """Arrows vectors (N, 2) at points (N, 2); contours: of (points (M, 2), heights (M,))."""
    ax = ax or panels(size=(4.2, 3.8))[1][0]
    if contours is not None:
        (x, y), height = _array(contours[0]).T, _array(contours[1])
        ax.tricontour(x, y, height, levels=8, colors=ROLE["data"]["color"], linewidths=0.7)
    look = {"color": ROLE[role]["color"], "angles": "xy", "width": 0.004}
    ax.quiver(*_array(points).T, *_array(vectors).T, **look)
    ax.set_aspect("equal")
    return _finish(ax, "x₁", "x₂", 1)


def scatter(
    sets: Mapping[str, Any], *, limit: float | None = None, ax: Axes | None = None
) -> Figure:
    """Points in the plane, {label: (n, 2)}; limit: show [-limit, limit] squared."""
    ax = ax or panels(size=(4.2, 3.8))[1][0]
    for (label, points), look in _looks(sets):
        small_dots = {"marker": look["marker"], "color": look["color"], "linestyle": "none"}
        ax.plot(*_array(points).T, label=label, markersize=2.5, alpha=0.6, **small_dots)
    if limit is not None:
        ax.set(xlim=(-limit, limit), ylim=(-limit, limit))
    ax.set_aspect("equal")
    return _finish(ax, "x₁", "x₂", len(sets))


def images(
    x, columns: int, *, rows: Sequence[str] = (), scale: int = 4, ax: Axes | None = None
) -> Figure:
    """A gallery of images (N, 1 or 3, H, W) in [-1, 1]; rows: a label for each row of it."""
    sheet = mosaic(x, columns, scale)
    high, wide = sheet.shape[:2]
    margin = 0.2 + 0.08 * max(map(len, rows), default=0)
    ax = ax or panels(size=(wide / 96 + margin, high / 96 + 0.1))[1][0]
    ax.imshow(sheet, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks([])
    ax.set_yticks([(k + 0.5) * high / len(rows) for k in range(len(rows))], list(rows))
    ax.tick_params(length=0)
    ax.set_anchor("E")  # room to spare is for the labels
    return _finish(ax, "", "", 1)


def heatmap(
    x, y, values, *, labels: tuple[str, str, str], cmap: str = "viridis", ax: Axes | None = None
) -> Figure:
    """values (len(y), len(x)) as colour; labels: of x, of y, of the colour (if "": no bar)."""
    ax = ax or panels()[1][0]
    look: dict[str, Any] = {"cmap": cmap, "shading": "nearest", "rasterized": True}
    mesh = ax.pcolormesh(_array(x), _array(y), _array(values), **look)
    if labels[2]:
        ax.figure.colorbar(mesh, ax=ax, label=labels[2])
    ax.grid(False)
    return _finish(ax, labels[0], labels[1], 1)


def contours(
    density: Callable[[torch.Tensor], Any], limit: float, *, ax: Axes | None = None
) -> Figure:
    """Lines of equal density on [-limit, limit] squared; density: points (N, 2) -> (N,)."""
    ax = ax or panels(size=(4.2, 3.8))[1][0]
    side = torch.linspace(-limit, limit, 81, dtype=torch.float64)
    height = _array(density(torch.cartesian_prod(side, side))).reshape(81, 81).T
    look: dict[str, Any] = {"colors": ROLE["exact"]["color"], "linewidths": 0.7, "alpha": 0.5}
    ax.contour(_array(side), _array(side), height, levels=6, **look)
    ax.set_aspect("equal")
    return _finish(ax, "x₁", "x₂", 1)


class Stage:
    """Points and paths that move before a figure that stays: the frames of a slider, drawn fast.

    figure: the background; its first axes, whose limits are kept, is where things move.

        stage = Stage(contours(density, limit=3))
        stage.draw(points, paths)  # PNG bytes, as often as you like
    """

    def __init__(self, figure: Figure, role: str = "model"):
        self._figure, ax, color = figure, figure.axes[0], ROLE[role]["color"]
        ax.autoscale_view()  # matplotlib puts this off until it draws
        ax.autoscale(False)
        self._paths = LineCollection([], colors=color, linewidths=0.8, alpha=0.7)
        ax.add_collection(self._paths, autolim=False)
        dots: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 2.5}
        (self._points,) = ax.plot([], [], color=color, alpha=0.6, **dots)

    def draw(self, points=None, paths=None) -> bytes:
        """points (n, 2) and paths (T, n, 2), or None for nothing. Returns PNG bytes."""
        self._points.set_data(*(((), ()) if points is None else _array(points).T))
        self._paths.set_segments([] if paths is None else list(_array(paths).swapaxes(0, 1)))
        return png(self._figure)


class Fan:
    """Paths and, on its side, where they end beside where they should: frames of a slider, fast.

    x (M,): the values at which the exact density is given; they are also the height of the picture.
    last: the end of the time axis. Ends beyond the picture are counted at its edge.

        fan = Fan(x, last=1.0)
        fan.draw(times, values, density)  # PNG bytes, as often as you like
    """

    def __init__(self, x, last: float, role: str = "model"):
        self._x, color = _array(x), ROLE[role]["color"]
        figure = Figure((5.6, 3.2), dpi=96, layout="constrained")
        left, self._right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        low, high = self._x.min(), self._x.max()
        left.set(xlim=(0, last), ylim=(low, high), xlabel="time u", ylabel="x")
        self._right.set(xlabel="density\n(dashed: exact)", xticks=[])  # its scale moves: no numbers
        edges = np.linspace(low, high, 61)
        look: dict[str, Any] = {"orientation": "horizontal", "color": color, "alpha": 0.35}
        self._ends = self._right.stairs(np.zeros(60), edges, fill=True, **look)
        (self._exact,) = self._right.plot([], [], **{**ROLE["exact"], "marker": None})
        self._stage = Stage(figure, role)

    def draw(self, times, values, density) -> bytes:
        """times (T,), values (T, n), of which forty are drawn, density (M,). Returns PNG bytes."""
        values, density, edges = _array(values), _array(density), self._ends.get_data().edges
        share, _ = np.histogram(values[-1].clip(edges[0], edges[-1]), edges, density=True)
        self._ends.set_data(share)
        self._exact.set_data(density, self._x)
        self._right.set_xlim(0, 1.1 * max(share.max(), density.max()))
        forty = values[:, :40]
        moments = np.broadcast_to(_array(times)[:, None], forty.shape)
        return self._stage.draw(paths=np.stack([moments, forty], 2))


def _looks(things: Mapping[str, Any]) -> Iterator[tuple[tuple[str, Any], dict[str, Any]]]:
    """Each (label, thing) with its look: its role's, or the next of the others.

    A role met again keeps its colour and changes line style and marker.
    """
    others, met = itertools.cycle(OTHERS), Counter[str]()
    for label, thing in things.items():
        role = label.replace(",", " ").split(" ")[0]
        look = ROLE.get(role) or next(others)
        again = OTHERS[met[role] % len(OTHERS)] if role in ROLE and met[role] else look
        yield (label, thing), {**again, "color": look["color"]}
        met[role] += 1


def _finish(ax: Axes, xlabel: str, ylabel: str, things: int) -> Figure:
    ax.set(xlabel=xlabel, ylabel=ylabel)
    if things > 1:
        ax.legend()
    figure = ax.get_figure(root=True)
    assert figure is not None, "an axes that we drew on has a figure"
    return figure


def _array(values) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().numpy()
