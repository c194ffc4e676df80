"""Laws of pictures and figures: same input, same bytes; every picture in words."""

import base64
import io

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from PIL import Image

from didiff.notebook import pictures, plots

DOT = torch.tensor([[[[-1.0, 0.0], [0.5, 1.0]]]])  # one 2 x 2 image


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def cloud(n=300, seed=0):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def displayed(monkeypatch):
    outputs = []
    monkeypatch.setattr(
        plots, "display", lambda bundle, raw, metadata=None: outputs.append((bundle, metadata))
    )
    return outputs


def a_figure():
    return plots.scatter({"data": cloud(), "model": cloud(seed=1)}, limit=4.0)


GRID = torch.cartesian_prod(torch.linspace(-2, 2, 9), torch.linspace(-2, 2, 9))
T, X = torch.linspace(0, 1, 20, dtype=torch.float64), torch.linspace(-3, 3, 31)
FIGURES = {
    "densities": lambda: plots.densities(X, {"exact": X**2}, samples={"model": cloud()[:, 0]}),
    "lines": lambda: plots.lines(
        {"ddim": (T + 1, 1 / (T + 1)), "heun": (T + 1, 1 / (T + 1) ** 2)},
        xlabel="evaluations", ylabel="error", log=True, orders=(1, 2),
    ),
    "paths": lambda: plots.paths(T, cloud(20)),
    "field": lambda: plots.field(GRID, -GRID, contours=(GRID, GRID.norm(dim=1))),
    "scatter": a_figure,
    "images": lambda: plots.images(torch.zeros(6, 1, 8, 8), 3, rows=["ω = 0", "ω = 3"]),
    "heatmap": lambda: plots.heatmap(T, X, torch.outer(X, T.float()), labels=("t", "x", "density")),
    "contours": lambda: plots.contours(lambda x: (-x.square().sum(1)).exp(), 2.0),
}  # fmt: skip


# -- mosaics ----------------------------------------------------------------------------------


def test_a_mosaic_maps_black_to_0_and_white_to_255():
    assert pictures.mosaic(DOT, 1).tolist() == [[0, 128], [191, 255]]


def test_a_mosaic_fills_rows_first_with_white_lines_between():
    values = torch.tensor([-1.0, -0.5, 0.0]).view(3, 1, 1, 1)
    assert pictures.mosaic(values, 2).tolist() == [[0, 255, 64], [255] * 3, [128, 255, 255]]


def test_scaling_repeats_pixels():
    sheet = pictures.mosaic(DOT, 1, scale=3)
    assert sheet.shape == (6, 6)
    assert (sheet[::3, ::3] == pictures.mosaic(DOT, 1)).all()
    assert (sheet == sheet[::3, ::3].repeat(3, 0).repeat(3, 1)).all()


def test_colour_images_keep_their_channels():
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1)
    assert pictures.mosaic(red, 1).tolist() == [[[255, 0, 0]]]


def test_what_lies_beyond_white_is_white():
    assert (pictures.mosaic(10 * DOT, 1) == pictures.mosaic(DOT.sign(), 1)).all()


@pytest.mark.parametrize(
    ("images", "columns", "scale", "message"),
    [
        (torch.zeros(2, 8, 8), 1, 1, r"\(2, 8, 8\)"),
        (torch.zeros(2, 2, 8, 8), 1, 1, r"\(2, 2, 8, 8\)"),
        (torch.zeros(0, 1, 8, 8), 1, 1, r"\(0, 1, 8, 8\)"),
        (DOT, 0, 1, "columns"),
        (DOT, 1, 0, "scale"),
        (DOT * float("nan"), 1, 1, "NaN"),
    ],
)
def test_an_impossible_mosaic_is_refused(images, columns, scale, message):
    with pytest.raises(ValueError, match=message):
        pictures.mosaic(images, columns, scale)


def test_a_gradient_does_not_hinder_a_picture():
    assert pictures.mosaic(DOT.clone().requires_grad_(), 1).shape == (2, 2)


# -- bytes ------------------------------------------------------------------------------------


def test_a_mosaic_survives_its_png():
    sheet = pictures.mosaic(torch.rand(6, 3, 8, 8) * 2 - 1, 3, 2)
    assert (pixels(pictures.png(sheet)) == sheet).all()


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_figure_gives_the_same_bytes_and_no_version(name):
    first, second = pictures.png(FIGURES[name]()), pictures.png(FIGURES[name]())
    assert first == second
    assert b"atplotlib" not in first


