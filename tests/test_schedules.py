import math

import pytest
import torch
from worlds import SCHEDULES

from didiff import (
    DDPMSchedule,
    NoiseLevel,
    ddim,
    exploding,
    grid,
    initial_noise,
    karras_levels,
    last,
    log_snr_grid,
    mixtures,
    straight,
    trigonometric,
)
from didiff.schedules import check_monotone, constant, cosine, linear


@pytest.mark.parametrize("betas", [linear, cosine, constant])
def test_alpha_bar_is_the_running_product_that_starts_at_one(betas):
    schedule = DDPMSchedule(300, betas)
    assert schedule.alpha_bar[0] == 1
    assert len(schedule.alpha_bar) == 301
    product = 1.0
    for k in range(1, 301):
        product *= 1 - schedule.beta[k - 1].item()
        assert schedule.alpha_bar[k].item() == pytest.approx(product, rel=1e-11)


def test_the_default_table_is_the_lectures_linear_one():
    schedule = DDPMSchedule()
    assert schedule.T == 1000
    assert schedule.beta[0] == 1e-4
    for k in (2, 333, 1000):
        wanted = 1e-4 + (k - 1) / 999 * (0.02 - 1e-4)
        assert schedule.beta[k - 1].item() == pytest.approx(wanted, rel=1e-12)
    assert schedule.alpha_bar[1000].item() == pytest.approx(4.0358e-5, rel=1e-4)
    assert (constant(3) == 0.01).all()


@pytest.mark.parametrize("T", [1, 7, 50, 300, 4000])
def test_another_number_of_steps_walks_the_same_curve_from_end_to_end(T):
    """With the same betas a hundred steps would end in 37 % of the signal, which is no noise."""
    short, k = DDPMSchedule(T), torch.arange(T + 1)
    at_the_same_time = DDPMSchedule(1000, linear)(k.double() / T)
    for a, b in zip(short.at(k), at_the_same_time, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)
    assert short.at(T).signal < 0.0064


def test_samples_of_a_short_table_have_the_mean_of_the_data():
    """The walk shrinks what is left of the start by sigma_s / sigma_t at best: under 1 % of it."""
    n, data, levels = 20_000, mixtures.gaussian(1.0, 0.5), grid(DDPMSchedule(100), 50)
    start = initial_noise((n, 1), levels[0], torch.Generator().manual_seed(0), torch.float64)
    mean = last(ddim(data, start, levels)).mean().item()
    assert mean == pytest.approx(1, abs=5 * 0.5 / n**0.5 + 0.01)


def test_the_table_is_variance_preserving_and_at_reads_it():
    schedule = DDPMSchedule()
    t = schedule.at(torch.arange(1001))
    torch.testing.assert_close(t.signal**2 + t.noise**2, torch.ones(1001, dtype=torch.float64))
    torch.testing.assert_close(t.signal**2, schedule.alpha_bar)
    assert str(t.noise[0].item()) == "0.0"  # and not -0.0, which prints


def test_one_step_of_the_chain_composes_with_the_closed_form():
    """alpha_t (1 - alpha_bar_{t-1}) + beta_t = 1 - alpha_bar_t for all t (DS-42)."""
    schedule = DDPMSchedule(1000, cosine)
    before, after = schedule.alpha_bar[:-1], schedule.alpha_bar[1:]
    torch.testing.assert_close((1 - schedule.beta) * (1 - before) + schedule.beta, 1 - after)


def test_between_the_entries_the_table_is_read_without_a_jump():
    schedule = DDPMSchedule(10)
    torch.testing.assert_close(
        schedule(torch.arange(11) / 10.0).signal, schedule.at(range(11)).signal
    )
    u = torch.linspace(0, 1, 5001, dtype=torch.float64)
    log_ab = 2 * schedule(u).signal.log()
    assert log_ab.diff().max() < 0
    # piecewise linear: each of the 10 pieces has one slope, log(1 - beta)
    slopes = (log_ab.diff() * 500).reshape(10, 500)
    expected = torch.log1p(-schedule.beta)[:, None].expand(10, 500)
    torch.testing.assert_close(slopes, expected, rtol=1e-6, atol=1e-12)


def test_the_cosine_table_is_cut_before_a_step_wipes_out_the_signal():
    schedule = DDPMSchedule(1000, cosine)
    assert schedule.beta.max() == 0.999
    assert cosine(1000, max_beta=0.5).tolist() == schedule.beta.clamp(max=0.5).tolist()
    for s, table in {0.008: schedule, 0.1: DDPMSchedule(1000, cosine(1000, 0.1))}.items():
        angle = math.pi / 2 / (1 + s)
        for k in (1, 500, 999):
            wanted = (math.cos((k / 1000 + s) * angle) / math.cos(s * angle)) ** 2
            assert table.alpha_bar[k].item() == pytest.approx(wanted, rel=1e-10)


