import math

import pytest
import torch
from torch import nn
from worlds import MIXTURES, SCHEDULES, middle, points

import didiff
from didiff import TARGETS, Denoiser, add_noise, loss, mixtures
from didiff.denoiser import network_input, quick
from didiff.networks import MLP


class Tiny(nn.Module):
    """The least network that uses all it is told, for points of any shape."""

    def __init__(self, size: int):
        super().__init__()
        self.layer, self.label = nn.Linear(size + 2, size), nn.Embedding(11, 1)

    def forward(self, x, clock, y=None):
        y = torch.full((len(x),), -1) if y is None else y
        told = torch.cat([x.flatten(1), clock[:, None], self.label(y + 1)], 1)
        return self.layer(told).reshape(x.shape)


def test_v_is_salimans_and_ho_on_unit_variance_and_minus_the_f_of_karras_elsewhere():
    x0, eps = torch.randn(2, 5, 3, dtype=torch.float64)
    t = middle(SCHEDULES["trigonometric"], 5).like(x0)
    p, q = TARGETS["v"](t, 1.0)
    torch.testing.assert_close(p * x0 + q * eps, t.signal * eps - t.noise * x0)
    t, sigma_data = middle(SCHEDULES["exploding"], 5).like(x0), 0.5
    total = t.sigma**2 + sigma_data**2
    c_skip, c_out = sigma_data**2 / total, t.sigma * sigma_data / total.sqrt()
    F = (x0 - c_skip * (x0 + t.sigma * eps)) / c_out
    p, q = TARGETS["v"](t, sigma_data)
    torch.testing.assert_close(p * x0 + q * eps, -F)


def test_the_score_row_is_the_score_of_the_noising_kernel():
    x0 = torch.randn(4, 3, dtype=torch.float64)
    t = middle(SCHEDULES["linear"], 4).like(x0)
    xt = add_noise(x0, torch.randn_like(x0), t).requires_grad_()
    kernel = torch.distributions.Normal(t.signal * x0, t.noise)
    (wanted,) = torch.autograd.grad(kernel.log_prob(xt).sum(), xt)
    p, q = TARGETS["score"](t, 1.0)
    eps = (xt - t.signal * x0) / t.noise
    torch.testing.assert_close(p * x0 + q * eps, wanted)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_network_that_knows_the_answer_is_the_exact_denoiser(target, schedule):
    """Fed the exact p * x0 + q * eps as output, the denoiser must return the exact pair."""
    mixture = MIXTURES["three modes"]
    x, t = points(mixture, 8), middle(SCHEDULES[schedule], 8)
    exact = mixture(x, t)
    p, q = TARGETS[target](t.like(x), 0.8)
    answer = p * exact.x0 + q * exact.eps

    class Oracle(nn.Module):
        def forward(self, x, clock, y):
            return answer

    guess = Denoiser(Oracle(), target, sigma_data=0.8)(x, t)
    torch.testing.assert_close(guess.x0, exact.x0, rtol=0, atol=1e-11)
    torch.testing.assert_close(guess.eps, exact.eps, rtol=0, atol=1e-11)


def test_the_network_sees_unit_variance_and_the_clock():
    seen = []

    class Witness(nn.Module):
        def forward(self, x, clock, y):
            seen.append((x, clock))
            return torch.zeros_like(x)

    n, sigma_data = 40_000, 0.3
    generator = torch.Generator().manual_seed(0)
    t = SCHEDULES["exploding"](torch.rand(n, generator=generator, dtype=torch.float64))
    x0 = sigma_data * torch.randn(n, 1, generator=generator, dtype=torch.float64)
    eps = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    Denoiser(Witness(), sigma_data=sigma_data)(add_noise(x0, eps, t), t)
    assert seen[0][0].std().item() == pytest.approx(1, abs=5 / (2 * n) ** 0.5)
    torch.testing.assert_close(seen[0][1], t.clock)