def test_the_axes_stand_still_when_the_tick_labels_grow():
    figure, (ax,) = plots.panels()
    pictures.png(figure)
    before = ax.get_position().bounds
    ax.set_ylim(0, 1e-3)
    ax.set_ylabel("two\nlines")
    pictures.png(figure)
    assert ax.get_position().bounds == before


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_drawn_twice_gives_the_same_bytes(name):
    figure = FIGURES[name]()
    assert pictures.png(figure) == pictures.png(figure)


@pytest.mark.parametrize("name", FIGURES)
def test_a_small_picture_is_smaller_and_looks_the_same(name):
    data = pictures.png(FIGURES[name]())
    small = pictures.small(data)
    assert len(small) < len(data)
    gap = np.abs(pixels(small).astype(int) - pixels(data)).max(-1)
    assert np.mean(gap > pictures.VISIBLE) <= pictures.RARE


def test_a_photograph_keeps_its_colours():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert (pixels(pictures.small(pictures.png(noise))) == noise).all()


def test_a_palette_has_no_more_colours_than_asked():
    data = pictures.palette(pictures.png(a_figure()), 16)
    assert len(np.unique(pixels(data).reshape(-1, 3), axis=0)) <= 16


def test_a_strip_shows_every_still_beside_the_next():
    stills = [pictures.png(np.full((80, 100), grey, np.uint8)) for grey in (0, 128)]
    sheet = pixels(pictures.strip(stills, ["ω = 0", "ω = 1"], size=50))
    assert sheet.shape == (20 + 40, 2 * (50 + 8), 3)
    assert (sheet[20:, :50] == 0).all()
    assert (sheet[20:, 58:108] == 128).all()
    assert sheet[:20].min() < 128, "the labels are written"


# -- display ----------------------------------------------------------------------------------


def test_a_shown_figure_is_told_in_words_in_every_face(displayed):
    plots.show(a_figure(), alt='two clouds, "apart" & <near>', caption="ω < 1")
    bundle, metadata = displayed[0]
    assert 'alt="two clouds, &quot;apart&quot; &amp; &lt;near&gt;"' in bundle["text/html"]
    assert "<figcaption>ω &lt; 1</figcaption>" in bundle["text/html"]
    assert metadata["image/png"]["alt"] == bundle["text/plain"] == 'two clouds, "apart" & <near>'
    assert bundle["image/png"] in bundle["text/html"]
    assert pixels(base64.b64decode(bundle["image/png"])).shape[2] == 3


def test_a_mosaic_can_be_shown_without_a_figure(displayed):
    plots.show(pictures.mosaic(DOT, 1, 4), alt="four squares")
    assert pixels(base64.b64decode(displayed[0][0]["image/png"])).shape == (8, 8, 3)
    assert "figcaption" not in displayed[0][0]["text/html"]


def test_alt_text_is_required(displayed):
    with pytest.raises(ValueError, match="alt is empty"):
        plots.show(a_figure(), alt=" ")
    with pytest.raises(TypeError, match="alt"):
        plots.show(a_figure())
    assert not displayed


def test_a_table_reads_as_a_page_and_as_text(displayed):
    plots.table([["ddim", 0.123456, 20], ["<b>", 1e-9, 4]], header=["a", "err", "n"], caption="c")
    bundle = displayed[0][0]
    assert bundle["text/plain"].splitlines() == [
        "c", "a     err     n", "ddim  0.1235  20", "<b>   1e-09   4",
    ]  # fmt: skip
    assert '<th scope="col">err</th>' in bundle["text/html"]
    assert "<td>&lt;b&gt;</td><td>1e-09</td>" in bundle["text/html"]


def test_a_row_of_another_length_is_refused(displayed):
    with pytest.raises(ValueError, match="2 cells, the header 1"):
        plots.table([[1, 2]], header=["a"], caption="c")


# -- roles ------------------------------------------------------------------------------------


def drawn(labels):
    axes = plots.lines({k: ([1.0, 2.0], [1.0, 2.0]) for k in labels}, xlabel="x", ylabel="y").axes
    return {line.get_label(): line for line in axes[0].get_lines()}


def test_no_two_roles_share_a_colour_or_a_marker():
    for key in ("color", "marker"):
        assert len({look[key] for look in plots.ROLE.values()}) == len(plots.ROLE)


def test_the_first_word_of_a_label_names_its_role():
    line = drawn(["model, 20 steps"])["model, 20 steps"]
    assert (to_hex(line.get_color()), line.get_linestyle()) == ("#d55e00", "-.")


