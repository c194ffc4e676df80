"""Laws of the bug museum: the right version passes, each mistake is caught, the table tells all."""

import pytest
import torch

from didiff.notebook import museum, pictures, plots
from didiff.notebook.museum import Check

VERSIONS = {"right": 2.0, "T-03: lost root": 4.0, "T-06: loud end": 2.001}
EYE = {"width": Check(lambda root: root, wanted=2, slack=0.1)}
UNITS = {
    "square": Check(lambda root: root**2, wanted=4),
    "half": Check(lambda root: torch.tensor(root) / 2, wanted=1, slack=0.5),
}


@pytest.fixture
def shown(monkeypatch):
    """What reaches the reader: (figure, alt) pairs and tables as text."""
    outputs = []
    monkeypatch.setattr(plots, "display", lambda bundle, raw: outputs.append(bundle["text/plain"]))
    monkeypatch.setattr(plots, "show", lambda figure, alt: outputs.append((figure, alt)))
    return outputs


def columns(text):
    """The cells of a displayed table, without its caption."""
    return [[cell.strip() for cell in row.split("  ") if cell] for row in text.splitlines()[1:]]


def test_every_version_is_measured_by_every_check():
    right, lost, loud = museum.inspect(VERSIONS, eye=EYE, units=UNITS)
    assert [one.name for one in (right, lost, loud)] == [*VERSIONS]
    assert [one.version for one in (right, lost, loud)] == [*VERSIONS.values()]
    assert lost.units["square"].value == 16
    assert (right.visible, lost.visible, loud.visible) == (False, True, False)
    assert (right.caught, lost.caught, loud.caught) == ([], ["square", "half"], ["square"])


@pytest.mark.parametrize(
    ("eye", "units", "message"),
    [
        ({}, {"square": Check(lambda root: root**2, 5)}, "'right': square is 4, not 5"),
        ({"width": Check(lambda root: root, 1, 0.1)}, UNITS, r"'right': width is 2, not 1 ± 0\.1"),
        ({}, {"nan": Check(lambda root: float("nan"), 0)}, "'right': nan is nan, not 0"),
    ],
)
def test_a_right_version_that_fails_is_an_error(eye, units, message):
    with pytest.raises(AssertionError, match=message):
        museum.inspect(VERSIONS, eye=eye, units=units)


def test_a_mistake_that_only_the_eye_catches_is_an_error():
    with pytest.raises(AssertionError, match="'T-06: loud end' passes all unit checks: half 1"):
        museum.inspect(VERSIONS, eye={**EYE, **UNITS}, units={"half": UNITS["half"]})


def test_one_number_that_is_off_is_enough_to_be_seen():
    eye = {"same": Check(lambda root: 1.0, 1.0), **EYE}
    _, lost, loud = museum.inspect(VERSIONS, eye=eye, units=UNITS)
    assert (lost.visible, loud.visible) == (True, False)


def test_a_mistake_that_makes_nan_is_seen_and_caught():
    nan = Check(lambda root: root, 2.0)
    _, broken = museum.inspect({"right": 2.0, "T": float("nan")}, eye={"x": nan}, units={"x": nan})
    assert broken.visible
    assert broken.caught == ["x"]


def test_all_versions_meet_the_same_random_numbers():
    drawn = []
    measure = Check(lambda version: drawn.append(torch.randn(3)) or version, 0.0)
    torch.manual_seed(3)
    museum.inspect({"right": 0.0, "T": 1.0}, units={"one": measure, "two": measure})
    torch.manual_seed(3)
    first = torch.randn(3)
    assert len(drawn) == 4
    assert all(torch.equal(one, first) for one in drawn)


def test_the_table_shows_numbers_wanted_values_what_is_seen_and_what_caught_it(shown):
    museum.show(museum.inspect(VERSIONS, eye=EYE, units=UNITS), caption="roots")
    assert shown[0].startswith("roots\n")
    header, *rows = columns(shown[0])
    assert header[:4] == ["exhibit", "width (2 ± 0.1)", "square (4)", "half (1 ± 0.5)"]
    assert header[4:] == ["seen in samples", "caught by"]
    assert rows == [
        ["right", "2", "4", "1", "–", "–"],
        ["T-03: lost root", "4 ✗", "16 ✗", "2 ✗", "yes", "square, half"],
        ["T-06: loud end", "2", "4.004 ✗", "1", "no", "square"],
    ]


def test_without_an_eye_nothing_is_said_of_samples(shown):
    museum.show(museum.inspect(VERSIONS, units=UNITS), caption="roots")
    assert columns(shown[0])[0] == ["exhibit", "square (4)", "half (1 ± 0.5)", "caught by"]
    assert columns(shown[0])[1] == ["right", "4", "1", "–"]


def test_rounding_does_not_show(shown):
    dust = {"right": 0.0, "T": 1.0, "U": 1.0 + 1e-13}
    museum.show(museum.inspect(dust, units={"gap": Check(lambda x: x - 1e-14, 0)}), caption="c")
    assert [row[1] for row in columns(shown[0])] == ["gap (0)", "0", "1 ✗", "1 ✗"]


