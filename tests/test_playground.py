"""Laws of the playground: one noise, counted evaluations, a frame at every step, honest words.

The exact law of blurred digits stands for the network: quick, and every number known. Walks are
held by events, never by the clock.
"""

import functools
import io
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from test_widgets import tree
from torch import nn
from torch.overrides import TorchFunctionMode

from didiff import data, guidance, samplers
from didiff.denoiser import network_input
from didiff.mixtures import Mixture
from didiff.networks import MLP
from didiff.notebook.pictures import mosaic, png
from didiff.notebook.playground import (
    COLUMNS,
    IMAGES,
    ONE_OF_EACH,
    PREVIEWS,
    SAMPLERS,
    Counted,
    Playground,
    labels,
    worth,
)
from didiff.notebook.widgets import choices, final
from didiff.process import from_x0, randn_like
from didiff.samplers import last
from didiff.schedules import grid, trigonometric
from didiff.training import metrics

NAN = float("nan")
PATIENCE = 30.0  # seconds; only a failing test waits so long
SHAPE = (1, 8, 8)
REST = {"digit": ONE_OF_EACH, "omega": 2.0, "steps": 6, "sampler": "DDIM", "seed": 0}


def levels(steps):
    return grid(trigonometric, steps, start=0.99)


def blurred_digits() -> Mixture:
    x, y = data.digits("train")
    return Mixture(x[:100], 0.4, labels=y[:100])


@pytest.fixture
def play():
    D, C = Counted(blurred_digits()), Counted(blurred_digits())
    methods = {
        "free": lambda y, omega: guidance.classifier_free(D, y, omega),
        "classifier": lambda y, omega: guidance.classifier(
            guidance.condition(D, None), guidance.log_prob_of(C, y), omega
        ),
    }
    return Playground(methods, {"denoiser": D, "classifier": C}, levels, shape=SHAPE, steps=6)


def alone(denoise, **settings) -> Playground:
    """A playground of one method, (x, t) -> Prediction, that heeds neither class nor omega."""
    return Playground({"alone": lambda y, omega: denoise}, {}, levels, shape=SHAPE, **settings)


def grey(picture: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image)


# -- the samples ------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "scale"), [(8, 9), (28, 3), (32, 2), (64, 1)])
def test_a_picture_is_as_near_to_640_pixels_wide_as_whole_pixels_allow(side, scale):
    images = Playground({"alone": None}, {}, levels, shape=(1, side, side))
    row = 8 * (side + 1)  # eight images and the grey lines between them
    assert min(range(1, 20), key=lambda k: abs(k * row - 640)) == scale
    assert images.explorer()._picture.width == str(scale * (row - 1))


@pytest.mark.parametrize("view", ["explorer", "trajectory"])
def test_every_view_draws_wherever_its_controls_can_stand(play, view):
    explorer = getattr(play, view)()
    grids = {name: choices(control) for name, control in explorer.controls.items()}
    corners = []  # all low, all high, and one of them at the other end
    for end in (0, -1):
        corner = {name: grid[end] for name, grid in grids.items()}
        corners += [corner, *(corner | {name: grid[-1 - end]} for name, grid in grids.items())]
    along = [explorer.values | {"digit": value} for value in grids["digit"]]
    along += [explorer.values | {"sampler": value} for value in grids["sampler"]]
    for values in corners + along:
        frames = list(explorer.frames(**values))
        assert {grey(frame.picture).shape[1] for frame in frames} == {int(explorer._picture.width)}
        assert "recognised" in frames[-1].readout, values


@pytest.mark.parametrize("view", ["explorer", "trajectory"])
def test_sampler_and_seed_stand_behind_a_button_in_every_view(play, view):
    explorer = getattr(play, view)()
    (folded,) = (part for part in tree(explorer._box) if "didiff-folded" in part._dom_classes)
    assert list(folded.children) == [explorer["sampler"], explorer["seed"]]


def test_the_last_frame_shows_the_end_of_the_walk_and_the_first_what_it_expected(play):
    states = list(play.walk("free", labels(ONE_OF_EACH, IMAGES), 2.0, 6, "DDIM", 0))
    first, *_, end = play.frames("free", **REST)
    scale = play._scale
    assert first.picture == png(mosaic(states[0].x0, COLUMNS, scale))
    assert end.picture == png(mosaic(states[-1].x, COLUMNS, scale))


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_a_run_can_be_left_between_any_two_steps(play, steps):
    frames = list(play.frames("free", **REST | {"steps": steps}))
    assert len(frames) == steps + 1
    assert frames[0].readout == f"expected after 0 of {steps} steps"


