import math

import pytest
import torch
from worlds import SCHEDULES, middle

from didiff import NoiseLevel, add_noise, from_eps, from_x0
from didiff.denoiser import TARGETS
from didiff.process import check_signal, per_sample, solve
from didiff.schedules import check_monotone

EXACT = dict(rtol=0, atol=1e-12)


def level(signal: float, noise: float) -> NoiseLevel:
    return NoiseLevel(*torch.tensor([signal, noise], dtype=torch.float64))


def test_the_properties_of_a_level_are_their_definitions():
    t = level(0.6, 0.8)
    assert t.sigma == pytest.approx(0.8 / 0.6)
    assert t.snr == pytest.approx((0.6 / 0.8) ** 2)
    assert t.alpha_bar == pytest.approx(0.36)
    assert t.clock == pytest.approx(math.atan2(0.8, 0.6) * 2 / math.pi)
    assert level(1, 0).clock == 0
    assert level(0, 1).clock == 1


def test_a_level_means_the_same_on_every_scale():
    small, large = level(0.3, 0.4), level(3.0, 4.0)
    for name in ("sigma", "snr", "alpha_bar", "clock"):
        torch.testing.assert_close(getattr(small, name), getattr(large, name))


@pytest.mark.parametrize("shape", [(1,), (7,), (1, 4, 4), (3, 2, 2)])
def test_one_level_per_sample_scales_each_sample_by_its_own_level(shape):
    """B = D = 7 is the case where plain broadcasting goes wrong without an error (T-24)."""
    x0, eps = torch.randn(2, 7, *shape, dtype=torch.float64)
    t = SCHEDULES["linear"].at(torch.arange(1, 8) * 100)
    xt = add_noise(x0, eps, t)
    for i in range(7):
        torch.testing.assert_close(xt[i], t.signal[i] * x0[i] + t.noise[i] * eps[i])


def test_one_level_scales_all_samples_alike():
    x0, eps = torch.randn(2, 7, 3, 2, dtype=torch.float64)
    one = NoiseLevel(torch.tensor([0.6]), torch.tensor([0.8]))
    for t in (level(0.6, 0.8), one, NoiseLevel(*(v.reshape(1, 1, 1).double() for v in one))):
        torch.testing.assert_close(add_noise(x0, eps, t), 0.6 * x0 + 0.8 * eps, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 4), (4, 1, 4, 4)])
def test_a_number_per_sample_never_multiplies_columns(shape):
    """Four samples of four numbers each are where a wrong shape makes no error by itself (T-24)."""
    x, own = torch.randn(shape, dtype=torch.float64), torch.tensor([2.0, 3.0, 5.0, 7.0])
    wanted = torch.stack([x[i] * own[i].item() for i in range(4)])
    for value in (own, own.tolist(), own.reshape(4, *[1] * (len(shape) - 1)), own.long()):
        torch.testing.assert_close(per_sample(value, x, "omega") * x, wanted)
    assert per_sample(0.1, x, "omega").item() == 0.1  # to the last digit
    for bad in (own.reshape(1, 4), own[:3], own.reshape(2, 2)):
        with pytest.raises(ValueError, match=rf"omega of shape \({bad.shape[0]}, .*batch of 4"):
            per_sample(bad.reshape(bad.shape[0], -1), x, "omega")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int64])
def test_integers_are_numbers_like_others(dtype):
    """uint8 pixels would overflow, and a level of type uint8 would be 0."""
    x0 = torch.tensor([[100], [120], [7]], dtype=dtype)
    eps, float_x0 = torch.randn(3, 1), torch.tensor([[100.0], [120.0], [7.0]])
    for t in (SCHEDULES["linear"].at(400), SCHEDULES["linear"].at([1, 400, 900])):
        xt = add_noise(float_x0, eps, t)
        assert add_noise(x0, eps, t).dtype == torch.float32
        torch.testing.assert_close(add_noise(x0, eps, t), xt)
        torch.testing.assert_close(from_x0(xt, t, x0).eps, eps, rtol=0, atol=1e-3)


def test_scalar_levels_serve_a_device_without_float64(monkeypatch):
    """Apple's GPUs refuse float64 with a TypeError; here every tensor does."""

    def refuse(*_):
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    levels = [NoiseLevel(*torch.tensor(pair)) for pair in ([0.6, 0.8], [0.8, 0.6])]
    monkeypatch.setattr(torch.Tensor, "double", refuse)
    assert check_monotone(levels) == levels
    xt = add_noise(torch.ones(2, 1), torch.ones(2, 1), levels[0])
    torch.testing.assert_close(xt, torch.full((2, 1), 1.4))