def test_numbers_are_short_but_what_is_off_looks_so():
    numbers = [0.5, 0.12345, 4096.0, 1234567.0, 0.50004, 1e-20]
    check = Check(lambda x: x, wanted=0.5)
    shown = [str(museum.Reading(number, check)) for number in numbers]
    assert shown == ["0.5", "0.123 ✗", "4096 ✗", "1.23e+06 ✗", "0.50004 ✗", "1e-20 ✗"]


def test_each_exhibit_has_a_panel_with_the_axes_of_the_right_one(shown):
    versions = {**VERSIONS, "T-05: a": 5.0, "T-07: b": 7.0}
    exhibits = museum.inspect(versions, units=UNITS)

    def draw(exhibit, ax):
        plots.lines(
            {"model": ([0, exhibit.version], [0, exhibit.version])}, xlabel="x", ylabel="y", ax=ax
        )

    museum.show(exhibits, draw=draw, caption="roots", alt="five lines")
    figure, alt = shown[0]
    assert alt == "five lines"
    assert [ax.get_title().replace("\n", " ") for ax in figure.axes] == [*versions]
    assert len({(ax.get_xlim(), ax.get_ylim()) for ax in figure.axes}) == 1
    assert [ax.get_xlabel() for ax in figure.axes] == ["", "", "x", "x", "x"]  # three and two
    assert [ax.get_ylabel() for ax in figure.axes] == ["y", "", "", "y", ""]
    assert [ax.lines[0].get_ydata()[1] for ax in figure.axes] == [*versions.values()]


def test_pictures_without_words_are_refused(monkeypatch):
    monkeypatch.setattr(plots, "display", lambda *_, **__: pytest.fail("displayed"))
    exhibits = museum.inspect(VERSIONS, units=UNITS)
    with pytest.raises(ValueError, match="alt is empty"):
        museum.show(exhibits, draw=lambda exhibit, ax: pytest.fail("drawn"), caption="roots")


def two_curves(exhibit, ax):
    ends = [0, exhibit.version]
    curves = {"model": (ends, ends), "exact": (ends, ends[::-1])}
    plots.lines(curves, xlabel="x", ylabel="y", ax=ax)


def test_one_legend_outside_serves_all_panels(shown):
    museum.show(museum.inspect(VERSIONS, units=UNITS), draw=two_curves, caption="c", alt="lines")
    figure = shown[0][0]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["model", "exact"]
    assert all(ax.get_legend() is None for ax in figure.axes)
    pictures.png(figure)
    assert len({text.get_window_extent().y0 for text in legend.get_texts()}) == 1, "one row"
    below = min(ax.get_tightbbox().y0 for ax in figure.axes)
    assert legend.get_window_extent().y1 <= below + 1, "it covers no panel"


def test_the_panels_of_a_row_share_the_numbers_at_its_left(shown):
    versions = {**VERSIONS, "T-05: " + "a long name that needs two lines": 5.0, "T-07: b": 7.0}
    museum.show(museum.inspect(versions, units=UNITS), draw=two_curves, caption="c", alt="lines")
    axes = shown[0][0].axes
    assert [ax.yaxis.get_tick_params()["labelleft"] for ax in axes] == [
        True,
        False,
        False,
        True,
        False,
    ]
    assert [ax.xaxis.get_tick_params()["labelbottom"] for ax in axes] == [False] * 2 + [True] * 3
    assert axes[3].get_title() == "T-05: a long name that needs\ntwo lines"
    assert axes[0].get_xlim()[1] < 4, "the axes of the first, whatever the others reach"


@pytest.mark.parametrize(("count", "places"), [(4, 4), (5, 5), (9, 9)])
def test_there_are_at_most_four_panels_in_a_row_and_no_empty_one(shown, count, places):
    versions = {"right": 2.0, **{f"T-{k}": 3.0 + k for k in range(count - 1)}}
    museum.show(museum.inspect(versions, units=UNITS), draw=two_curves, caption="c", alt="lines")
    figure = shown[0][0]
    assert len(figure.axes) == places
    assert max(ax.get_subplotspec().colspan.start for ax in figure.axes) < 4
    wide, high = figure.get_size_inches()
    assert (wide, high) == pytest.approx({4: (9.2, 2.2), 5: (6.9, 4.4), 9: (6.9, 6.6)}[count])


def test_the_table_comes_after_the_pictures(shown):
    exhibits = museum.inspect(VERSIONS, units=UNITS)
    museum.show(exhibits, draw=two_curves, caption="roots", alt="lines")
    assert shown[0][1] == "lines"
    assert shown[1].startswith("roots")


def test_a_slack_is_wide_enough_at_its_edge_and_no_wider():
    check = Check(lambda x: x, wanted=1.0, slack=0.5)
    values = {0.5: True, 1.5: True, 1.5001: False, 0.4999: False}
    assert {v: museum.Reading(v, check).passes for v in values} == values
    assert not museum.Reading(1 + 2e-10, Check(lambda x: x, 1.0)).passes
    assert museum.Reading(1 + 5e-11, Check(lambda x: x, 1.0)).passes


def test_a_version_within_its_slack_shows_its_own_number():
    check = Check(lambda x: x, wanted=0.5, slack=0.1)
    assert str(museum.Reading(0.52, check)) == "0.52"
    assert str(museum.Reading(0.7, check)) == "0.7 ✗"
    assert str(check) == "0.5 ± 0.1"
    assert str(Check(lambda x: x, 12345.678)) == "1.235e+04"
