"""Laws of pictures as bytes: mosaics, figures as PNG, few colours, strips of stills."""

import base64
import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from didiff.notebook import pictures
from didiff.notebook.pictures import EMPTY, GAP

DOT = torch.tensor([[[[-1.0, 0.0], [0.5, 1.0]]]])  # one 2 x 2 image


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def a_figure() -> Figure:
    """Two crossing lines and the words for them; its corners are equally empty."""
    figure = Figure((3, 2), layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 1], [0, 1], label="up")
    ax.plot([0, 1], [1, 0], label="down")
    ax.legend()
    return figure


# -- mosaics ----------------------------------------------------------------------------------


def test_a_mosaic_maps_black_to_0_and_white_to_255():
    assert pictures.mosaic(DOT, 1).tolist() == [[0, 128], [191, 255]]


def test_a_mosaic_fills_rows_first_with_grey_lines_between_and_white_for_what_is_missing():
    values = torch.tensor([-1.0, -0.5, 0.0]).view(3, 1, 1, 1)
    wanted = [[0, GAP, 64], [GAP] * 3, [128, GAP, EMPTY]]
    assert pictures.mosaic(values, 2).tolist() == wanted


def test_the_lines_between_images_differ_from_black_and_from_white():
    """White strokes of neighbours would run together, and black grounds too."""
    assert 64 < GAP < 192
    assert EMPTY == 255  # no image: the page


def test_images_of_several_pixels_keep_their_places():
    x = torch.arange(4 * 2 * 3).reshape(4, 1, 2, 3) / 12 - 1  # 255 / 24 grey levels apart
    sheet = pictures.mosaic(x, 2)
    assert sheet.shape == (2 + 1 + 2, 3 + 1 + 3)
    grey = np.rint((x.numpy() + 1) * 127.5)[:, 0]
    for k, (row, column) in enumerate([(0, 0), (0, 4), (3, 0), (3, 4)]):
        assert (sheet[row : row + 2, column : column + 3] == grey[k]).all()
    assert (sheet[2] == GAP).all()
    assert (sheet[:, 3] == GAP).all()


def test_a_row_that_is_not_full_is_as_wide_as_asked():
    assert pictures.mosaic(DOT, 3).shape == (2, 3 + 2 * 2 + 1)


def test_scaling_repeats_pixels():
    sheet = pictures.mosaic(DOT, 1, scale=3)
    assert sheet.shape == (6, 6)
    assert (sheet == pictures.mosaic(DOT, 1).repeat(3, 0).repeat(3, 1)).all()


def test_colour_images_keep_their_channels():
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    assert pictures.mosaic(red, 1).tolist() == [[[255, 0, 0]]]


def test_what_lies_beyond_black_and_white_is_black_and_white():
    assert (pictures.mosaic(10 * DOT, 1) == [[0, 128], [255, 255]]).all()
    assert (pictures.mosaic(torch.full((1, 1, 1, 1), -torch.inf), 1) == 0).all()


@pytest.mark.parametrize(
    ("images", "columns", "scale", "message"),
    [
        (torch.zeros(2, 8, 8), 1, 1, r"\(2, 8, 8\)"),
        (torch.zeros(2, 2, 8, 8), 1, 1, r"\(2, 2, 8, 8\)"),
        (torch.zeros(0, 1, 8, 8), 1, 1, r"\(0, 1, 8, 8\)"),
        (torch.zeros(2, 1, 0, 8), 1, 1, r"\(2, 1, 0, 8\)"),
        (DOT, 0, 1, "at least 1, got 0 and 1"),
        (DOT, 1, 0, "at least 1, got 1 and 0"),
        (DOT * float("nan"), 1, 1, "NaN"),
    ],
)
def test_an_impossible_mosaic_is_refused(images, columns, scale, message):
    with pytest.raises(ValueError, match=message):
        pictures.mosaic(images, columns, scale)


def test_a_gradient_does_not_hinder_a_picture():
    assert pictures.mosaic(DOT.clone().requires_grad_(), 1).shape == (2, 2)