def test_the_ends_of_the_continuous_schedules_are_exact():
    for schedule in (trigonometric, straight):
        assert schedule(torch.tensor(0.0)) == (1, 0)
        assert schedule(torch.tensor(1.0)) == (0, 1)
    assert exploding(30.0)(torch.tensor(1.0)) == (1, 30)


def test_the_continuous_schedules_are_their_formulas():
    u = torch.tensor([0.0, 0.2, 0.7, 1.0], dtype=torch.float64)
    wanted = {
        trigonometric: ((u * math.pi / 2).cos(), (u * math.pi / 2).sin()),
        straight: (1 - u, u),
        exploding(): (torch.ones(4).double(), 80 * u),
        exploding(3): (torch.ones(4).double(), 3 * u),
    }
    for schedule, pair in wanted.items():
        for value, formula in zip(schedule(u), pair, strict=True):
            torch.testing.assert_close(value, formula, rtol=0, atol=1e-15)
        for value, formula in zip(schedule(0.2), pair, strict=True):  # Python's numbers: float64
            torch.testing.assert_close(value, formula[1], rtol=0, atol=1e-15)
        for integer, value in zip(schedule(torch.tensor([0, 1])), schedule(u[::3]), strict=True):
            torch.testing.assert_close(integer, value.float())


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_time_outside_the_schedule_points_to_the_steps(name):
    """u = 500 meant as a step would be pure noise, or clean data, without a word."""
    schedule = SCHEDULES[name]
    for bad in (500, -0.1, 1.2, 1.001, -0.001, math.nan):
        with pytest.raises(
            ValueError, match=rf"u = {bad:g}: .* 0 \(data\) to 1 \(noise\).*at\(k\)"
        ):
            schedule(bad)
        with pytest.raises(ValueError, match=f"u = {bad:g}"):
            schedule(torch.tensor([[0.5], [bad]], dtype=torch.float64))
    with pytest.raises(ValueError, match=r"u = 1\.5"):
        grid(schedule, 3, start=1.5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_rounding_at_the_ends_is_not_outside(name):
    schedule = SCHEDULES[name]
    for u, end in ((1 + 1e-12, 1.0), (-1e-12, 0.0), (1 + 1e-7, 1.0)):
        assert schedule(u) == schedule(end)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_can_be_differentiated(name):
    def both(u):
        signal, noise = SCHEDULES[name](u)
        return 2 * signal + noise

    u, h = torch.tensor([0.1234, 0.8765], dtype=torch.float64, requires_grad=True), 1e-6
    (slope,) = torch.autograd.grad(both(u).sum(), u)
    measured = (both(u + h) - both(u - h)) / (2 * h)
    torch.testing.assert_close(slope, measured.detach(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 7, 50, 1000])
def test_a_grid_runs_from_pure_noise_to_data_and_is_strictly_cleaner(name, steps):
    levels = grid(SCHEDULES[name], steps)
    assert len(levels) == steps + 1
    assert levels[0].clock == SCHEDULES[name](torch.tensor(1.0, dtype=torch.float64)).clock
    assert levels[-1].noise == 0
    clocks = torch.stack([t.clock for t in levels])
    assert (clocks.diff() < 0).all()


@pytest.mark.parametrize("name", ["linear", "cosine", "trigonometric", "straight"])
def test_the_log_snr_grid_has_equal_distances_in_log_snr(name):
    levels = log_snr_grid(SCHEDULES[name], 12, start=0.99)
    log_snr = torch.stack([t.snr.log() for t in levels[:-1]])
    assert len(levels) == 13
    assert levels[-1].noise == 0
    gaps = log_snr.diff()
    torch.testing.assert_close(gaps, gaps.mean().expand(11), rtol=0, atol=1e-9)
    ends = [SCHEDULES[name](torch.tensor(u, dtype=torch.float64)).snr.log() for u in (0.99, 1e-3)]
    torch.testing.assert_close(log_snr[[0, -1]], torch.stack(ends), rtol=1e-9, atol=1e-9)


def test_karras_levels_are_the_published_formula():
    levels = karras_levels(5, 0.002, 80.0, 7.0)
    for i, t in enumerate(levels[:-1]):
        wanted = (80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        assert t.noise.item() == pytest.approx(wanted)
        assert t.signal == 1
    assert levels[-1] == (1, 0)
    assert [t.noise.item() for t in karras_levels(1)] == pytest.approx([80.0, 0.0])
    assert karras_levels(5) == levels
    assert karras_levels(5, rho=3.0)[2].noise.item() == pytest.approx(
        ((80 ** (1 / 3) + 0.002 ** (1 / 3)) / 2) ** 3
    )


def test_a_grid_stops_where_it_is_told_in_float64():
    levels = grid(trigonometric, 4, start=0.9, end=0.1)  # the clock of this schedule is u itself
    assert [t.clock.item() for t in levels] == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1], abs=1e-15)
    assert grid(trigonometric, 4, start=0.1, end=0.9)[0].clock.item() == pytest.approx(0.1)
    assert len(grid(DDPMSchedule(100), 100)) == 101
    for made in (grid(straight, 3), log_snr_grid(DDPMSchedule(), 3), karras_levels(3)):
        assert {v.dtype for t in made for v in t} == {torch.float64}
        assert {v.ndim for t in made for v in t} == {0}


