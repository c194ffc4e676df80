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


def test_paths_are_sums_of_independent_normal_numbers_from_zero():
    for at in (
        times(4, 3.0),
        torch.tensor([1.0, 1.5, 4.0]),
        torch.tensor([0, 1, 2, 4]),
        [0.0, 2.0],
    ):
        steps = torch.as_tensor(at).diff()
        dtype = steps.dtype if steps.is_floating_point() else torch.float32
        z = torch.randn(3, len(steps), generator=seeded(4), dtype=dtype)
        wanted = torch.zeros(3, len(steps) + 1, dtype=dtype)
        for i, dt in enumerate(steps.tolist()):
            wanted[:, i + 1] = wanted[:, i] + math.sqrt(dt) * z[:, i]
        torch.testing.assert_close(wiener(at, 3, seeded(4)), wanted)


def test_a_walk_is_the_recursion_of_euler_and_maruyama():
    """Rates that change with time, and not 1: a rate taken at the end of a step would show."""
    sde = SDE(lambda x, u: -(1 + u) * x + 0.5, lambda u: 2 + 3 * u)
    at, x = [0.1, 0.2, 0.5, 1.1], torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    generator, wanted = seeded(3), [x]
    for now, du in ((0.1, 0.1), (0.2, 0.3), (0.5, 0.6)):
        z = torch.randn(2, 2, generator=generator, dtype=torch.float64)
        x = wanted[-1]
        x = x + (-(1 + now) * x + 0.5) * du + (2 + 3 * now) * math.sqrt(du) * z
        wanted.append(x)
    got = list(simulate(sde, wanted[0], torch.tensor(at, dtype=torch.float64), seeded(3)))
    torch.testing.assert_close(torch.stack(got), torch.stack(wanted), rtol=0, atol=1e-12)


def test_a_walk_keeps_no_gradients_and_takes_integers():
    weight = torch.nn.Parameter(torch.tensor(2.0))
    sde = SDE(lambda x, u: weight * x, lambda u: weight)
    for x in (torch.ones(3, 1), torch.ones(3, 1, requires_grad=True), torch.ones(3, 1).long()):
        path = list(simulate(sde, x, torch.tensor([0, 1, 3])))
        assert len(path) == 3
        assert not any(point.requires_grad for point in path[1:])
        assert all(point.is_floating_point() for point in path)


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
def test_the_sde_of_a_schedule_is_found_whatever_mode_the_caller_is_in(name):
    sde, one = schedule_sde(SCHEDULES[name]), torch.ones(1, dtype=torch.float64)
    for u in (0, 0.3, torch.tensor(0.7), torch.tensor([0.2, 0.6]).double()):
        wanted = sde.drift(one, u), sde.diffusion(u)
        assert wanted[0].isfinite().all()
        assert wanted[1].isfinite().all()
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                assert all(map(torch.equal, (sde.drift(one, u), sde.diffusion(u)), wanted))


def test_a_drift_that_is_infinite_is_an_error():
    for schedule in (didiff.straight, didiff.trigonometric):
        sde, u = schedule_sde(schedule), torch.tensor(1.0)
        for ask in (lambda u, sde=sde: sde.drift(torch.ones(1), u), sde.diffusion):
            with pytest.raises(
                ValueError, match=r"drift at u = 1 is infinite: stay a little below"
            ):
                ask(u)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_sde_of_a_schedule_has_its_marginals(name):
    """Moments follow m' = f m and v' = 2 f v + g^2; the schedule's own must solve these."""
    schedule, sde = SCHEDULES[name], schedule_sde(SCHEDULES[name])
    one, h = torch.ones(1, dtype=torch.float64), 1e-5
    for u in torch.tensor([0.1234, 0.5003, 0.8765], dtype=torch.float64):
        f, g = sde.drift(one, u), sde.diffusion(u)
        low, high = schedule(u - h), schedule(u + h)
        signal, noise = schedule(u)
        near = dict(rtol=1e-7, atol=1e-9)
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


def test_the_rates_of_the_reversed_process_are_andersons():
    """-drift + diffusion^2 score, all at u = end - tau; no two of these numbers are alike."""
    forward = SDE(lambda x, u: u * x + 1, lambda u: 2 + u)
    back = reverse(forward, lambda x, u: 3 * x - u, end=2.0)
    x, tau = torch.tensor([[0.5], [-1.0]]), torch.tensor(0.4)
    torch.testing.assert_close(back.drift(x, tau), -(1.6 * x + 1) + 3.6**2 * (3 * x - 1.6))
    assert back.diffusion(tau).item() == pytest.approx(3.6)
    assert reverse(forward, lambda x, u: x).diffusion(tau).item() == pytest.approx(2.6)


def test_a_process_run_forwards_and_then_reversed_comes_back():
    """N(2, 0.5^2) under dX = -X du + sqrt 2 dW has mean 2 e^-u and variance 1 - 0.75 e^-2u."""
    n, last = 10_000, 2.0
    forward = SDE(lambda x, u: -x, lambda u: torch.full_like(u, 2**0.5))

    def score(x, u):
        return (2 * (-u).exp() - x) / (1 - 0.75 * (-2 * u).exp())

    generator = seeded()
    x0 = 2 + 0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    x1 = end(simulate(forward, x0, times(400, last), generator))
    back = end(simulate(reverse(forward, score, last), x1, times(400, last), generator))
    # Euler's method is off by a part of the order of its step, 0.005, of what it computes
    for x, mean, variance in (
        (x1, 2 * math.exp(-2), 1 - 0.75 * math.exp(-4)), (back, 2.0, 0.25),
    ):  # fmt: skip
        assert x.mean().item() == pytest.approx(mean, abs=5 * (variance / n) ** 0.5 + 0.005 * 2)
        assert x.var().item() == pytest.approx(variance, rel=5 * (2 / n) ** 0.5 + 0.005 * 4)


def test_the_reversed_process_of_a_schedule_draws_from_the_data():
    """From pure noise by the exact score, whose drift is found by differentiating the schedule."""
    n, data, schedule = 1_000, mixtures.gaussian(2.0, 0.5), didiff.trigonometric
    back = reverse(schedule_sde(schedule), lambda x, u: data.score(x, schedule(u)), end=0.99)
    noise = torch.randn(n, 1, generator=seeded(), dtype=torch.float64)
    x = end(simulate(back, noise, times(100, 0.99), seeded(1)))
    bias = 0.03  # of Euler's method with 100 steps, first order in the step
    assert x.mean().item() == pytest.approx(2, abs=5 * 0.5 / n**0.5 + bias)
    assert x.std().item() == pytest.approx(0.5, abs=5 * 0.5 / (2 * n) ** 0.5 + bias)


def test_times_must_increase():
    sde = SDE(lambda x, u: -x, lambda u: torch.ones_like(u))
    for bad in (
        torch.tensor([0.0, 0.0, 1.0]),
        torch.tensor([1.0, 0.0]),
        torch.tensor([[0.0, 1.0]]),
    ):
        with pytest.raises(ValueError, match="increasing"):
            wiener(bad, 3)
        with pytest.raises(ValueError, match="increasing"):
            simulate(sde, torch.zeros(1, 1), bad)