def test_a_float64_level_does_not_change_the_type_of_the_data():
    x0 = torch.randn(3, 2)
    assert add_noise(x0, x0, level(0.6, 0.8)).dtype == torch.float32
    assert add_noise(x0, x0, SCHEDULES["linear"].at([1, 2, 3])).dtype == torch.float32


def test_a_single_precision_scalar_is_not_rounded_again_when_it_is_squared():
    """signal^2 + noise^2 of a float32 level, squared in float64, is exact for its two numbers."""
    t = NoiseLevel(torch.tensor(0.1), torch.tensor(0.3)).like(torch.zeros(2, 1).double())
    assert (t.signal**2).item() == torch.tensor(0.1).item() ** 2


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
def test_solve_gets_back_the_pair_from_the_point_and_any_target(schedule, target):
    x0, eps = torch.randn(2, 7, 3, 4, 4, dtype=torch.float64)
    levels = middle(SCHEDULES[schedule], 7)
    for t in (levels.like(x0), NoiseLevel(*(v[4] for v in levels))):
        p, q = TARGETS[target](t, 0.7)
        guess = solve(add_noise(x0, eps, t), t, p * x0 + q * eps, p, q)
        torch.testing.assert_close(guess.x0, x0, **EXACT)
        torch.testing.assert_close(guess.eps, eps, **EXACT)


def test_from_x0_and_from_eps_complete_the_pair():
    x0, eps = torch.randn(2, 5, 3, dtype=torch.float64)
    t = middle(SCHEDULES["cosine"], 5)
    xt = add_noise(x0, eps, t)
    for guess in (from_x0(xt, t, x0), from_eps(xt, t, eps)):
        torch.testing.assert_close(guess.x0, x0, **EXACT)
        torch.testing.assert_close(guess.eps, eps, **EXACT)


def test_an_eps_network_at_pure_noise_is_an_error_with_the_remedy():
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match=r"signal = 0.*use the target v"):
        solve(x, level(0, 1), x, 0.0, 1.0)
    for target in ("v", "x0", "flow"):
        guess = solve(x, level(0, 1), x, *TARGETS[target](level(0, 1), 1.0))
        assert torch.isfinite(guess.x0).all()


def test_an_x0_network_says_nothing_of_the_noise_in_clean_data():
    x = torch.randn(2, 3)
    for target in ("x0", "score"):
        with pytest.raises(ValueError, match="signal = 1, noise = 0"):
            solve(x, level(1, 0), x, *TARGETS[target](level(1, 0), 1.0))
    torch.testing.assert_close(solve(x, level(1, 0), x, 0.0, 1.0).x0, x)


@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("target", ["eps", "score"])
def test_where_an_error_of_eps_would_be_thousands_of_times_larger_in_x0_is_an_error(target, size):
    """The end of the cosine table is refused as pure noise is; that of the linear one serves."""
    x0, eps = torch.randn(2, 3, 2, dtype=torch.float64)
    for schedule in (SCHEDULES["linear"], SCHEDULES["cosine"]):
        t = NoiseLevel(*(size * v for v in schedule.at(1000)))
        x, (p, q) = add_noise(x0, eps, t), TARGETS[target](t, 1.0)
        if schedule is SCHEDULES["linear"]:
            guess = solve(x, t, q * eps, p, q)
            torch.testing.assert_close(guess.x0, x0, rtol=0, atol=1e-11)
            torch.testing.assert_close(from_eps(x, t, eps).x0, x0, rtol=0, atol=1e-11)
        else:
            with pytest.raises(ValueError, match="use the target v, or start the grid a little"):
                solve(x, t, q * eps, p, q)
            with pytest.raises(
                ValueError, match=r"no x0 follows from eps at signal = .*start=0.99"
            ):
                from_eps(x, t, eps)
    for far in ("v", "x0", "flow"):
        assert torch.isfinite(solve(x, t, x, *TARGETS[far](t, 0.01)).x0).all()


def test_one_sample_without_signal_is_enough_for_an_error():
    with pytest.raises(ValueError, match=r"signal = 4\.93e-05"):
        check_signal(SCHEDULES["cosine"].at([500, 1000, 10]))
    check_signal(SCHEDULES["cosine"].at([500, 990, 10]))
    check_signal(level(1e-3, 2e-3))  # the ratio counts, not the scale
    check_signal(level(1, 0))


def test_shapes_that_do_not_match_are_errors():
    with pytest.raises(ValueError, match=r"\(3, 2\) and eps \(3, 1\)"):
        add_noise(torch.zeros(3, 2), torch.zeros(3, 1), level(1, 0))
    with pytest.raises(ValueError, match=r"noise levels of shape \(4,\) for a batch of 3"):
        add_noise(torch.zeros(3, 2), torch.zeros(3, 2), SCHEDULES["linear"].at([1, 2, 3, 4]))
