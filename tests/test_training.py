"""Laws of training: the plain loop bit for bit, exact resume, coins per sample, uniform levels."""

import copy
from itertools import count, islice

import pytest
import torch
from torch import nn

from didiff import DDPMSchedule, Denoiser, data, loss, mixtures, straight
from didiff.networks import MLP
from didiff.training import Muon, drop_labels, fit, random_levels, random_steps

SCHEDULE = DDPMSchedule(100)


def small(width=16):
    torch.manual_seed(1)
    return Denoiser(MLP((1,), width, 2, classes=2))


def points():
    x0, y = mixtures.two_classes().sample(256, generator=torch.Generator().manual_seed(0))
    return data.batches(x0.float(), y, 32, seed=5)


def losses(model, x0, y):
    return loss(model, x0, random_steps(SCHEDULE, len(x0)), drop_labels(y, 0.1))


def same(a, b):
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


# -- the loop ---------------------------------------------------------------------------------


def test_with_its_defaults_fit_is_the_loop_of_the_lessons_bit_for_bit():
    model, batches = small(), points()
    torch.manual_seed(2)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    values = []
    for _ in range(20):
        x0, y = next(batches)
        value = losses(model, x0, y).mean()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())

    other = small()
    torch.manual_seed(2)
    run = list(fit(other, losses, points(), 20))
    assert [p.loss.item() for p in run] == values
    assert [p.step for p in run] == list(range(1, 21))
    assert same(other, model)
    assert run[-1].model is other


class Line(nn.Linear):
    def forward(self, x, clock, y=None):
        return super().forward(x)


def test_fit_reaches_the_exact_floor_of_a_gaussian():
    # data N(1, .5^2) at one noise level: the best denoiser is a line, and its loss is known
    exact, t = mixtures.gaussian(), straight(torch.tensor(0.5, dtype=torch.float64))
    batches = (exact.sample(512) for _ in count())

    def at_half(model, x0, y):
        return loss(model, x0.double(), t)

    *_, end = fit(Denoiser(Line(1, 1).double(), "x0"), at_half, batches, 400, lr=0.02, ema=0.98)
    x0, _ = exact.sample(20000)
    eps = torch.randn(x0.shape).double()
    learned, floor = (
        loss(d, x0.double(), t, eps=eps, target="x0").mean().item() for d in (end.ema, exact)
    )
    assert floor == pytest.approx(0.2, abs=4 * 0.2 * (2 / 20000) ** 0.5)  # 1 / (1 / .25 + 1)
    assert learned / floor == pytest.approx(1, abs=2e-3)


def test_muon_moves_a_convolution_along_the_nearest_orthogonal_matrix_and_biases_as_adam_does():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(8, 4, 3).to(memory_format=torch.channels_last)
    weight, bias = (p.detach().clone() for p in conv.parameters())
    gradient = torch.randn(4, 8, 3, 3)
    optimiser = Muon(conv.parameters())
    for group in optimiser.param_groups:
        group["lr"] = 0.1
    ((conv.weight * gradient).sum() + 3 * conv.bias.sum()).backward()
    optimiser.step()
    step = (weight - conv.weight.detach()).flatten(1) / (0.1 * 0.2 * 72**0.5)
    u, sizes, v = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    sizes /= sizes.norm()
    for _ in range(5):  # Newton-Schulz; torch takes it in bfloat16, which has 8 bits
        sizes = 3.4445 * sizes - 4.775 * sizes**3 + 2.0315 * sizes**5
    torch.testing.assert_close(step, u * sizes @ v, atol=2**-6, rtol=0)
    assert ((sizes > 0.68) & (sizes < 1.21)).all()  # the extremes of that polynomial: nearly one
    torch.testing.assert_close(bias - conv.bias.detach(), torch.full((4,), 0.1))  # Adam's first


def test_the_learning_rate_climbs_in_a_line_and_falls_in_one():
    # with a constant gradient Adam moves by its learning rate, so the path shows the rates
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    batches = ((torch.ones(4, 1).double(),) for _ in count())
    path = [0.0] + [
        p.model.weight.item()
        for p in fit(model, lambda m, x: -m(x)[:, 0], batches, 8, lr=0.1, warmup=4, cooldown=2)
    ]
    moves = torch.tensor(path).diff()
    torch.testing.assert_close(moves, torch.tensor([0.025, 0.05, 0.075, *[0.1] * 4, 0.05]))


def test_clip_keeps_a_wild_batch_from_throwing_the_model():
    def step(clip):
        model = nn.Linear(1, 1, bias=False)
        batches = ((torch.full((4, 1), 1e6),) for _ in count())
        next(fit(model, lambda m, x: m(x)[:, 0], batches, 1, clip=clip))
        return model.weight.grad.norm().item()

    assert step(torch.inf) == pytest.approx(1e6)
    assert step(0.5) == pytest.approx(0.5)


