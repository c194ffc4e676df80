import math
from collections import deque

import pytest
import torch
from worlds import SCHEDULES

import didiff
from didiff import mixtures
from didiff.sde import SDE, reverse, schedule_sde, simulate, wiener


def end(paths):
    return deque(paths, maxlen=1)[0]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def times(steps, last=1.0):
    return torch.linspace(0, last, steps + 1, dtype=torch.float64)


def test_wiener_increments_have_variance_dt_and_do_not_know_one_another():
    n = 40_000
    w = wiener(torch.tensor([0.0, 0.1, 0.5, 2.0], dtype=torch.float64), n, seeded())
    assert (w[:, 0] == 0).all()
    steps = w.diff(dim=1)
    for i, dt in enumerate([0.1, 0.4, 1.5]):
        assert steps[:, i].var().item() == pytest.approx(dt, abs=5 * dt * (2 / n) ** 0.5)
    assert steps.T.corrcoef().triu(1).abs().max() < 5 / n**0.5


def test_quadratic_variation_is_time_whatever_the_step():
    for steps in (1000, 10_000):
        w = wiener(times(steps), 1, seeded())[0]
        # sum of n squares of N(0, 1/n): mean 1, variance 2 / n
        assert (w.diff() ** 2).sum().item() == pytest.approx(1, abs=5 * (2 / steps) ** 0.5)


def test_without_noise_euler_maruyama_is_euler_and_the_error_halves_with_the_step():
    decay = SDE(lambda x, u: -x, lambda u: torch.zeros_like(u))
    errors = [
        abs(end(simulate(decay, torch.ones(1, 1).double(), times(n))).item() - math.exp(-1))
        for n in (100, 200)
    ]
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.02)


def test_an_ornstein_uhlenbeck_process_settles_at_its_variance():
    n = 20_000
    process = SDE(lambda x, u: -x, lambda u: torch.ones_like(u))
    x = end(simulate(process, torch.full((n, 1), 3.0).double(), times(400, 8.0), seeded()))
    dt = 8 / 400
    wanted = 1 / (2 - dt)  # the stationary variance of the Euler recursion itself
    assert x.mean().item() == pytest.approx(3 * math.exp(-8), abs=5 * (wanted / n) ** 0.5)
    assert x.var().item() == pytest.approx(wanted, abs=5 * wanted * (2 / n) ** 0.5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_sde_of_a_schedule_has_its_marginals(name):
    """Moments follow m' = f m and v' = 2 f v + g^2; the schedule's own must solve these."""
    schedule, sde = SCHEDULES[name], schedule_sde(SCHEDULES[name])
    one, h = torch.ones(1, dtype=torch.float64), 1e-5
    for u in torch.tensor([0.1234, 0.5003, 0.8765], dtype=torch.float64):
        f, g = sde.drift(one, u), sde.diffusion(u)
        low, high = schedule(u - h), schedule(u + h)
        signal, noise = schedule(u)
        near = dict(rtol=1e-6, atol=1e-9)
        signal_slope = (high.signal - low.signal) / (2 * h)
        torch.testing.assert_close(signal_slope, (f * signal)[0], **near)
        variance_slope = (high.noise**2 - low.noise**2) / (2 * h)
        torch.testing.assert_close(variance_slope, (2 * f * noise**2)[0] + g**2, **near)


def test_the_sde_of_the_table_is_minus_half_beta_and_root_beta_up_to_beta_squared():
    schedule = didiff.DDPMSchedule()
    sde, one = schedule_sde(schedule), torch.ones(1, dtype=torch.float64)
    for k in (1, 100, 999):
        u = torch.tensor((k + 0.5) / 1000, dtype=torch.float64)
        beta = schedule.beta[k].item()
        assert sde.drift(one, u).item() / 1000 == pytest.approx(-beta / 2, abs=beta**2)
        assert sde.diffusion(u).item() ** 2 / 1000 == pytest.approx(beta, abs=beta**2)


def test_a_process_run_forwards_and_then_reversed_comes_back():
    """N(2, 0.5^2) through the linear table and back by the exact score (DS-23)."""
    n, data, schedule = 20_000, mixtures.gaussian(2.0, 0.5), didiff.DDPMSchedule()
    forward = schedule_sde(schedule)

    def score(x, u):
        return data.score(x, schedule(u))

    generator = seeded()
    x0, _ = data.sample(n, generator=generator)
    x1 = end(simulate(forward, x0, times(1000), generator))
    assert x1.std().item() == pytest.approx(1, abs=0.03)
    back = end(simulate(reverse(forward, score), x1, times(1000), generator))
    bias = 0.01  # of Euler's method with 1000 steps, first order in the step
    assert back.mean().item() == pytest.approx(2, abs=5 * 0.5 / n**0.5 + bias)
    assert back.std().item() == pytest.approx(0.5, abs=5 * 0.5 / (2 * n) ** 0.5 + bias)


def test_times_must_increase():
    sde = SDE(lambda x, u: -x, lambda u: torch.ones_like(u))
    for bad in (torch.tensor([0.0, 0.0, 1.0]), torch.tensor([1.0, 0.0]), torch.zeros(2, 2)):
        with pytest.raises(ValueError, match="increasing"):
            wiener(bad, 3)
        with pytest.raises(ValueError, match="increasing"):
            simulate(sde, torch.zeros(1, 1), bad)
