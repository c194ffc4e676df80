"""Pictures as bytes: mosaics of images, figures as PNG, small palettes, strips of stills.

Same input, same bytes: nothing here writes a date, a version or a random name into a file.
"""

import base64
import io
import itertools
import math
import threading
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")  # it has ω
GAP, EMPTY = 160, 255  # grey levels between images, where strokes are white, and of missing ones
VISIBLE, RARE = 24, 0.004  # a palette may move one pixel in 250 by more than 24 of 255
_pen = threading.Lock()  # matplotlib's figures share parsers and font caches: draw one at a time


def mosaic(images, columns: int, scale: int = 1) -> np.ndarray:
    """Images side by side, row by row, between grey lines, as bytes for `png`.

    images: (N, 1 or 3, H, W) in [-1, 1], -1 black and 1 white; what lies beyond is shown as black
    or white. scale: pixels per pixel. Returns uint8 (h, w) or (h, w, 3). Raises ValueError for
    another shape, for NaN, and for columns or scale below 1.
    """
    x = torch.as_tensor(images).detach().cpu().float().numpy()
    if x.ndim != 4 or x.shape[1] not in (1, 3) or 0 in x.shape:
        raise ValueError(f"images must be (N, 1 or 3, H, W), got {tuple(x.shape)}")
    if columns < 1 or scale < 1:
        raise ValueError(f"columns and scale must be at least 1, got {columns} and {scale}")
    if np.isnan(x).any():
        raise ValueError("the images hold NaN, which no grey level can show: find where it arises")
    n, c, h, w = x.shape
    rows = -(-n // columns)
    cells = np.full((rows * columns, h + 1, w + 1, c), GAP, np.uint8)  # one grey line per image
    cells[n:, :h, :w] = EMPTY
    cells[:n, :h, :w] = np.rint((x.clip(-1, 1) + 1) * 127.5).transpose(0, 2, 3, 1)
    sheet = cells.reshape(rows, columns, h + 1, w + 1, c).swapaxes(1, 2)  # (rows, h+1, columns, ..)
    sheet = sheet.reshape(rows * (h + 1), columns * (w + 1), c)[:-1, :-1]
    sheet = sheet.repeat(scale, 0).repeat(scale, 1)
    return sheet[..., 0] if c == 1 else sheet


def png(picture: Figure | np.ndarray) -> bytes:
    """A figure, or a uint8 array (h, w) or (h, w, 3), as PNG bytes; fast rather than small.

    Under a slider keep one figure and move its artists: a new one costs several times as much. From
    its first drawing on a figure keeps its layout, so that axes and legends stand still (and draw
    faster).
    """
    out = io.BytesIO()
    quick = {"compress_level": 1}
    if isinstance(picture, Figure):
        with _pen:
            picture.savefig(out, format="png", metadata={"Software": None}, pil_kwargs=quick)
            picture.set_layout_engine("none")
            _hold_legends(picture)
    else:
        Image.fromarray(picture).save(out, "png", compress_level=1)
    return out.getvalue()


def _hold_legends(figure: Figure) -> None:
    """Fix legends where they are: matplotlib looks for the emptiest corner anew at each drawing."""
    for ax in figure.axes:
        if legend := ax.get_legend():
            corner = ax.transAxes.inverted().transform(legend.get_window_extent().p0)
            legend.set_loc(tuple(corner))


def palette(picture: bytes, colours: int) -> bytes:
    """The same PNG with at most `colours` (2 to 256) colours, as small as it gets."""
    with Image.open(io.BytesIO(picture)) as image:
        few = image.convert("RGB").quantize(colours)
    out = io.BytesIO()
    few.save(out, "png", optimize=True)
    return out.getvalue()


def small(picture: bytes) -> bytes:
    """The same PNG in few colours if the eye cannot tell, else unchanged but packed tighter."""
    few, whole = palette(picture, 256), _pixels(picture)
    off = np.abs(_pixels(few).astype(int) - whole).max(-1) > VISIBLE
    if off.mean() <= RARE:
        return few
    out = io.BytesIO()
    Image.fromarray(whole).save(out, "png", optimize=True)
    return out.getvalue()


def strip(pictures: Sequence[bytes], labels: Sequence[str], size: int = 240) -> bytes:
    """A few PNGs side by side, each within size x size pixels under its label, as one small PNG."""
    tiles = [_titled(_pixels(p), label, size) for p, label in zip(pictures, labels, strict=True)]
    ends = list(itertools.accumulate(tile.width for tile in tiles))
    sheet = Image.new("RGB", (ends[-1], max(tile.height for tile in tiles)), "white")
    for tile, end in zip(tiles, ends, strict=True):
        sheet.paste(tile, (end - tile.width, 0))
    return palette(png(np.asarray(sheet)), 64)


def _titled(pixels: np.ndarray, label: str, size: int) -> Image.Image:
    font, image = ImageFont.truetype(FONT, 13), Image.fromarray(pixels)
    image.thumbnail((size, size))
    width = max(image.width, math.ceil(font.getlength(label))) + 8
    tile = Image.new("RGB", (width, image.height + 20), "white")
    ImageDraw.Draw(tile).text((2, 1), label, "black", font)
    tile.paste(image, (0, 20))
    return tile


def base64_of(picture: bytes) -> str:
    """PNG bytes as text, for HTML and notebook outputs."""
    return base64.b64encode(picture).decode()


def require_alt(alt: str) -> None:
    """Raises ValueError if `alt` is blank: a picture must also be told in words."""
    if not alt.strip():
        raise ValueError("alt is empty: say in one sentence what the picture shows")


def _pixels(picture: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"))
