import math

import pytest
import torch
from worlds import SCHEDULES, middle

from didiff import NoiseLevel, add_noise, from_eps, from_x0
from didiff.denoiser import TARGETS
from didiff.process import solve


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
    t = middle(SCHEDULES[schedule], 7).like(x0)
    p, q = TARGETS[target](t, 0.7)
    guess = solve(add_noise(x0, eps, t), t, p * x0 + q * eps, p, q)
    torch.testing.assert_close(guess.x0, x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(guess.eps, eps, rtol=0, atol=1e-10)


def test_from_x0_and_from_eps_complete_the_pair():
    x0, eps = torch.randn(2, 5, 3, dtype=torch.float64)
    t = middle(SCHEDULES["cosine"], 5)
    xt = add_noise(x0, eps, t)
    torch.testing.assert_close(from_x0(xt, t, x0).eps, eps)
    torch.testing.assert_close(from_eps(xt, t, eps).x0, x0)


def test_an_eps_network_at_pure_noise_is_an_error_with_the_remedy():
    x = torch.randn(2, 3)
    with pytest.raises(ValueError, match=r"signal = 0.*use the target v"):
        solve(x, level(0, 1), x, 0.0, 1.0)
    for target in ("v", "x0", "flow"):
        guess = solve(x, level(0, 1), x, *TARGETS[target](level(0, 1), 1.0))
        assert torch.isfinite(guess.x0).all()


def test_shapes_that_do_not_match_are_errors():
    with pytest.raises(ValueError, match=r"\(3, 2\) and eps \(3, 1\)"):
        add_noise(torch.zeros(3, 2), torch.zeros(3, 1), level(1, 0))
    with pytest.raises(ValueError, match=r"noise levels of shape \(4,\) for a batch of 3"):
        add_noise(torch.zeros(3, 2), torch.zeros(3, 2), SCHEDULES["linear"].at([1, 2, 3, 4]))