def test_the_log_snr_grid_runs_from_the_whole_noise_to_a_thousandth_unless_told():
    levels, table = log_snr_grid(DDPMSchedule(), 9), DDPMSchedule()
    assert levels[0].signal.item() == pytest.approx(table.at(1000).signal.item(), rel=1e-9)
    assert levels[-2].noise.item() == pytest.approx(table.at(1).noise.item(), rel=1e-9)
    assert len(log_snr_grid(DDPMSchedule(100), 100)) == 101


@pytest.mark.parametrize("T", [0, -3])
def test_a_schedule_without_steps_is_an_error(T):
    with pytest.raises(ValueError, match=f"T = {T}"):
        DDPMSchedule(T)


@pytest.mark.parametrize("beta", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_beta_outside_the_open_interval_is_named(beta):
    with pytest.raises(ValueError, match=f"beta_2 = {beta:g}"):
        DDPMSchedule(3, torch.tensor([0.1, beta, 0.1]))


def test_betas_of_another_length_are_an_error():
    with pytest.raises(ValueError, match=r"\(3,\) for T = 4"):
        DDPMSchedule(4, torch.full((3,), 0.1))


@pytest.mark.parametrize("k", [-1, 1001])
def test_a_step_outside_the_table_is_an_error_and_never_wraps(k):
    with pytest.raises(ValueError, match=r"outside the table 0\.\.1000"):
        DDPMSchedule().at(k)
    with pytest.raises(ValueError, match="outside the table"):
        DDPMSchedule().at([5, k])


def test_steps_are_integers_of_any_kind():
    table = DDPMSchedule()
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        k = torch.tensor([0, 1, 7, 1], dtype=dtype)  # uint8 would be taken for a mask
        assert table.at(k).signal.tolist() == table.alpha_bar[[0, 1, 7, 1]].sqrt().tolist()
    for bad in (0.5, torch.tensor([1.0, 2.0]), torch.tensor([True, False])):
        with pytest.raises(
            ValueError, match=r"steps are integers; between them, schedule\(k / T\)"
        ):
            table.at(bad)


@pytest.mark.parametrize("make", [grid, log_snr_grid])
@pytest.mark.parametrize("steps", [0, -1, 101])
def test_zero_steps_or_more_than_the_table_has_are_errors(make, steps):
    with pytest.raises(ValueError, match=f"steps = {steps}: choose 1 to 100"):
        make(DDPMSchedule(100), steps)


def test_grids_of_continuous_schedules_check_their_steps_too():
    for make in (lambda: grid(straight, 0), lambda: karras_levels(0)):
        with pytest.raises(ValueError, match="steps = 0"):
            make()


def test_a_schedule_that_is_not_monotone_is_an_error_that_names_the_place():
    def wave(u):
        return trigonometric(u + 0.2 * torch.sin(4 * torch.pi * u))

    with pytest.raises(ValueError, match="rise or fall all the way, but level"):
        grid(wave, 20)
    levels = grid(straight, 4)
    with pytest.raises(ValueError, match=r"level 2 .* follows level 1"):
        check_monotone([levels[0], levels[1], levels[1], levels[2]])
    with pytest.raises(ValueError, match="at least two"):
        check_monotone(levels[:1])
    assert check_monotone(levels[::-1]) == levels[::-1]
    with pytest.raises(ValueError, match=r"level 3 .* follows level 2"):
        check_monotone([*levels[2::-1], levels[0]])
    with pytest.raises(ValueError, match=r"level 1 .* follows level 0"):
        check_monotone([levels[0], levels[0]])


def test_other_numbers_without_meaning_are_errors():
    for bad in (-1, 0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"sigma_max = {bad}"):
            exploding(bad)
    for low, high in ((2.0, 1.0), (1.0, 1.0), (0.0, 1.0), (-1.0, 1.0)):
        with pytest.raises(ValueError, match="0 < sigma_min < sigma_max"):
            karras_levels(5, low, high)
    with pytest.raises(ValueError, match=r"move the infinite end inwards"):
        log_snr_grid(straight, 5)
    with pytest.raises(ValueError, match=r"move the infinite end inwards"):
        log_snr_grid(DDPMSchedule(), 5, end=0.0)


def test_a_level_is_a_plain_pair():
    signal, noise = NoiseLevel(torch.tensor(0.6), torch.tensor(0.8))
    assert (signal, noise) == (torch.tensor(0.6), torch.tensor(0.8))