def test_what_the_network_is_shown_for_one_level_and_for_a_level_each():
    x, sigma_data = torch.randn(3, 2, dtype=torch.float64), 0.3
    for k in (400, [1, 400, 1000]):
        t = SCHEDULES["linear"].at(k)
        shown, clock = network_input(x, t, sigma_data)
        signal, noise, told = (torch.as_tensor(v).expand(3) for v in (*t, t.clock))
        for i in range(3):
            size = math.sqrt((signal[i] * sigma_data) ** 2 + noise[i] ** 2)
            torch.testing.assert_close(shown[i], x[i] / size)
        assert torch.equal(clock, told)
    assert network_input(x.float(), t, 1.0)[1].dtype == torch.float32


def test_integers_are_numbers_like_others():
    """A clock of type uint8 would be 0, whatever the level."""
    denoiser, t = Denoiser(Tiny(2)), SCHEDULES["linear"].at([10, 800])
    x = torch.tensor([[200, 100], [20, 250]], dtype=torch.uint8)
    for a, b in zip(denoiser(x, t), denoiser(x.float(), t), strict=True):
        assert torch.equal(a, b)
    eps = torch.randn(2, 2)
    assert torch.equal(loss(denoiser, x, t, eps=eps), loss(denoiser, x.float(), t, eps=eps))
    assert loss(denoiser, x, t).isfinite().all()


def test_labels_reach_the_network_from_the_denoiser_and_from_the_loss():
    denoiser, t = Denoiser(Tiny(2)), SCHEDULES["linear"].at(400)
    x, eps, y = torch.randn(3, 2), torch.randn(3, 2), torch.tensor([1, 2, 3])
    assert not torch.equal(denoiser(x, t, y).x0, denoiser(x, t).x0)
    assert not torch.equal(loss(denoiser, x, t, y, eps), loss(denoiser, x, t, None, eps))


def test_without_a_word_a_network_is_taught_v_on_unit_variance():
    assert (Denoiser(Tiny(2)).target, Denoiser(Tiny(2)).sigma_data) == ("v", 1.0)
    assert Denoiser(Tiny(2)).dtype is None


@pytest.mark.parametrize("target", ["eps", "x0", "v", "flow"])
def test_a_network_trained_on_one_schedule_walks_them_all(target):
    """The denoiser depends on the angle of the level only, so VP, VE and straight walks agree."""
    net = Denoiser(MLP((2,), 16, 1).double(), target)
    vp = didiff.grid(didiff.trigonometric, 12, start=0.97)
    one = torch.ones((), dtype=torch.float64)
    ve = [didiff.NoiseLevel(one, t.sigma) for t in vp]
    flow = [didiff.NoiseLevel(1 / (1 + t.sigma), t.sigma / (1 + t.sigma)) for t in vp]
    z = torch.randn(8, 2, dtype=torch.float64)
    ends = [didiff.last(didiff.ddim(net, z * levels[0].noise, levels)) for levels in (vp, ve, flow)]
    torch.testing.assert_close(ends[0], ends[1])
    torch.testing.assert_close(ends[0], ends[2])