# -- the average ------------------------------------------------------------------------------


def test_the_average_follows_its_recursion_with_a_decay_that_warms_up():
    decay, model = 0.9, small()
    expected = copy.deepcopy(dict(model.named_parameters()))
    for p in fit(model, losses, points(), 200, lr=0.01, ema=decay):
        d = min(decay, (1 + p.step) / (10 + p.step))
        for name, value in p.model.named_parameters():
            expected[name] = (d * expected[name] + (1 - d) * value).detach()
    for name, value in p.ema.named_parameters():
        torch.testing.assert_close(value, expected[name])


def test_the_average_is_a_denoiser_without_gradients_ready_to_sample():
    *_, end = fit(small(), losses, points(), 3, ema=0.9)
    assert (end.ema.target, end.ema.training) == ("v", False)
    assert end.model.training
    x0, eps = end.ema(torch.randn(4, 1), SCHEDULE.at(50), torch.tensor([0, 1, -1, 0]))
    assert not x0.requires_grad
    assert x0.shape == eps.shape == (4, 1)


def test_without_decay_the_average_is_the_model():
    for p in fit(small(), losses, points(), 5):
        assert same(p.ema, p.model)
    assert p.ema is not p.model


def test_the_average_does_not_remember_the_initial_weights():
    # T-27: with decay .9999 from the start, 200 steps would leave 98 % of them
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1000)
    batches = ((torch.ones(4, 1),) for _ in count())
    for p in fit(model, lambda m, x: m(x)[:, 0] ** 2 * 0, batches, 200, ema=0.9999):
        p.model.weight.data.zero_()
    assert abs(p.ema.weight.item()) < 1


# -- checkpoints ------------------------------------------------------------------------------


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    def run(steps, path):
        return fit(
            small(), losses, points(), steps, ema=0.9, warmup=5, cooldown=15, checkpoint=path,
            every=10,
        )  # fmt: skip

    torch.manual_seed(3)
    whole = list(run(30, None))

    path = tmp_path / "run.pt"
    torch.manual_seed(3)
    list(islice(run(30, path), 17))  # the power fails seven steps after the last checkpoint
    torch.manual_seed(4)
    resumed = list(run(30, path))
    assert [p.step for p in resumed] == [*range(10, 31)]
    assert [p.loss for p in resumed] == [p.loss for p in whole[9:]]
    assert same(resumed[-1].model, whole[-1].model)
    assert same(resumed[-1].ema, whole[-1].ema)
    clock = [p.seconds for p in resumed]  # goes on as well: from what the first run had used
    assert 0 < clock[0] < clock[1]
    assert clock == sorted(clock)


def test_a_run_over_freshly_drawn_batches_resumes_exactly_too(tmp_path):
    def run(path):
        batches = (mixtures.two_classes().sample(32) for _ in count())  # from the global generator
        return fit(
            small(), lambda m, x0, y: losses(m, x0.float(), y), batches, 9, checkpoint=path, every=4
        )

    torch.manual_seed(3)
    *_, end = run(None)
    torch.manual_seed(3)
    list(islice(run(tmp_path / "run.pt"), 6))
    torch.manual_seed(4)
    *_, resumed = run(tmp_path / "run.pt")
    assert same(resumed.model, end.model)


def test_muon_resumes_exactly_too_and_warms_up_on(tmp_path):
    def run(steps, path=None):
        torch.manual_seed(3)
        *_, end = fit(
            small(), losses, points(), steps, lr=0.01, warmup=20, checkpoint=path, optimiser=Muon
        )
        return end

    run(8, tmp_path / "run.pt")
    assert same(run(15, tmp_path / "run.pt").model, run(15).model)


def test_a_finished_run_is_there_at_once(tmp_path):
    path = tmp_path / "run.pt"
    *_, end = fit(small(), losses, points(), 7, ema=0.9, checkpoint=path)
    (again,) = fit(small(), losses, points(), 7, ema=0.9, checkpoint=path)
    assert (again.step, again.loss) == (end.step, end.loss)
    assert same(again.ema, end.ema)


def test_a_crash_while_writing_leaves_the_last_checkpoint_whole(tmp_path, monkeypatch):
    path = tmp_path / "run.pt"
    list(fit(small(), losses, points(), 4, checkpoint=path))
    before = path.read_bytes()

    def crash(parts, file):
        file.write_bytes(b"half a check")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", crash)
    with pytest.raises(OSError, match="no space"):
        list(fit(small(), losses, points(), 8, checkpoint=path, every=2))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_of_another_model_is_refused_before_anything_is_touched(tmp_path):
    path = tmp_path / "run.pt"
    list(fit(small(16), losses, points(), 2, checkpoint=path))
    other, untouched = small(24), small(24)
    with pytest.raises(ValueError, match=r"run.pt: it holds another model \(net.blocks.0.inner"):
        fit(other, losses, points(), 4, checkpoint=path)
    assert same(other, untouched)


