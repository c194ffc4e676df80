import inspect
import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from worlds import MIXTURES, SCHEDULES, points

import didiff
from didiff import (
    NoiseLevel,
    add_noise,
    ddim,
    ddpm,
    dpm_solver_2m,
    grid,
    guidance,
    heun,
    initial_noise,
    karras_levels,
    last,
    mixtures,
    probability_flow,
)

DETERMINISTIC = {
    "ddim": ddim,
    "heun": heun,
    "dpm_solver_2m": dpm_solver_2m,
    "probability_flow": probability_flow,
}
SAMPLERS = DETERMINISTIC | {
    "ddim, eta 1/2": partial(ddim, eta=0.5),
    "ddpm": ddpm,
    "ddpm, beta": partial(ddpm, variance="beta"),
}
LINEAR, BIMODAL = SCHEDULES["linear"], mixtures.bimodal()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(mixture, levels, n=64, seed=0):
    shape = (n, *mixture.means.shape[1:])
    return initial_noise(shape, levels[0], seeded(seed), torch.float64)


# --- each step against the formula of its paper, typed anew --------------------------------------


def test_eta_one_on_the_full_table_is_the_ddpm_posterior():
    x = points(BIMODAL, 6)
    for k in (2, 400, 1000):
        t, s = LINEAR.at(k), LINEAR.at(k - 1)
        x0 = BIMODAL(x, t).x0
        beta, ab, before = LINEAR.beta[k - 1], LINEAR.alpha_bar[k], LINEAR.alpha_bar[k - 1]
        mean = (before.sqrt() * beta * x0 + (1 - beta).sqrt() * (1 - before) * x) / (1 - ab)
        z = torch.randn(x.shape, generator=seeded(3), dtype=x.dtype)
        wanted = {
            "posterior": mean + (beta * (1 - before) / (1 - ab)).sqrt() * z,
            "beta": mean + beta.sqrt() * z,
        }
        for variance, end in wanted.items():
            got = step(partial(ddpm, variance=variance, generator=seeded(3)), x, t, s)
            torch.testing.assert_close(got, end)
        got = step(partial(ddim, eta=1.0, generator=seeded(3)), x, t, s)
        torch.testing.assert_close(got, wanted["posterior"])


def step(sampler, x, t, s, denoiser=BIMODAL):
    """The x after one step from t to s."""
    return list(sampler(denoiser, x, [t, s]))[-1].x


def test_eta_on_a_jump_is_equation_sixteen_of_the_ddim_paper():
    t, s, eta, x = LINEAR.at(700), LINEAR.at(300), 0.6, points(BIMODAL, 6)
    x0, eps = BIMODAL(x, t)
    ab, before = LINEAR.alpha_bar[700], LINEAR.alpha_bar[300]
    sigma = eta * ((1 - before) / (1 - ab)).sqrt() * (1 - ab / before).sqrt()
    z = torch.randn(x.shape, generator=seeded(3), dtype=x.dtype)
    wanted = before.sqrt() * x0 + (1 - before - sigma**2).sqrt() * eps + sigma * z
    torch.testing.assert_close(step(partial(ddim, eta=eta, generator=seeded(3)), x, t, s), wanted)


def test_the_last_step_of_ddpm_adds_no_noise():
    x = points(BIMODAL, 6)
    for variance in ("posterior", "beta"):
        ends = [
            step(
                partial(ddpm, variance=variance, generator=seeded(i)), x, LINEAR.at(1), LINEAR.at(0)
            )
            for i in (1, 2)
        ]
        torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)
        torch.testing.assert_close(ends[0], BIMODAL(x, LINEAR.at(1)).x0)


def test_ddim_is_eulers_method_on_dy_dsigma_equals_eps():
    levels = grid(LINEAR, 25)
    x = noise(BIMODAL, levels)
    y = x / levels[0].signal
    for t, s in pairwise(levels):
        y = y + (s.sigma - t.sigma) * BIMODAL(t.signal * y, t).eps
    torch.testing.assert_close(last(ddim(BIMODAL, x, levels)), y)


