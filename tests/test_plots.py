"""Laws of figures: what their artists show, colours by role, every picture in words."""

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


# -- what the artists show --------------------------------------------------------------------


def legend(ax) -> list[str] | None:
    found = ax.get_legend()
    return found and [text.get_text() for text in found.get_texts()]


def test_a_histogram_has_area_1_in_the_colour_of_its_role():
    values = torch.tensor([-2.95, -2.95, 0.01, 2.95, 7.0])  # 7 lies outside of the picture
    (ax,) = plots.densities(X, {"exact": X**2}, samples={"model": values}).axes
    heights = [bar.get_height() for bar in ax.patches]
    widths = [bar.get_width() for bar in ax.patches]
    assert sum(h * w for h, w in zip(heights, widths, strict=True)) == pytest.approx(1)
    assert len(heights) == 60
    assert widths == pytest.approx([0.1] * 60, abs=1e-5)
    assert ax.patches[0].get_x() == pytest.approx(-3)
    tenths = [heights[k] for k in (0, 1, 30, 59)]  # of those inside: 2, 0, 1 and 1 of 4
    assert tenths == pytest.approx([5, 0, 2.5, 2.5], rel=1e-4)
    assert to_hex(ax.patches[0].get_facecolor()) == plots.ROLE["model"]["color"].lower()
    assert ax.patches[0].get_alpha() == 0.35