@pytest.mark.parametrize("steps", [1, 3, 7, 10, 40])
def test_previews_are_few_and_evenly_spaced(play, steps):
    """A picture takes longer to draw than a step to walk."""
    states = list(play.walk("free", labels(ONE_OF_EACH, IMAGES), 2.0, steps, "DDIM", 0))
    previews = {f.readout: f.picture for f in list(play.frames("free", **REST | {"steps": steps}))}
    end = list(previews)[-1]
    assert "recognised" in end
    assert len(previews) - 1 <= PREVIEWS
    shown = [int(words.split()[2]) for words in previews if words != end]
    assert len(set(np.diff(shown))) <= 1
    gap = steps if len(shown) < 2 else shown[1]
    assert gap == 1 or steps / (gap - 1) > PREVIEWS, "no fewer than may be"
    for k, picture in zip(shown, previews.values(), strict=False):
        assert picture == png(mosaic(states[k].x0, COLUMNS, play._scale))


def test_a_stale_walk_asks_nothing_more_of_the_model(play):
    asked, go, early = [], threading.Event(), threading.Event()

    def held(y, omega):
        def denoise(x, t):
            asked.append(omega)
            early.set()
            assert go.wait(PATIENCE)
            return blurred_digits()(x, t, y)

        return denoise

    explorer = Playground({"held": held}, {}, levels, shape=SHAPE, steps=6).explorer()
    explorer["omega"].value = 5.0
    assert early.wait(PATIENCE)  # the first step is at work
    for omega in (6.0, 7.0, 8.0):
        explorer["omega"].value = omega
    go.set()
    explorer.wait()
    assert asked == [5.0] + [8.0] * 6


def test_the_noise_stays_while_all_but_the_seed_moves(play):
    y = labels(ONE_OF_EACH, IMAGES)

    def start(method="free", omega=2.0, steps=6, sampler="DDIM", seed=0):
        return next(play.walk(method, y, omega, steps, sampler, seed)).x

    same = [start(method="classifier"), start(omega=9.0), start(steps=31), start(sampler="DDPM")]
    assert all(torch.allclose(x, start(), rtol=0, atol=1e-5) for x in same)
    assert not torch.allclose(start(seed=1), start(), rtol=0, atol=0.1)


def test_chance_on_the_way_comes_from_the_seed(play):
    noisy = REST | {"sampler": "DDPM"}
    pictures = [final(play.frames("free", **noisy | {"seed": seed})).picture for seed in (0, 0, 1)]
    assert pictures[0] == pictures[1] != pictures[2]


def test_exact_methods_draw_the_same_at_different_prices(play):
    y = labels(ONE_OF_EACH, IMAGES)
    free, separate = (last(play.walk(m, y, 2.0, 6, "DDIM", 0)) for m in ("free", "classifier"))
    assert (free - separate).abs().max() < 0.01  # single precision, divided by a signal of 0.016
    prices = [final(play.frames(m, **REST)).readout.split("evaluations: ")[1] for m in play.methods]
    assert prices == ["12 denoiser", "6 denoiser + 6 classifier"]


# -- evaluations ------------------------------------------------------------------------------


@pytest.mark.parametrize(("sampler", "price"), [("DDPM", 12), ("Heun", 22)])
def test_evaluations_are_counted_and_not_derived_from_the_steps(play, sampler, price):
    readout = final(play.frames("free", **REST | {"sampler": sampler})).readout
    assert readout.endswith(f"evaluations: {price} denoiser")


def test_a_doubled_batch_costs_double():
    D = Counted(blurred_digits())

    def doubled(y, omega):
        def guided(x, t):
            both = D(torch.cat([x, x]), t, torch.cat([torch.full_like(y, -1), y]))
            halves = [half.chunk(2) for half in both]
            return type(both)(*(u + omega * (c - u) for u, c in halves))

        return guided

    play = Playground({"doubled": doubled}, {"denoiser": D}, levels, shape=SHAPE)
    assert final(play.frames("doubled", **REST)).readout.endswith("evaluations: 12 denoiser")


def test_each_thread_counts_for_itself(play):
    D, seen = play.counted["denoiser"], []

    def elsewhere():
        final(play.frames("free", **REST))
        seen.append(D.asked)

    hand = threading.Thread(target=elsewhere)
    hand.start()
    hand.join(PATIENCE)
    assert (D.asked, seen) == (0, [12 * IMAGES])