def test_ddim_is_eulers_method_on_the_velocity_of_the_straight_schedule():
    levels = grid(didiff.straight, 25)
    x = y = noise(BIMODAL, levels)
    for t, s in pairwise(levels):
        x0, eps = BIMODAL(y, t)
        y = y + (s.noise - t.noise) * (eps - x0)
    torch.testing.assert_close(last(ddim(BIMODAL, x, levels)), y)


def test_heun_is_algorithm_one_of_karras():
    levels = karras_levels(12, 0.01, 20.0)
    x = z = noise(BIMODAL, levels)
    for t, s in pairwise(levels):
        slope = (z - BIMODAL(z, t).x0) / t.noise
        ahead = z + (s.noise - t.noise) * slope
        if s.noise > 0:
            there = (ahead - BIMODAL(ahead, s).x0) / s.noise
            ahead = z + (s.noise - t.noise) * (slope + there) / 2
        z = ahead
    torch.testing.assert_close(last(heun(BIMODAL, x, levels)), z)


def test_dpm_solver_2m_is_the_published_formula():
    levels = karras_levels(12, 0.01, 20.0)
    x = z = noise(BIMODAL, levels)
    sigma, old = [t.noise for t in levels], None
    for i in range(12):
        x0 = guess = BIMODAL(z, levels[i]).x0
        if old is not None and sigma[i + 1] > 0:
            h, h_before = torch.log(sigma[i] / sigma[i + 1]), torch.log(sigma[i - 1] / sigma[i])
            r = h_before / h
            guess = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * old
        z = sigma[i + 1] / sigma[i] * z + (1 - sigma[i + 1] / sigma[i]) * guess
        old = x0
    torch.testing.assert_close(last(dpm_solver_2m(BIMODAL, x, levels)), z)


# --- what a walk is -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("mixture", ["three modes", "images", "correlated"])
def test_a_walk_yields_one_consistent_state_a_level_from_pure_noise_to_data(
    name, schedule, mixture
):
    levels, mixture = grid(SCHEDULES[schedule], 10), MIXTURES[mixture]
    states = list(SAMPLERS[name](mixture, noise(mixture, levels), levels))
    assert [s.t for s in states] == levels
    for state in states:
        assert torch.isfinite(state.x).all()
        torch.testing.assert_close(add_noise(state.x0, state.eps, state.t), state.x)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_sampler_walks_upwards_from_data_to_pure_noise(name, schedule):
    levels, mixture = grid(SCHEDULES[schedule], 10)[::-1], MIXTURES["three modes"]
    *_, end = SAMPLERS[name](mixture, mixture.sample(64, generator=seeded())[0], levels)
    assert torch.isfinite(end.x).all()
    torch.testing.assert_close(add_noise(end.x0, end.eps, end.t), end.x)


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("schedule", ["linear", "trigonometric", "straight"])
def test_walking_up_undoes_walking_down(name, schedule):
    x = torch.linspace(-1.5, 1.5, 21, dtype=torch.float64)[:, None]
    levels = grid(SCHEDULES[schedule], 100, start=0.95, end=0.05)
    down = last(DETERMINISTIC[name](BIMODAL, x, levels))
    up = last(DETERMINISTIC[name](BIMODAL, down, levels[::-1]))
    # a round trip of DDIM is off by O(1 / steps), that of DPM-Solver, whose first step is DDIM's,
    # by O(1 / steps^2); what Heun's method loses on the way down it wins on the way up
    assert (up - x).abs().max() < {"ddim": 0.06, "dpm_solver_2m": 4e-3}.get(name, 5e-5)


@pytest.mark.parametrize("sampler", [partial(ddim, eta=1.0), ddpm, partial(ddpm, variance="beta")])
def test_upwards_the_ancestral_samplers_are_the_forward_process_whatever_the_denoiser_says(sampler):
    """One step of q(xt | xs): mean (signal_t / signal_s) xs, and the variance that is missing."""
    n, t, s = 40_000, LINEAR.at(100), LINEAR.at(600)
    x = torch.full((n, 1), 1.3, dtype=torch.float64)
    end = step(partial(sampler, generator=seeded()), x, t, s)
    kept = s.signal / t.signal
    variance = (s.noise**2 - (kept * t.noise) ** 2).item()
    assert end.mean().item() == pytest.approx(1.3 * kept.item(), abs=5 * (variance / n) ** 0.5)
    assert end.var().item() == pytest.approx(variance, rel=5 * (2 / n) ** 0.5)