def test_densities_are_curves_without_markers_over_their_words():
    curves = {"exact": X**2, "model": X.abs()}
    (ax,) = plots.densities(X, curves, samples={"data": X}, xlabel="noisy x").axes
    for line, (label, y) in zip(ax.lines, curves.items(), strict=True):
        assert (line.get_xdata() == X.numpy()).all()
        assert (line.get_ydata() == y.numpy()).all()
        assert (line.get_label(), line.get_marker()) == (label, "None")
        assert line.get_linestyle() == plots.ROLE[label]["linestyle"]
    assert sorted(legend(ax)) == ["data", "exact", "model"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("noisy x", "density")


def test_one_thing_needs_no_legend():
    assert legend(plots.densities(X, {"exact": X}).axes[0]) is None
    assert legend(plots.densities(X, {"exact": X}, samples={"data": X}).axes[0])
    assert legend(plots.scatter({"data": cloud()}).axes[0]) is None
    assert legend(plots.lines({"a": (X, X)}, xlabel="x", ylabel="y").axes[0]) is None


def test_lines_pass_through_their_points_with_the_marks_of_their_roles():
    curves = {"model": (T, T**2), "exact": (X, X)}
    (ax,) = plots.lines(curves, xlabel="steps", ylabel="error").axes
    for line, (label, (x, y)) in zip(ax.lines, curves.items(), strict=True):
        assert np.array_equal(line.get_xdata(), x.numpy())
        assert np.array_equal(line.get_ydata(), y.numpy())
        assert line.get_marker() == plots.ROLE[label]["marker"]
    assert legend(ax) == ["model", "exact"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("steps", "error")
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "linear")


def test_guides_begin_at_the_first_curve_and_fall_as_their_words_say():
    (ax,) = FIGURES["lines"]().axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert legend(ax) == ["ddim", "heun"], "guides say themselves what they are"
    for order, guide, words in zip((1, 2), ax.lines[2:], ax.texts, strict=True):
        x, y = guide.get_data()
        assert (x[0], y[0]) == (1, 1)
        assert (x[-1], y[-1]) == pytest.approx((2, 0.5**order))
        assert (words.get_text().strip(), words.get_position()) == (
            f"order {order}",
            (x[-1], y[-1]),
        )


@pytest.mark.parametrize(("n", "alpha"), [(1, 1.0), (20, 0.4), (200, 0.08)])
def test_paths_are_fainter_the_more_there_are(n, alpha):
    (ax,) = plots.paths(T, cloud(20)[:, :1].repeat(1, n), role="noise", xlabel="u").axes
    assert len(ax.lines) == n
    for line in (ax.lines[0], ax.lines[-1]):
        assert np.array_equal(line.get_data(), (T.numpy(), cloud(20)[:, 0].numpy()))
        assert (line.get_alpha(), line.get_linestyle()) == (alpha, "-")
        assert line.get_color() == plots.ROLE["noise"]["color"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("u", "x")


def test_arrows_start_at_their_points_and_show_their_vectors():
    vectors = torch.stack([GRID[:, 1], 2 * GRID[:, 0]], 1)
    (ax,) = plots.field(GRID, vectors, role="guidance").axes
    (arrows,) = ax.collections
    assert np.array_equal(arrows.get_offsets(), GRID.numpy())
    assert np.array_equal(np.stack([arrows.U, arrows.V], 1), vectors.numpy())
    assert arrows.angles == "xy", "an arrow points where it leads, whatever the axes' scales"
    assert to_hex(arrows.get_facecolor()[0]) == plots.ROLE["guidance"]["color"].lower()
    assert ax.get_aspect() == 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x₁", "x₂")


def outlines(collection) -> list[np.ndarray]:
    return [path.vertices for path in collection.get_paths() if len(path.vertices)]


def test_contours_behind_arrows_are_those_of_their_heights():
    height = (GRID - torch.tensor([1.0, 0.0])).norm(dim=1)
    (ax,) = plots.field(GRID, GRID, contours=(GRID, -height)).axes
    levels, _ = ax.collections
    peak = outlines(levels)[-1].mean(0)
    assert peak == pytest.approx([1.0, 0.0], abs=0.25)  # half a step of the grid
    assert to_hex(levels.get_edgecolor()[0]) == plots.ROLE["data"]["color"].lower()


def test_a_scatter_shows_every_point_and_no_line():
    sets = {"data": cloud(), "model": cloud(seed=1)}
    (ax,) = plots.scatter(sets, limit=4.0).axes
    for dots, (label, points) in zip(ax.lines, sets.items(), strict=True):
        assert np.array_equal(np.stack(dots.get_data(), 1), points.numpy())
        assert (dots.get_linestyle(), dots.get_marker()) == ("None", plots.ROLE[label]["marker"])
        assert dots.get_color() == plots.ROLE[label]["color"]
    assert (ax.get_xlim(), ax.get_ylim(), ax.get_aspect()) == ((-4, 4), (-4, 4), 1)
    assert legend(ax) == ["data", "model"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x₁", "x₂")
    assert plots.scatter({"data": 9 * cloud()}).axes[0].get_xlim()[1] > 9, "without a limit: all"


@pytest.mark.parametrize(("count", "columns"), [(6, 3), (6, 2), (5, 5)])
def test_every_row_of_a_gallery_is_labelled_at_its_middle(count, columns):
    x = torch.linspace(-0.8, -0.2, count).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)  # not white
    words = [f"ω = {k}" for k in range(count // columns)]
    (ax,) = plots.images(x, columns, rows=words, scale=4).axes
    (sheet,) = ax.get_images()
    assert np.array_equal(sheet.get_array(), pictures.mosaic(x, columns, 4))
    assert [label.get_text() for label in ax.get_yticklabels()] == words
    for k, middle in enumerate(ax.get_yticks()):
        assert middle == pytest.approx(36 * k + 16, abs=2.5)  # a row is 32 pixels, a line is 4
    assert len(ax.get_xticks()) == 0
    assert (sheet.cmap.name, sheet.get_clim()) == ("gray", (0, 255))
    assert sheet.get_interpolation() == "nearest"
    assert not any(spine.get_visible() for spine in ax.spines.values())


def test_a_gallery_without_words_shows_its_pixels_one_to_one():
    x = torch.zeros(6, 1, 8, 8)
    (ax,) = (figure := plots.images(x, 3)).axes
    pictures.png(figure)
    high, wide = pictures.mosaic(x, 3, 4).shape
    box = ax.get_window_extent()
    assert (box.width, box.height) == pytest.approx((wide, high), rel=0.05)
    assert len(ax.get_yticks()) == 0


def test_a_heatmap_colours_the_value_at_x_and_y():
    values = torch.outer(X, T.float())
    figure = plots.heatmap(T, X, values, labels=("t", "x", "density"), cmap="cividis")
    ax, bar = figure.axes
    (mesh,) = ax.collections
    assert np.array_equal(mesh.get_array(), values.numpy())
    assert mesh.cmap.name == "cividis"
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    assert (left, right) == pytest.approx((-0.5 / 19, 1 + 0.5 / 19)), (
        "x lies in the middle of a cell"
    )
    assert (low, high) == pytest.approx((-3.1, 3.1))
    assert (ax.get_xlabel(), ax.get_ylabel(), bar.get_ylabel()) == ("t", "x", "density")


# -- bytes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_made_or_drawn_again_gives_the_same_bytes(name):
    figure = FIGURES[name]()
    data = pictures.png(figure)
    assert pictures.png(figure) == data
    assert pictures.png(FIGURES[name]()) == data


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
    assert "<caption>c</caption>" in bundle["text/html"]
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


def test_colours_are_those_that_colour_blind_readers_tell_apart():
    """Okabe and Ito 2008, without their yellow, too light for a line, and with a grey."""
    names = ["#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"]
    assert {look["color"] for look in plots.OTHERS} <= set(names)
    assert {look["color"] for look in plots.ROLE.values()} <= {*names, "#999999"}
    assert plots.ROLE["data"]["color"] == "#0072B2"
    assert plots.ROLE["model"]["color"] == "#D55E00"


def test_the_first_word_of_a_label_names_its_role():
    line = drawn(["model, 20 steps"])["model, 20 steps"]
    assert (to_hex(line.get_color()), line.get_linestyle()) == ("#d55e00", "-.")


def test_a_role_met_again_keeps_its_colour_and_changes_its_line():
    first, second = drawn(["model", "model 2"]).values()
    assert first.get_color() == second.get_color()
    assert first.get_linestyle() != second.get_linestyle()
    assert first.get_marker() != second.get_marker()


def test_a_role_does_not_use_up_the_look_of_another_label():
    assert drawn(["model", "a"])["a"].get_color() == drawn(["a"])["a"].get_color()


def test_labels_without_a_role_differ_by_colour_and_marker():
    lines = drawn(["ddim", "heun", "ddpm"]).values()
    assert len({line.get_color() for line in lines}) == 3
    assert len({line.get_marker() for line in lines}) == 3


def test_a_plot_can_be_drawn_into_a_given_panel():
    figure, (left, right) = plots.panels(2)
    assert plots.paths(T, cloud(20), ax=right) is figure
    assert (len(left.lines), len(right.lines)) == (0, 2)


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
    assert (pixels(far) == pixels(empty)).all(), "the limits stay"
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
    assert np.array_equal(fan._exact.get_data(), (flat.numpy(), x.numpy())), "density to the right"
    assert fan._right.get_xlim() == (0, pytest.approx(1.1 * stairs.values.max()))
    assert fan.draw(times, torch.stack([0 * ends, -ends]), flat) != picture
    assert fan.draw(times, torch.stack([0 * ends, ends]), flat) == picture


def test_a_fan_draws_forty_paths_over_time_and_counts_all():
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    fan, times = plots.Fan(x, last=2.0), torch.tensor([0.0, 0.5, 2.0])
    values = torch.stack([torch.zeros(60), cloud(60)[:, 0], torch.linspace(-1, 1, 60)])
    fan.draw(times, values, 9 * torch.ones_like(x))
    drawn = fan._stage._paths.get_segments()
    assert len(drawn) == 40
    for k in (0, 39):
        assert np.allclose(drawn[k], torch.stack([times, values[:, k]], 1))
    stairs = fan._ends.get_data()
    assert (stairs.values > 0).sum() > 25, "ends from -1 to 1 fill the half of sixty bins"
    assert fan._right.get_xlim()[1] == pytest.approx(9.9), "the density has room"
    left = fan._stage._figure.axes[0]
    assert (left.get_xlim(), left.get_ylim()) == ((0, 2), (-2, 2))


def test_a_stage_draws_points_and_paths_where_they_are():
    stage = plots.Stage(FIGURES["contours"](), role="guidance")
    points, paths = cloud(4), torch.stack([cloud(5), -cloud(5), cloud(5, seed=1)])
    stage.draw(points, paths)
    assert np.array_equal(np.stack(stage._points.get_data(), 1), points.numpy())
    assert np.array_equal(stage._paths.get_segments(), paths.transpose(0, 1).numpy())
    for artist in (stage._points.get_color(), stage._paths.get_edgecolor()[0]):
        assert to_hex(artist) == plots.ROLE["guidance"]["color"].lower()


def test_panels_come_row_by_row_each_of_its_size():
    figure, axes = plots.panels(3, 2, size=(2.0, 1.0))
    assert len(axes) == 6
    assert tuple(figure.get_size_inches()) == (6.0, 2.0)
    places = [
        (ax.get_subplotspec().rowspan.start, ax.get_subplotspec().colspan.start) for ax in axes
    ]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]


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