def test_a_damaged_checkpoint_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    list(fit(small(), losses, points(), 2, checkpoint=path))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"cannot go on from .*run.pt.*delete it"):
        fit(small(), losses, points(), 4, checkpoint=path)


def test_a_checkpoint_past_the_end_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    list(fit(small(), losses, points(), 6, checkpoint=path))
    with pytest.raises(ValueError, match="at step 6, past steps = 5"):
        fit(small(), losses, points(), 5, checkpoint=path)


class Bomb:
    def __reduce__(self):
        return print, ("boom",)


def test_a_checkpoint_cannot_run_code(tmp_path, capsys):
    path = tmp_path / "run.pt"
    torch.save({"model": Bomb()}, path)
    with pytest.raises(ValueError, match="cannot go on"):
        fit(small(), losses, points(), 5, checkpoint=path)
    assert "boom" not in capsys.readouterr().out


# -- what is drawn ----------------------------------------------------------------------------


def test_labels_are_dropped_with_one_coin_per_sample():
    # T-17: the share of dropped labels in a batch of 256 scatters by .019; with a coin per batch .3
    shares = torch.stack(
        [(drop_labels(torch.arange(256), 0.1) == -1).double().mean() for _ in range(50)]
    )
    assert shares.mean() == pytest.approx(0.1, abs=4 * 0.019 / 50**0.5)
    assert shares.std() < 0.05


def test_labels_that_stay_are_unchanged_and_none_becomes_class_zero():
    y = torch.arange(10).repeat(1000)
    dropped = drop_labels(y, 0.3)
    assert torch.equal(dropped[dropped != -1], y[dropped != -1])
    kept = (dropped == 0).double().mean().item()
    assert kept == pytest.approx(0.07, abs=4 * (0.1 * 0.3 * 0.7 / 10000) ** 0.5)  # T-18


def test_dropping_none_or_all():
    y = torch.arange(1000)
    assert torch.equal(drop_labels(y, 0), y)
    assert (drop_labels(y, 1) == -1).all()


def test_a_generator_makes_the_coins_repeatable():
    a, b = (drop_labels(torch.arange(99), 0.5, torch.Generator().manual_seed(4)) for _ in "ab")
    assert torch.equal(a, b)


def test_steps_are_the_integers_from_1_to_T_each_as_likely():
    schedule = DDPMSchedule(5)
    n = 10000
    alpha_bar = random_steps(schedule, n).alpha_bar
    counts = torch.isclose(alpha_bar[:, None], schedule.alpha_bar).sum(0)
    assert counts[0] == 0
    assert counts.sum() == n
    assert (counts[1:] - n / 5).abs().max() < 4 * (n * 0.2 * 0.8) ** 0.5


def test_levels_are_uniform_in_u_and_never_an_end():
    n = 10000
    u = random_levels(straight, n).noise
    assert u.shape == (n,)
    assert (u.min() > 0) & (u.max() < 1)
    gap = (u.sort().values - (torch.arange(n) + 0.5) / n).abs().max()
    assert gap < 2 / n**0.5  # Kolmogorov and Smirnov: exceeded once in 1,500 times


def test_even_the_outermost_levels_keep_some_signal_and_some_noise(monkeypatch):
    monkeypatch.setattr(
        torch, "randint", lambda high, size, generator: torch.tensor([0, high - 1]).expand(size)
    )
    t = random_levels(straight, 2)
    for amplitude in t.like(torch.zeros(2, 1)):  # in the network's precision, too
        assert (amplitude > 0).all()


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drop_labels(torch.arange(3), 1.1), "p = 1.1"),
        (lambda: drop_labels(torch.arange(3), -0.1), "p = -0.1"),
        (lambda: drop_labels(torch.arange(3), float("nan")), "p = nan"),
        (lambda: fit(small(), losses, points(), 0), "steps = 0"),
        (lambda: fit(small(), losses, points(), 5, every=0), "every = 0"),
        (lambda: fit(small(), losses, points(), 5, ema=1.0), "ema = 1.0: a decay lies in"),
        (lambda: fit(small(), losses, points(), 5, ema=float("nan")), "ema = nan"),
        (lambda: fit(small(), losses, points(), 5, clip=0), "clip = 0"),
        (lambda: fit(small(), losses, points(), 5, lr=0.0), "lr = 0"),
        (lambda: fit(small(), losses, points(), 5, lr=float("nan")), "lr = nan"),
        (lambda: fit(small(), losses, points(), 5, warmup=-1), "warmup = -1"),
        (lambda: fit(small(), losses, points(), 5, cooldown=-1), "cooldown = -1"),
    ],
)
def test_bad_input_is_named_at_once(call, message):
    with pytest.raises(ValueError, match=message):
        call()