def test_a_counted_model_is_itself_in_all_else():
    mixture = blurred_digits()
    counted, t = Counted(mixture), levels(5)[2]
    x, y = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)), torch.arange(3)
    assert counted.classes == mixture.classes
    for got, wanted in [
        (counted(x, t).eps, mixture(x, t).eps), (counted(x, t, y).x0, mixture(x, t, y).x0),
        (counted.class_log_prob(x, t), mixture.class_log_prob(x, t)),
    ]:  # fmt: skip
        assert torch.equal(got, wanted)
    assert counted.asked == 9


# -- on a device -----------------------------------------------------------------------------


class Elsewhere(TorchFunctionMode):
    """The meta device as a GPU: points must be sent there, chance stays where its generator is.

    What is fetched from there is zeros, and double precision is refused, as on Apple's.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.Tensor.cpu and args[0].is_meta:
            return torch.zeros(args[0].shape, dtype=args[0].dtype)
        if func is torch.randn and kwargs.get("generator"):
            assert torch.device(kwargs.get("device") or "cpu") == kwargs["generator"].device
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and result.is_meta:
            assert result.dtype != torch.float64
        return result


class Faraway(nn.Module):
    """A network on a device, as a denoiser."""

    def __init__(self):
        super().__init__()
        self.net = MLP(SHAPE, 16, 1).to("meta")

    def forward(self, x, t, y=None):
        assert y.is_meta
        return from_x0(x, t, self.net(*network_input(x, t, 1.0)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_points_and_labels_go_where_the_models_weights_are(sampler):
    D, exact = Counted(Faraway()), Counted(blurred_digits())  # which has no weights to tell
    methods = {"free": lambda y, omega: guidance.classifier_free(D, y, omega)}
    play = Playground(methods, {"exact": exact, "denoiser": D}, levels, shape=SHAPE, steps=6)
    setting = REST | {"sampler": sampler}
    with Elsewhere():
        end = final(play.frames("free", **setting))
        explorer = play.trajectory()
        look = final(explorer.frames(**explorer.values | {"sampler": sampler, "stop": 3}))
    assert D.asked > 6 * IMAGES
    assert "evaluations" in end.readout
    assert look.readout.startswith("step 3 of 6")


def test_one_seed_is_one_noise_on_every_device():
    x, chance = torch.zeros(2, 1), torch.Generator().manual_seed(0)
    assert torch.equal(
        randn_like(x, chance), torch.randn(2, 1, generator=torch.Generator().manual_seed(0))
    )
    assert randn_like(x.to("meta"), chance).is_meta


# -- the words --------------------------------------------------------------------------------


def test_the_readout_says_what_the_judge_says():
    x, y = data.digits("test")
    wrong = torch.cat([y[:10], (y[10:16] + 1) % 10])
    found, spread = metrics.recognised(x[:16], wrong), metrics.diversity(x[:16], wrong)
    assert found < 0.7
    text = f"recognised {round(16 * found)} of 16 · diversity {spread:.2f} (real: 1) · saturated 0%"
    assert worth(x[:16], wrong) == text
    assert worth(2 * x[:16], wrong).endswith(
        f"saturated {(x[:16].abs() > 0.525).double().mean():.0%}"
    )


@pytest.mark.parametrize(("value", "share"), [(1.04, "0%"), (1.06, "50%"), (-1.06, "50%")])
def test_pixels_beyond_black_and_white_are_saturated(value, share):
    """Beyond 1.05: networks leave pixels of 1.01, which nobody sees."""
    image = torch.zeros(1, *SHAPE)
    image[..., :4] = value
    assert worth(image, torch.tensor([0])).endswith(f"saturated {share}")


def test_one_image_of_each_class_has_no_diversity():
    x, y = data.digits("test")
    each = torch.stack([x[y == k][0] for k in range(10)])
    assert worth(each, torch.arange(10)) == "recognised 10 of 10 · saturated 0%"


def test_what_overflowed_is_drawn_and_told():
    def overflowing(x, t):
        guess = blurred_digits()(x, t)
        guess.x0[3] = NAN
        guess.x0[5] = torch.inf
        return guess

    play = alone(overflowing, steps=6)
    end = final(play.frames("alone", **REST))
    assert end.readout.startswith("2 of 16 images overflowed: take more steps or a smaller ω")
    look = final(play.trajectory().frames(**play.trajectory().values | {"stop": 6}))
    assert "2 of 8 images overflowed" in look.readout
    for bad in (NAN, torch.inf, -torch.inf):
        images = torch.zeros(2, *SHAPE).index_fill(0, torch.tensor(1), bad)
        assert worth(images, labels(0, 2)).startswith("1 of 2 images overflowed")


@pytest.mark.parametrize(("view", "moved"), [("explorer", "steps"), ("trajectory", "stop")])
def test_an_error_reaches_the_reader_and_does_not_stay(view, moved):
    broken = threading.Event()
    broken.set()

    def denoise(x, t):
        if broken.is_set():
            raise ValueError("this network is not for digits")
        return blurred_digits()(x, t)

    explorer = getattr(alone(denoise, steps=3), view)()
    with pytest.raises(ValueError, match="not for digits"):
        explorer.wait()
    assert explorer.readout == "ValueError: this network is not for digits"
    broken.clear()
    explorer[moved].value = 2
    explorer.wait()
    assert "recognised" in explorer.readout


def test_labels_are_one_of_each_or_all_alike():
    assert labels(ONE_OF_EACH, 12).tolist() == [*range(10), 0, 1]
    assert labels(3, 2).tolist() == [3, 3]


def test_the_sampler_that_is_named_is_the_one_that_walks(play):
    y, noise, stops = labels(ONE_OF_EACH, IMAGES), None, levels(4)
    named = {
        "DDIM": samplers.ddim,
        "DDPM": functools.partial(samplers.ddpm, generator=torch.Generator()),
        "Heun": samplers.heun,
        "DPM-Solver++(2M)": samplers.dpm_solver_2m,
    }
    assert named.keys() == SAMPLERS.keys()
    for name, sampler in named.items():
        noise = next(play.walk("free", y, 2.0, 4, name, 0)).x
        wanted = last(sampler(play.methods["free"](y, 2.0), noise, stops))
        got = last(play.walk("free", y, 2.0, 4, name, 0))
        assert torch.allclose(got, wanted, atol=1e-3) == (name != "DDPM"), "other fresh noise"


def test_the_slider_reaches_the_steps_it_starts_at():
    assert alone(blurred_digits(), steps=60).explorer()["steps"].max == 60
    assert alone(blurred_digits(), steps=8).explorer()["steps"].max >= 40


def test_a_playground_without_a_method_is_refused():
    with pytest.raises(ValueError, match="needs a method"):
        Playground({}, {}, levels)


# -- the path ---------------------------------------------------------------------------------


def test_the_trajectory_shows_xt_above_x0(play):
    explorer = play.trajectory()
    explorer["stop"].value = 4
    explorer.wait()
    states = list(play.walk("free", labels(ONE_OF_EACH, COLUMNS), play.omega, 6, "DDIM", 0))
    both = torch.cat([states[4].x, states[4].x0])
    assert explorer.picture == png(mosaic(both, COLUMNS, play._scale))
    t = states[4].t
    words = worth(states[4].x0, labels(ONE_OF_EACH, COLUMNS))
    assert explorer.readout == (
        f"step 4 of 6: clock {t.clock:.2f} · xt = {t.signal:.2f} x0 + {t.noise:.2f} eps · "
        f"x0 {words} · ink {(states[4].x0 > 0).float().mean():.1%}"
    )
    assert words != worth(states[4].x, labels(ONE_OF_EACH, COLUMNS))


def test_a_path_is_walked_once_and_as_far_as_somebody_looks(play):
    frames, D = play.trajectory().frames, play.counted["denoiser"]
    setting = {name: REST[name] for name in ("digit", "omega", "sampler", "seed")}

    def cost(**moved):
        before = D.asked
        list(frames(**{"stop": 3, "method": "free", **setting, **moved}))
        return (D.asked - before) / (2 * COLUMNS)

    assert [cost(), cost(), cost(stop=1), cost(stop=6), cost(stop=0)] == [4, 0, 0, 2, 0]
    assert [cost(omega=5.0), cost(omega=5.0, stop=2)] == [4, 0]


def test_a_path_left_on_the_way_goes_on_from_there(play):
    explorer = play.trajectory()
    values = explorer.values | {"stop": 6}
    whole = final(explorer.frames(**values))
    other = play.trajectory().frames
    run = other(**values)
    next(run), next(run)
    run.close()
    assert final(other(**values)) == whole