@pytest.mark.parametrize(
    ("name", "order"),
    [("ddim", 1), ("heun", 2), ("dpm_solver_2m", 2), ("probability_flow", 3)],
)
def test_the_error_falls_with_the_order_of_the_method(name, order):
    x = torch.linspace(-2, 2, 50, dtype=torch.float64)[:, None]

    def end(sampler, steps):
        levels = grid(didiff.trigonometric, steps, start=0.97, end=0.03)
        return list(sampler(BIMODAL, x, levels))[-1].x

    exact = end(probability_flow, 200)
    errors = [(end(DETERMINISTIC[name], n) - exact).abs().mean().item() for n in (40, 80)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("ddim", "cosine"), ("probability_flow", "straight"), ("ddpm", "linear")],
)
def test_with_the_exact_denoiser_samplers_draw_from_the_mixture(name, schedule):
    """Mean and variance of F-3M from 2,000 points; Euler's method keeps a bias of order 1/steps.

    A few of them, for the whole walk: each step is held to its formula above.
    """
    n, mixture, levels = 2000, MIXTURES["three modes"], grid(SCHEDULES[schedule], 60)
    torch.manual_seed(0)
    end = last(SAMPLERS[name](mixture, noise(mixture, levels, n), levels))
    mean = mixture.means.mean(0)
    spread = mixture.means.var(0, correction=0) + 0.3**2
    bias = 0.05
    assert ((end.mean(0) - mean).abs() < 5 * (spread / n).sqrt() + bias).all()
    assert ((end.var(0) / spread - 1).abs() < 5 * (2 / n) ** 0.5 + bias).all()


# --- networks that predict the score ------------------------------------------------------------


class Score(torch.nn.Module):
    """The exact score on one schedule, from what a network is shown: x at unit variance, the clock.

    size: signal^2 + noise^2 of the schedule, from the angle of a level.
    """

    def __init__(self, mixture, size):
        super().__init__()
        self.mixture, self.size = mixture, size

    def forward(self, x, clock, y=None):
        phi = clock * math.pi / 2
        r = self.size(phi)
        t = NoiseLevel(r * phi.cos(), r * phi.sin())
        return self.mixture.score(r[:, None] * x, t)  # sigma_data = 1: what came in was r * x


SIZES = {
    "linear": (LINEAR, lambda phi: torch.ones_like(phi)),
    "exploding": (SCHEDULES["exploding"], lambda phi: 1 / phi.cos()),
    "straight": (didiff.straight, lambda phi: 1 / (phi.cos() + phi.sin())),
}


@pytest.mark.parametrize("name", DETERMINISTIC)
@pytest.mark.parametrize("schedule", ["linear", "exploding"])
def test_a_score_network_is_asked_at_levels_of_its_own_schedule(name, schedule):
    """Between two levels too: a score is as long as 1 / noise, which the angle does not tell."""
    schedule, size = SIZES[schedule]
    levels = grid(schedule, 12)
    x, sampler = noise(BIMODAL, levels), DETERMINISTIC[name]
    network = didiff.Denoiser(Score(BIMODAL, size), "score")
    got, wanted = last(sampler(network, x, levels)), last(sampler(BIMODAL, x, levels))
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-9)


def test_on_other_schedules_a_score_network_is_right_to_second_order_in_the_step():
    schedule, size = SIZES["straight"]
    network, errors = didiff.Denoiser(Score(BIMODAL, size), "score"), []
    for steps in (40, 80):
        levels = grid(schedule, steps, start=0.9, end=0.1)
        x = torch.linspace(-1.5, 1.5, 21, dtype=torch.float64)[:, None]
        got, wanted = (list(probability_flow(d, x, levels))[-1].x for d in (network, BIMODAL))
        errors.append((got - wanted).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.2)
    assert errors[1] < 2e-3