def test_a_role_met_again_keeps_its_colour_and_changes_its_line():
    first, second = drawn(["model", "model 2"]).values()
    assert first.get_color() == second.get_color()
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_marker() != second.get_marker()


def test_labels_without_a_role_differ_by_colour_and_marker():
    lines = drawn(["ddim", "heun", "ddpm"]).values()
    assert len({line.get_color() for line in lines}) == 3
    assert len({line.get_marker() for line in lines}) == 3


def test_a_plot_can_be_drawn_into_a_given_panel():
    figure, (left, right) = plots.panels(2)
    assert plots.paths(T, cloud(20), ax=right) is figure
    assert (len(left.lines), len(right.lines)) == (0, 2)


def test_an_order_guide_has_the_slope_it_names():
    line = FIGURES["lines"]().axes[0].get_lines()[-1]
    x, y = line.get_data()
    assert np.diff(np.log(y)) / np.diff(np.log(x)) == pytest.approx(-2.0)


@pytest.mark.parametrize("rows", [["ω = 0", "ω = 3"], ["noisy, step 700", "nearest neighbour"]])
@pytest.mark.parametrize("columns", [3, 12, 30])
def test_the_labels_of_a_gallery_lie_inside_it(rows, columns):
    gallery = plots.images(torch.zeros(2 * columns, 1, 8, 8), columns, rows=rows)
    pictures.png(gallery)
    assert all(y.get_window_extent().x0 >= 0 for y in gallery.axes[0].get_yticklabels())


def test_contours_are_circles_of_a_round_density_seen_with_x_to_the_right():
    round_about = plots.contours(lambda x: -(x - torch.tensor([1.0, 0.0])).norm(dim=1), 3.0)
    drawn = [p.vertices for p in round_about.axes[0].collections[0].get_paths() if len(p.vertices)]
    distance = np.linalg.norm(drawn[-1] - [1.0, 0.0], axis=1)  # of the highest, the smallest circle
    assert distance == pytest.approx(distance.mean(), abs=0.08)


def test_a_heatmap_has_a_colour_bar_if_the_colour_has_a_name():
    for name, axes in {"density": 2, "": 1}.items():
        figure = plots.heatmap(T, X, torch.outer(X, T.float()), labels=("t", "x", name))
        assert len(figure.axes) == axes


def test_a_stage_forgets_what_it_drew_and_keeps_its_background():
    stage = plots.Stage(FIGURES["contours"]())
    empty = stage.draw()
    far = stage.draw(1e6 + cloud(), torch.stack([1e6 + cloud(), 1e6 + cloud(seed=1)]))
    assert pixels(far).tolist() == pixels(empty).tolist(), "the limits stay"
    assert stage.draw(cloud()) != empty
    assert stage.draw(paths=torch.stack([cloud(5), -cloud(5)])) != empty
    assert stage.draw() == empty


def test_a_fan_shows_the_share_of_the_ends_and_keeps_those_that_leave_at_its_edge():
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    fan, flat = plots.Fan(x, last=1.0), torch.full_like(x, 0.25)
    times, ends = torch.tensor([0.0, 1.0]), torch.tensor([-1.99, 0.01, 0.01, 7.0])
    picture = fan.draw(times, torch.stack([0 * ends, ends]), flat)
    stairs = fan._ends.get_data()
    assert (stairs.values * np.diff(stairs.edges)).sum() == pytest.approx(1)
    assert stairs.values[[0, 30, -1]] / stairs.values[0] == pytest.approx([1, 2, 1])
    assert fan.draw(times, torch.stack([0 * ends, -ends]), flat) != picture
    assert fan.draw(times, torch.stack([0 * ends, ends]), flat) == picture


def test_style_sets_quiet_axes_and_the_roles_colours():
    import matplotlib

    with matplotlib.rc_context():
        plots.style()
        assert not matplotlib.rcParams["axes.spines.top"]
        cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
        assert cycle == [look["color"] for look in plots.ROLE.values()]


def test_a_stage_over_curves_shows_all_of_them():
    """matplotlib finds its limits when it first draws; a stage must not freeze them before."""
    figure = plots.lines({"a": ([0.0, 5.0], [10.0, 20.0])}, xlabel="x", ylabel="y")
    plots.Stage(figure)
    assert figure.axes[0].get_xlim()[1] > 5
    assert figure.axes[0].get_ylim()[0] < 10