@pytest.mark.parametrize("name", ["gaussian", "uneven", "images"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_loss_of_a_target_is_the_squared_error_of_what_it_names(target, name):
    mixture = MIXTURES[name]
    x0, eps = points(mixture, 6, seed=1), points(mixture, 6, seed=2)
    t = middle(SCHEDULES["linear"], 6)
    s = t.like(x0)
    guess = mixture(add_noise(x0, eps, t), t)
    named = {
        "eps": lambda x0, eps: eps,
        "x0": lambda x0, eps: x0,
        "v": lambda x0, eps: s.signal * eps - s.noise * x0,
        "flow": lambda x0, eps: eps - x0,
        "score": lambda x0, eps: -eps / s.noise,
    }[target]
    p, q = TARGETS[target](s, 1.0)
    torch.testing.assert_close(p * x0 + q * eps, named(x0, eps))
    got = loss(mixture, x0, t, eps=eps, target=target)
    error = (named(x0, eps) - named(*guess)).square().reshape(6, -1)
    torch.testing.assert_close(got, error.sum(1) / error.shape[1])


def test_the_loss_of_a_denoiser_is_in_its_own_target_and_in_units_of_its_data():
    """v at sigma_data = 1/2, typed anew: (signal s eps - noise x0 / s) / sqrt((signal s)^2 + ..)"""
    x0, eps, s = torch.randn(5, 3), torch.randn(5, 3), 0.5
    t = middle(SCHEDULES["linear"], 5)
    denoiser, (signal, noise) = Denoiser(Tiny(3), "v", s), t.like(x0)
    guess = denoiser(add_noise(x0, eps, t), t)
    off = (signal * s * (guess.eps - eps) - noise / s * (guess.x0 - x0)) / (
        (signal * s) ** 2 + noise**2
    ).sqrt()
    torch.testing.assert_close(loss(denoiser, x0, t, eps=eps), (off**2).mean(1))
    in_x0 = (guess.x0 - x0).square().mean(1)
    torch.testing.assert_close(loss(denoiser, x0, t, eps=eps, target="x0"), in_x0)
    # for one level as for a level each
    one = SCHEDULES["linear"].at(400)
    each = SCHEDULES["linear"].at([400] * 5)
    torch.testing.assert_close(loss(denoiser, x0, one, eps=eps), loss(denoiser, x0, each, eps=eps))


def test_the_loss_draws_fresh_noise_of_unit_variance_for_every_number():
    seen, n = [], 40_000

    def witness(x, t, y):
        seen.append(x)
        return didiff.Prediction(x, x)

    x0, t = torch.full((n // 2, 2), 3.0), didiff.trigonometric(torch.tensor(0.5))
    for _ in range(2):
        loss(witness, x0, t, target="eps")
    eps = (seen[0] - 3 * t.signal) / t.noise
    assert eps.mean().item() == pytest.approx(0, abs=5 / n**0.5)
    assert eps.var().item() == pytest.approx(1, abs=5 * (2 / n) ** 0.5)
    assert abs((eps[:, 0] * eps[:, 1]).mean().item()) < 5 / (n // 2) ** 0.5
    assert not torch.equal(seen[0], seen[1])


def test_the_exact_denoiser_has_the_loss_that_theory_gives():
    """For N(m, s^2) the eps-loss is alpha_bar s^2 / (alpha_bar s^2 + 1 - alpha_bar) (L6-24)."""
    n, mixture = 100_000, mixtures.gaussian(1.0, 0.5)
    generator = torch.Generator().manual_seed(0)
    x0, _ = mixture.sample(n, generator=generator)
    eps = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    for k in (10, 300, 700):
        t = SCHEDULES["linear"].at(k)
        kept = t.alpha_bar.item() * 0.25
        wanted = kept / (kept + 1 - t.alpha_bar.item())
        got = loss(mixture, x0, t, eps=eps, target="eps").mean().item()
        # the error is Gaussian, so its square has standard deviation sqrt(2) * wanted
        assert got == pytest.approx(wanted, abs=5 * 2**0.5 * wanted / n**0.5)


@pytest.mark.parametrize("shape", [(1,), (2,), (3, 8, 8), (4, 4, 4)])
@pytest.mark.parametrize("target", ["eps", "x0", "v", "flow"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_one_protocol_from_points_to_images(shape, target, dtype):
    denoiser = Denoiser(Tiny(math.prod(shape)), target, dtype=dtype)
    x0, y = torch.randn(3, *shape), torch.tensor([0, 3, -1])
    for schedule in SCHEDULES.values():
        values = loss(denoiser, x0, middle(schedule, 3), y)
        assert values.shape == (3,)
        values.mean().backward()
        levels = didiff.grid(schedule, 4, start=0.95)
        guided = didiff.guidance.clip(didiff.guidance.classifier_free(denoiser, y, 2.0))
        end = didiff.last(didiff.heun(guided, didiff.initial_noise((3, *shape), levels[0]), levels))
        assert end.shape == x0.shape
        assert end.dtype == torch.float32
        assert torch.isfinite(end).all()


def test_only_the_network_runs_in_low_precision():
    seen = []

    class Witness(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x, clock, y):
            out = self.layer(x)
            seen.append(out.dtype)
            return out

    guess = Denoiser(Witness(), dtype=torch.bfloat16)(torch.randn(3, 2), SCHEDULES["linear"].at(5))
    assert seen == [torch.bfloat16]
    assert guess.x0.dtype == torch.float32
    for dtype in (torch.float32, torch.float64):
        Denoiser(Witness().to(dtype))(torch.randn(3, 2, dtype=dtype), SCHEDULES["linear"].at(5))
    assert seen[1:] == [torch.float32, torch.float64]


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_network_says_in_low_precision_is_solved_in_the_precision_of_x(target):
    said = torch.randn(3, 2).bfloat16()

    class Low(nn.Module):
        def forward(self, x, clock, y):
            return said

    class High(nn.Module):
        def forward(self, x, clock, y):
            return said.float()

    x, t = torch.randn(3, 2), SCHEDULES["linear"].at(300)
    for a, b in zip(Denoiser(Low(), target)(x, t), Denoiser(High(), target)(x, t), strict=True):
        assert torch.equal(a, b)


def test_quick_is_the_same_network_in_low_precision_where_the_processor_has_it(monkeypatch):
    slow = Denoiser(Tiny(2), "eps", 0.7)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    monkeypatch.setenv("DIDIFF_QUICK", "0")  # switched off
    assert quick(slow) is slow
    monkeypatch.delenv("DIDIFF_QUICK")
    assert quick(slow).training
    slow.eval()
    for able in ({}, {"avx512_bf16": False, "amx_bf16": False}):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able, raising=False)
        assert quick(slow) is slow
    for name in ("avx512_bf16", "amx_bf16"):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {name: True}, False)
        fast = quick(slow)
        assert fast.net is slow.net
        assert (fast.target, fast.sigma_data, fast.dtype) == ("eps", 0.7, torch.bfloat16)
        assert not fast.training
    monkeypatch.delattr(torch.cpu, "get_capabilities")  # an older version of torch
    assert quick(slow) is slow


def test_bad_denoisers_and_losses_are_errors():
    with pytest.raises(ValueError, match="target = 'noise': choose one of eps, x0"):
        Denoiser(Tiny(2), "noise")
    for bad in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"sigma_data = {bad}"):
            Denoiser(Tiny(2), sigma_data=bad)
    with pytest.raises(ValueError, match="target = 'noise'"):
        loss(MIXTURES["gaussian"], torch.zeros(2, 1), SCHEDULES["linear"].at(5), target="noise")
    with pytest.raises(ValueError, match="target = None"):
        loss(MIXTURES["gaussian"], torch.zeros(2, 1), SCHEDULES["linear"].at(5))
    pure = didiff.trigonometric(torch.tensor(1.0))
    with pytest.raises(ValueError, match="signal = 0"):
        Denoiser(Tiny(2), "eps")(torch.zeros(2, 2), pure)


@pytest.mark.parametrize("target", ["eps", "score"])
def test_a_walk_from_next_to_no_signal_is_refused_to_networks_that_would_divide_by_it(target):
    """An eps-network, walked from the end of the cosine table, is off by 8 to 23 data widths."""
    levels, x = didiff.grid(SCHEDULES["cosine"], 20), torch.zeros(2, 2)
    with pytest.raises(
        ValueError, match=r"signal = 4\.93e-05.*use the target v, or start the grid"
    ):
        didiff.last(didiff.ddim(Denoiser(Tiny(2), target), x, levels))
    levels = didiff.log_snr_grid(SCHEDULES["cosine"], 20)
    with pytest.raises(ValueError, match=r"signal = 4\.93e-05"):
        didiff.last(didiff.dpm_solver_2m(Denoiser(Tiny(2), target), x, levels))
    for fine in (
        didiff.grid(SCHEDULES["cosine"], 20, start=0.99),
        didiff.grid(SCHEDULES["linear"], 9),
    ):
        assert didiff.last(didiff.ddim(Denoiser(Tiny(2), target), x, fine)).isfinite().all()
    levels = didiff.grid(SCHEDULES["cosine"], 20)
    assert didiff.last(didiff.ddim(Denoiser(Tiny(2), "v"), x, levels)).abs().max() < 20