# -- bytes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mosaic_survives_its_png(channels):
    x = torch.rand(6, channels, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sheet = pictures.mosaic(x, 3, 2)
    assert (pixels(pictures.png(sheet)) == sheet.reshape(*sheet.shape[:2], channels)).all()


def test_a_figure_is_as_large_as_it_says_and_tells_no_version():
    data = pictures.png(a_figure())
    assert pixels(data).shape == (200, 300, 3)
    assert b"atplotlib" not in data


def test_the_axes_stand_still_when_the_tick_labels_grow():
    figure = a_figure()
    pictures.png(figure)
    (ax,) = figure.axes
    before = ax.get_position().bounds
    ax.set_ylim(0, 1e-3)
    ax.set_ylabel("two\nlines")
    pictures.png(figure)
    assert ax.get_position().bounds == before


@pytest.mark.parametrize(("first", "then"), [((0, 0), (1, 1)), ((1, 1), (0, 0))])
def test_a_legend_stands_still_when_the_lines_move(first, then):
    """Both lines lie at the bottom, then at the top: the emptiest corner is another."""
    figure = a_figure()
    (ax,) = figure.axes
    ax.set(ylim=(-0.1, 1.1))

    def places(ys):
        for line in ax.lines:
            line.set_ydata(ys)
        pictures.png(figure)
        return ax.get_legend().get_window_extent().bounds

    assert places(first) == pytest.approx(places(then), abs=1e-6)


def test_a_legend_begins_where_the_figure_is_emptiest():
    figure = a_figure()
    for line in figure.axes[0].lines:
        line.set_ydata([1, 1])
    figure.axes[0].set(ylim=(-0.1, 1.1))
    pictures.png(figure)
    assert figure.axes[0].get_legend().get_window_extent().y1 < 100  # of 200, from below


def test_figures_are_drawn_one_at_a_time(monkeypatch):
    """Threads that draw share matplotlib's parsers and font caches."""
    seen = []

    class Pen:
        def __enter__(self):
            seen.append("taken")

        def __exit__(self, *_):
            seen.append("given back")

    savefig = Figure.savefig
    monkeypatch.setattr(pictures, "_pen", Pen())
    monkeypatch.setattr(Figure, "savefig", lambda *a, **k: [seen.append("drawn"), savefig(*a, **k)])
    pictures.png(a_figure())
    assert seen == ["taken", "drawn", "given back"]


def confetti() -> np.ndarray:
    """A thousand shades of a sky, and a pixel in fifty of any colour: too rare for a palette."""
    chance = np.random.default_rng(0)
    blue, green = np.meshgrid(np.arange(100), np.arange(100))
    sheet = np.stack([np.full_like(blue, 60), green, 100 + blue], 2).astype(np.uint8)
    few = chance.random((100, 100)) < 0.02
    sheet[few] = chance.integers(0, 256, (few.sum(), 3))
    return sheet


def dust() -> np.ndarray:
    """The same sky with faint dust: one pixel in fifty is redder by 30 to 60 of 255."""
    chance = np.random.default_rng(0)
    blue, green = np.meshgrid(np.arange(100), np.arange(100))
    red = 60 + (chance.random((100, 100)) < 0.02) * chance.integers(30, 60, (100, 100))
    return np.stack([red, green, 100 + blue], 2).astype(np.uint8)


def a_photograph() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


@pytest.mark.parametrize("picture", [a_figure, confetti, dust, a_photograph])
def test_a_small_picture_looks_the_same(picture):
    data = pictures.png(picture())
    gap = np.abs(pixels(pictures.small(data)).astype(int) - pixels(data)).max(-1)
    assert np.mean(gap > 24) <= 1 / 250


def test_a_figure_becomes_half_as_large_and_a_photograph_keeps_its_colours():
    figure = pictures.png(a_figure())
    assert len(pictures.small(figure)) < len(figure) / 2
    photograph = a_photograph()
    assert (pixels(pictures.small(pictures.png(photograph))) == photograph).all()


@pytest.mark.parametrize("colours", [2, 16])
def test_a_palette_has_as_many_colours_as_asked(colours):
    few = pixels(pictures.palette(pictures.png(a_photograph()), colours))
    assert len(np.unique(few.reshape(-1, 3), axis=0)) == colours


def test_a_strip_shows_every_still_beside_the_next_under_its_label():
    stills = [pictures.png(np.full((80, 100), grey, np.uint8)) for grey in (0, 128)]
    sheet = pixels(pictures.strip(stills, ["ω = 0", "ω = 1"], size=50))
    assert sheet.shape == (20 + 40, 2 * (50 + 8), 3)
    assert (sheet[20:, :50] == 0).all()
    assert (sheet[20:, 58:108] == 128).all()
    assert (sheet[20:, 50:58] == 255).all()
    for left in (0, 58):
        assert sheet[:20, left : left + 58].min() < 128, "the label is written"
    assert (sheet[:20, :58] != sheet[:20, 58:]).any(), "each has its own"


def test_a_label_that_is_wider_than_its_still_is_not_cut():
    still = pictures.png(np.zeros((10, 10), np.uint8))
    narrow, wide = (
        pixels(pictures.strip([still], [words])) for words in ("x", "guidance scale ω = 3.5")
    )
    assert wide.shape[1] > 5 * narrow.shape[1]
    assert (wide[:20, -6:] == 255).all(), "the text ends before the edge"
    assert wide[:20, -40:].min() < 128


def test_a_still_without_a_label_is_refused():
    still = pictures.png(np.zeros((10, 10), np.uint8))
    with pytest.raises(ValueError, match="shorter"):
        pictures.strip([still, still], ["one"])


def test_bytes_as_text_can_be_read_back():
    assert base64.b64decode(pictures.base64_of(b"\x89PNG")) == b"\x89PNG"


def test_a_picture_must_be_told_in_words():
    pictures.require_alt("two clouds")
    for alt in ("", " \n"):
        with pytest.raises(ValueError, match="alt is empty: say in one sentence"):
            pictures.require_alt(alt)