def test_the_probability_flow_of_a_gaussian_keeps_its_place_in_units_of_the_width():
    data = mixtures.gaussian(1.0, 0.5)
    for schedule in SCHEDULES.values():
        levels = grid(schedule, 40, start=0.95, end=0.02)
        t, s = levels[0], levels[-1]
        x = t.signal + torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None] * t.noise
        width, end = (((v.signal * 0.5) ** 2 + v.noise**2).sqrt() for v in (t, s))
        wanted = s.signal + end / width * (x - t.signal)
        got = list(probability_flow(data, x, levels))[-1].x
        # 40 equal steps of u leap far in the angle where signal = 1: 9 degrees a step at the end
        near = 1e-3 if schedule is SCHEDULES["exploding"] else 1e-5
        torch.testing.assert_close(got, wanted, rtol=0, atol=near)


def test_a_deterministic_walk_repeats_itself_and_a_stochastic_one_follows_its_generator():
    levels = grid(LINEAR, 20)
    x = noise(BIMODAL, levels)
    assert torch.equal(last(ddim(BIMODAL, x, levels)), last(ddim(BIMODAL, x, levels)))
    a, b, c = (last(ddpm(BIMODAL, x, levels, generator=seeded(i))) for i in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("walk", [ddim, ddpm, heun, dpm_solver_2m, probability_flow])
def test_help_shows_the_sampler_itself(walk):
    assert list(inspect.signature(walk).parameters)[:3] == ["denoiser", "x", "levels"]
    assert "levels that are not monotone" in inspect.getdoc(walk)


def test_without_a_word_ddim_adds_no_noise_and_ddpm_that_of_the_posterior():
    levels, x = grid(LINEAR, 9), points(BIMODAL, 6)
    assert torch.equal(last(ddim(BIMODAL, x, levels)), last(ddim(BIMODAL, x, levels, eta=0.0)))
    ends = [
        last(ddpm(BIMODAL, x, levels, generator=seeded(), **given))
        for given in ({}, {"variance": "posterior"}, {"variance": "beta"})
    ]
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_fresh_noise_is_fresh_at_every_step():
    """The same z at every step would blow the variance up (T-07)."""
    n, mixture = 10_000, mixtures.two_classes()
    levels = grid(LINEAR, 200)
    end = last(ddpm(mixture, noise(mixture, levels, n), levels, generator=seeded(1)))
    assert end.var().item() == pytest.approx(2, abs=5 * 2 * (2 / n) ** 0.5 + 0.05)


@pytest.mark.parametrize("name", SAMPLERS)
def test_nobody_is_asked_at_noise_zero_and_the_calls_are_counted(name):
    calls = []

    def counted(x, t, y=None):
        calls.append(t)
        assert t.noise > 0
        return BIMODAL(x, t)

    levels = grid(didiff.trigonometric, 8)
    last(SAMPLERS[name](counted, noise(BIMODAL, levels), levels))
    assert len(calls) == {"heun": 15, "probability_flow": 24}.get(name, 8)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_works_under_every_wrapper_from_pure_noise(name):
    mixture, levels = MIXTURES["ring"], grid(LINEAR, 8)
    plain, guided = guidance.condition(mixture, 0), guidance.classifier_free(mixture, 0, 3.0)
    wrappers = {
        "clip": guidance.clip(guided, -2, 2),
        "interval": guidance.interval(plain, guided, 0.2, 0.8),
        "classifier": guidance.classifier(
            plain, lambda x, t: mixture.class_log_prob(x, t)[:, 0], 2
        ),
        "negative": guidance.classifier_free(mixture, 0, 2.0, negative=1),
    }
    for wrapper in wrappers.values():
        end = last(SAMPLERS[name](wrapper, noise(mixture, levels), levels))
        assert torch.isfinite(end).all()
    assert last(SAMPLERS[name](wrappers["clip"], noise(mixture, levels), levels)).abs().max() <= 3


def test_a_wrapper_may_change_x_and_the_walk_follows():
    known = torch.full((5, 2), 0.5, dtype=torch.float64)

    def pinned(x, t, y=None):
        return didiff.Prediction(known, torch.zeros_like(known))

    levels = grid(LINEAR, 4)
    for sampler in (ddim, heun, dpm_solver_2m):
        *walk, end = sampler(pinned, torch.randn(5, 2, dtype=torch.float64), levels)
        torch.testing.assert_close(end.x, known)
        for state in walk:
            torch.testing.assert_close(state.x, state.t.signal * known)


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_gradient_is_kept(name):
    x = torch.randn(3, 1, dtype=torch.float64, requires_grad=True)
    for state in list(SAMPLERS[name](BIMODAL, x, grid(LINEAR, 3)))[1:]:
        assert not any(v.requires_grad for v in (state.x, state.x0, state.eps))


@pytest.mark.parametrize("name", SAMPLERS)
def test_integers_are_numbers_like_others(name):
    x, levels = torch.tensor([[1], [-2]]), grid(LINEAR, 3)
    torch.manual_seed(0)
    got = last(SAMPLERS[name](BIMODAL, x, levels))
    torch.manual_seed(0)
    assert torch.equal(got, last(SAMPLERS[name](BIMODAL, x.float(), levels)))


def test_at_noise_zero_x0_is_what_is_left_when_the_signal_is_divided_out():
    two = NoiseLevel(*torch.tensor([2.0, 0.0], dtype=torch.float64))
    *_, end = ddim(BIMODAL, points(BIMODAL, 3), [LINEAR.at(500), two])
    torch.testing.assert_close(end.x0, BIMODAL(points(BIMODAL, 3), LINEAR.at(500)).x0)
    torch.testing.assert_close(end.x, 2 * end.x0)
    assert not end.eps.any()


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_what_is_redrawn_upwards_is_what_a_step_of_the_forward_process_adds(eta):
    """sqrt(1 - (sigma_t / sigma_s)^2), times eta: up and down alike."""
    t, s, x = LINEAR.at(300), LINEAR.at(700), points(BIMODAL, 6)
    x0, eps = BIMODAL(x, t)
    z = torch.randn(x.shape, generator=seeded(3), dtype=x.dtype)
    new = eta * (1 - (t.noise / t.signal * s.signal / s.noise) ** 2).sqrt()
    wanted = s.signal * x0 + s.noise * ((1 - new**2).sqrt() * eps + new * z)
    got = step(partial(ddim, eta=eta, generator=seeded(3)), x, t, s)
    torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", SAMPLERS)
def test_bad_levels_are_errors_before_any_work(name):
    def never(*_):
        raise AssertionError("work started")

    levels, x = grid(LINEAR, 4), torch.zeros(2, 1)
    for bad, message in [
        (levels[:1], "at least two"),
        ([], "at least two"),
        ([levels[0], levels[2], levels[1]], "level 2"),
        ([levels[0], levels[0], levels[1]], "level 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            SAMPLERS[name](never, x, bad)


def test_bad_options_are_errors():
    levels, x = grid(LINEAR, 4), torch.zeros(2, 1)
    for eta in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=f"eta = {eta}"):
            next(ddim(BIMODAL, x, levels, eta=eta))
    with pytest.raises(ValueError, match="variance = 'tilde'"):
        next(ddpm(BIMODAL, x, levels, variance="tilde"))


def test_pure_noise_has_the_amplitude_of_its_level():
    t = NoiseLevel(*torch.tensor([1.0, 80.0]))
    x = initial_noise((40_000, 1), t, seeded())
    assert x.std().item() == pytest.approx(80, rel=5 / (2 * 40_000) ** 0.5)
    assert x.mean().item() == pytest.approx(0, abs=5 * 80 / 40_000**0.5)
    assert x.shape == (40_000, 1)
    assert torch.equal(x, initial_noise((40_000, 1), t, seeded()))
    assert not torch.equal(x, initial_noise((40_000, 1), t, seeded(1)))
    assert x.dtype == torch.float32
    assert initial_noise((3, 1), t, dtype=torch.float64).dtype == torch.float64
