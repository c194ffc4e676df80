"""Laws of training: the plain loop bit for bit, exact resume, coins per sample, uniform steps."""

import copy
import math
from itertools import chain, count, islice

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from didiff import DDPMSchedule, Denoiser, data, loss, mixtures, straight
from didiff.networks import MLP
from didiff.training import Muon, drop_labels, fit, random_steps

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
    assert not any(p.loss.requires_grad for p in run)


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


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(8, 4, 3).to(memory_format=torch.channels_last), nn.Linear(72, 4)]
)
def test_muon_moves_a_weight_along_the_nearest_orthogonal_matrix_and_biases_as_adam_does(layer):
    conv = copy.deepcopy(layer)
    weight, bias = (p.detach().clone() for p in conv.parameters())
    gradient = torch.randn(weight.shape)
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


def test_muon_leaves_a_weight_without_gradient_alone_however_large():
    line = nn.Linear(3, 2)
    nn.init.constant_(line.weight, 1e4)  # a decay would be seen
    optimiser = Muon(line.parameters())
    for group in optimiser.param_groups:
        group["lr"] = 0.1
    (0 * line.weight.sum() + line.bias.sum()).backward()
    optimiser.step()
    assert (line.weight == 1e4).all()
    optimiser.zero_grad()
    assert [p.grad for p in line.parameters()] == [None, None]
    before = copy.deepcopy(line)
    before.zero_grad()
    optimiser.step()  # a weight that took no part in the loss has no gradient at all
    assert same(line, before)


class Vectors(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(2)), nn.Parameter(torch.tensor(0.0))

    def forward(self, x):
        return self.scale * x + self.shift


@pytest.mark.parametrize("make", [Vectors, lambda: nn.Linear(2, 2, bias=False)])
def test_muon_takes_a_network_of_vectors_or_of_matrices_alone(make, tmp_path):
    x, path, start = torch.randn(8, 2), tmp_path / "run.pt", make()

    def run(steps):
        model, options = copy.deepcopy(start), {"checkpoint": path, "optimiser": Muon}
        return list(fit(model, lambda m, x: (m(x) - 1).square().mean(1), [(x,)], steps, **options))

    first = run(10)
    assert first[-1].loss < first[0].loss
    moved = zip(first[-1].model.parameters(), start.parameters(), strict=True)
    assert not any(torch.equal(now, before) for now, before in moved)
    assert run(12)[0].loss == first[-1].loss


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
    decay, model = 0.5, small()
    expected = copy.deepcopy(dict(model.named_parameters()))
    for p in fit(model, losses, points(), 20, lr=0.01, ema=decay):  # warmed up after 8
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
    # T-27: with decay .9999 from the start, 60 steps would leave 99 % of them
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1000)
    batches = ((torch.ones(4, 1),) for _ in count())
    for p in fit(model, lambda m, x: m(x)[:, 0] ** 2 * 0, batches, 60, ema=0.9999):
        p.model.weight.data.zero_()
    assert abs(p.ema.weight.item()) < 1e-3  # 1000 times the product of (1 + k) / (10 + k)


class Counting(nn.Module):
    """A network with numbers that are no weights, and that notes in which mode it was called."""

    def __init__(self):
        super().__init__()
        self.weight, self.modes = nn.Parameter(torch.tensor(1.0)), []
        self.seen, self.mean = nn.Buffer(torch.tensor(0)), nn.Buffer(torch.tensor(0.0))

    def forward(self, x):
        self.modes.append(self.training)
        self.seen += 1
        self.mean += 1
        return self.weight * x


def test_the_average_takes_buffers_along():
    run = fit(Counting(), lambda m, x: m(x)[:, 0], [(torch.ones(2, 1),)], 3, ema=0.9)
    followed = 0.0
    for p in run:
        d = min(0.9, (1 + p.step) / (10 + p.step))
        followed = d * followed + (1 - d) * p.step
        assert p.ema.mean == pytest.approx(followed, rel=1e-6)
        assert p.ema.seen == p.step  # of what is counted there is no average


def test_every_step_is_made_in_training_mode_whatever_was_done_in_between():
    model = Counting()
    for p in fit(model, lambda m, x: m(x)[:, 0], [(torch.ones(2, 1),)], 3):
        p.model.eval()
    assert model.modes == [True] * 3


# -- batches ----------------------------------------------------------------------------------


X = torch.arange(10.0)[:, None]


def seen(batches, steps):
    """The values of each batch that a run is shown."""
    shown = []

    def losses(model, x, *more):
        shown.append(x.flatten().tolist())
        return model(x)[:, 0]

    list(fit(nn.Linear(1, 1), losses, batches, steps))
    return shown


def test_a_list_is_gone_through_again_and_again():
    pairs = [(X[:2], "first"), (X[2:4], "second")]
    assert seen(pairs, 5) == [[0, 1], [2, 3]] * 2 + [[0, 1]]


def test_a_batch_that_is_no_tuple_is_the_only_part_of_one():
    assert seen([X[:2], [X[2:4]]], 2) == [[0, 1], [2, 3]]


def test_a_data_loader_shuffles_each_epoch_anew():
    shown = seen(DataLoader(TensorDataset(X), 4, shuffle=True), 6)
    epochs = [list(chain(*shown[:3])), list(chain(*shown[3:]))]
    assert [len(batch) for batch in shown] == [4, 4, 2] * 2
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]


def test_an_iterator_serves_as_many_steps_as_it_has_batches():
    assert len(seen(iter([(X[:2],)] * 3), 3)) == 3


@pytest.mark.parametrize(("batches", "number"), [([(X,)] * 3, 3), ([], 0)])
def test_an_iterator_that_ends_is_told_with_the_number_of_its_batches(batches, number):
    run = fit(nn.Linear(1, 1), lambda m, x: m(x)[:, 0], iter(batches), 5)
    wanted = rf"ended after {number}, and step {number + 1} needs one: give a list or a DataLoader"
    with pytest.raises(ValueError, match=wanted):
        list(run)


def test_an_empty_list_is_told_and_not_gone_through_for_ever():
    with pytest.raises(ValueError, match="ended after 0, and step 1 needs one"):
        next(fit(nn.Linear(1, 1), lambda m, x: m(x)[:, 0], [], 5))


# -- what is not finite -----------------------------------------------------------------------


class Rows(nn.Linear):
    """x (B, 2) -> (B,), with a loss whose value or gradient can be spoilt by the batch."""

    def forward(self, x):
        return super().forward(x)[:, 0]


def spoilt(model, x):
    """Finite, unless x is not; at x = 0 its value is 0 and its gradient infinite times zero."""
    return (model(x) * x[:, 0]).abs().sqrt()


GOOD = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (GOOD * math.nan, "the loss is nan .*: mend the data, this batch is not finite"),
        (GOOD * math.inf, "the loss is (nan|inf) .*: mend the data"),
        (GOOD * 0, "the loss is 0 and its gradient nan long: a smaller lr or clip may help"),
        (GOOD * 1e30, "the loss is inf and its gradient .*: a smaller lr"),
        (GOOD * 1e3, r"the loss is inf and its gradient [\d.]+ long: a smaller lr"),
    ],
    ids=["nan", "inf", "gradient", "overflow", "value alone"],
)
@pytest.mark.parametrize("clip", [math.inf, 1.0])
def test_a_step_that_is_not_finite_stops_the_run_and_changes_nothing(bad, told, clip, tmp_path):
    path, model = tmp_path / "run.pt", Rows(2, 1)

    def losses(model, x, y):
        value = spoilt(model, x)
        return value if x.abs().max() < 1e3 else value * 1e30 if x.max() > 1e9 else value + math.inf

    # four good batches and a bad one, which is the second of the second epoch
    y = torch.arange(2)
    batches = Epochs([(GOOD, y)] * 3, [(GOOD, y), (bad, y), (GOOD, y)])
    run = fit(model, losses, batches, 9, ema=0.9, clip=clip, checkpoint=path, every=1)
    for _ in range(4):
        last = next(run)
    before, average, kept = copy.deepcopy(model), copy.deepcopy(last.ema), path.read_bytes()
    with pytest.raises(ValueError, match=f"^step 5, batch 2 of epoch 2: {told}"):
        next(run)
    assert same(model, before)
    assert same(last.ema, average)
    assert path.read_bytes() == kept


class Epochs:
    """What gives other batches each time it is gone through."""

    def __init__(self, *epochs):
        self.left = list(epochs)

    def __iter__(self):
        return iter(self.left.pop(0))


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


def shuffled_by_the_global_numbers():
    return DataLoader(TensorDataset(X), 4, shuffle=True)


def shuffled_by_its_own():
    own = torch.Generator().manual_seed(5)
    return DataLoader(TensorDataset(X), 4, shuffle=True, generator=own)


def in_order():
    return [(part,) for part in X.split(4)]


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 9], ids="cut after {}".format)
@pytest.mark.parametrize("supply", [shuffled_by_the_global_numbers, shuffled_by_its_own, in_order])
def test_a_run_resumes_exactly_in_the_middle_of_an_epoch_and_at_its_end(tmp_path, supply, cut):
    shown, path = [], tmp_path / "run.pt"

    def losses(model, x):
        shown.append(x.flatten().tolist())
        return (model(x) - torch.randn(len(x), 1))[:, 0] ** 2

    def run(path):
        torch.manual_seed(1)
        return fit(nn.Linear(1, 1), losses, supply(), 10, checkpoint=path, every=1)

    *_, whole = run(None)
    expected = shown[cut:]
    list(islice(run(path), cut))
    shown.clear()
    *_, resumed = run(path)
    assert shown == expected
    assert same(resumed.model, whole.model)


def test_a_resumed_run_says_where_it_is_as_an_uninterrupted_one(tmp_path):
    path = tmp_path / "run.pt"

    def losses(model, x):
        return model(x)[:, 0]

    list(fit(nn.Linear(1, 1), losses, in_order(), 4, checkpoint=path))
    bad = [*in_order()[:1], (X[4:8] * math.nan,), *in_order()[2:]]  # a file went bad since
    with pytest.raises(ValueError, match="step 5, batch 2 of epoch 2"):
        list(fit(nn.Linear(1, 1), losses, bad, 6, checkpoint=path))


def test_fewer_batches_than_before_are_told_before_anything_is_touched(tmp_path):
    path = tmp_path / "run.pt"
    list(fit(small(), losses, points(), 4, checkpoint=path))
    model, untouched = small(), small()
    with pytest.raises(ValueError, match="ended after 2, and step 3 needs one"):
        fit(model, losses, islice(points(), 2), 8, checkpoint=path)
    assert same(model, untouched)


@pytest.mark.parametrize(("every", "wanted"), [({}, [9]), ({"every": 4}, [4, 8, 9])])
def test_a_checkpoint_is_written_every_so_many_steps_and_at_the_end(tmp_path, every, wanted):
    path, saved = tmp_path / "run.pt", []
    for p in fit(nn.Linear(1, 1), lambda m, x: m(x)[:, 0], [X], 9, checkpoint=path, **every):
        if path.exists():
            saved.append(p.step)
            path.unlink()
    assert saved == wanted


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
    with pytest.raises(ValueError, match=r"run.pt: it holds another model \(net.\S+ is \(16, 64\)"):
        fit(other, losses, points(), 4, checkpoint=path)
    assert same(other, untouched)


def of_target(target="v", sigma_data=1.0):
    torch.manual_seed(1)
    return Denoiser(MLP((1,), 16, 2, classes=2), target, sigma_data)


def of_depth(depth):
    return Denoiser(MLP((1,), 16, depth, classes=2))


def with_momentum(parameters, momentum=0.9):
    return torch.optim.SGD(parameters, 0.1, momentum)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"denoiser": of_target("eps")}, r"another model \(target is v there and eps here\)"),
        (
            {"denoiser": of_target("v", 0.5)},
            r"another model \(sigma_data is 1.0 there and 0.5 here",
        ),
        ({"denoiser": of_depth(3)}, r"another model \(net\.blocks\.2\S+ is None there and \(16,"),
        ({"denoiser": of_depth(1)}, r"another model \(net\.blocks\.1\S+ is \(16,.* and None here"),
        ({"denoiser": nn.Linear(1, 1)}, r"another model \(net\..* there and None here\)"),
        ({"optimiser": Muon}, r"another optimiser \(kind is Adam there and Muon here\)"),
        ({"optimiser": with_momentum}, r"another optimiser \(kind is Adam there and SGD here\)"),
        (
            {"optimiser": lambda p: torch.optim.Adam(p, betas=(0.9, 0.99))},
            r"another optimiser \(0.betas is \(0.9, 0.999\) there and \(0.9, 0.99\) here\)",
        ),
        (
            {"optimiser": lambda p: torch.optim.Adam([{"params": [q]} for q in p])},
            r"another optimiser \(0.parameters is \d+ there and 1 here\)",
        ),
        ({"lr": 0.01}, "its learning rate at step 1 was 0.0002, and here it would be 0.002"),
        ({"warmup": 10}, "its learning rate at step 1 was 0.0002, and here it would be 0.0001"),
        ({"cooldown": 6}, "its learning rate at step 6 was 0.001, and here it would be 0.0008333"),
        ({"steps": 20}, "its learning rate at step 9 was 0.000666667, and here it would be 0.001"),
        ({"ema": 0.5}, r"another run \(ema is 0.9 there and 0.5 here\)"),
        ({"clip": 2.0}, r"another run \(clip is 1.0 there and 2.0 here\)"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_before_anything_is_touched(tmp_path, options, told):
    path = tmp_path / "run.pt"
    usual = {"steps": 10, "ema": 0.9, "clip": 1.0, "warmup": 5, "cooldown": 3, "checkpoint": path}
    list(islice(fit(of_target(), losses, points(), **usual, every=9), 9))
    given = {"denoiser": of_target()} | usual | options
    model, untouched = given["denoiser"], copy.deepcopy(given["denoiser"])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"cannot go on from .*run\.pt: .*{told}.*; delete it"):
        fit(losses=losses, batches=points(), **given)
    assert same(model, untouched)
    assert path.read_bytes() == before


def test_a_run_may_be_made_longer_until_it_cools_down(tmp_path):
    path, options = tmp_path / "run.pt", {"warmup": 2, "cooldown": 3}

    def run(steps, path=None):
        torch.manual_seed(3)
        return fit(small(), losses, points(), steps, checkpoint=path, every=8, **options)

    list(islice(run(10, path), 8))  # the last step of the full rate
    *_, longer = run(14, path)
    *_, at_once = run(14)
    assert same(longer.model, at_once.model)


def test_a_setting_that_another_version_of_torch_has_is_no_other_run(tmp_path):
    path, adam = tmp_path / "run.pt", torch.optim.Adam

    def newer(parameters):
        optimiser = adam(parameters)
        optimiser.param_groups[0] |= {"novelty": True}
        return optimiser

    list(fit(small(), losses, points(), 2, checkpoint=path, optimiser=newer))
    *_, end = fit(small(), losses, points(), 3, checkpoint=path)
    assert end.step == 3


def test_whole_numbers_and_fractions_make_one_run_in_whatever_mode_the_model_came(tmp_path):
    path, model = tmp_path / "run.pt", of_target("v", 1.0).eval()
    list(fit(of_target("v", 1), losses, points(), 2, ema=0, clip=1, checkpoint=path))
    *_, end = fit(model, losses, points(), 3, ema=0.0, clip=1.0, checkpoint=path)
    assert end.step == 3


def test_a_checkpoint_of_a_machine_with_more_gpus_goes_on_with_the_first(tmp_path, monkeypatch):
    path, state = tmp_path / "run.pt", torch.get_rng_state()
    of_three = [torch.full((16,), k, dtype=torch.uint8) for k in range(3)]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: of_three)
    list(fit(small(), losses, points(), 2, checkpoint=path))
    after = torch.get_rng_state()
    assert not torch.equal(after, state)
    for gpus in 0, 1, 3, 5:
        found = {}
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        monkeypatch.setattr(
            torch.cuda, "set_rng_state", lambda state, gpu, found=found: found.update({gpu: state})
        )
        (end,) = fit(small(), losses, points(), 2, checkpoint=path)
        assert end.step == 2
        assert [state[0] for state in found.values()] == list(found) == list(range(min(gpus, 3)))
        assert torch.equal(torch.get_rng_state(), after)


def test_a_process_without_gpus_asks_none_for_its_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", None)  # to ask would wake them all
    list(fit(small(), losses, points(), 2, checkpoint=tmp_path / "run.pt"))


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    torch.save({"model": small().state_dict(), "step": 3}, path)
    with pytest.raises(ValueError, match="it lacks 'states', another version wrote it; delete it"):
        fit(small(), losses, points(), 4, checkpoint=path)


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


def test_a_generator_makes_the_steps_repeatable():
    a, b = (random_steps(SCHEDULE, 99, torch.Generator().manual_seed(4)) for _ in "ab")
    assert torch.equal(a.signal, b.signal)


def test_steps_are_the_integers_from_1_to_T_each_as_likely():
    schedule = DDPMSchedule(5)
    n = 10000
    alpha_bar = random_steps(schedule, n).alpha_bar
    counts = torch.isclose(alpha_bar[:, None], schedule.alpha_bar).sum(0)
    assert counts[0] == 0
    assert counts.sum() == n
    assert (counts[1:] - n / 5).abs().max() < 4 * (n * 0.2 * 0.8) ** 0.5


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int64, list])
def test_labels_of_any_whole_numbers_can_be_dropped(kind):
    y = [0, 1, 2, 9] if kind is list else torch.tensor([0, 1, 2, 9], dtype=kind)
    for p, left in [(0, [0, 1, 2, 9]), (1, [-1] * 4)]:
        dropped = drop_labels(y, p)
        assert (dropped.tolist(), dropped.dtype) == (left, torch.int64)
    assert drop_labels(3, 1).tolist() == -1


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drop_labels(torch.arange(3), 1.1), "p = 1.1"),
        (lambda: drop_labels(torch.arange(3), -0.1), "p = -0.1"),
        (lambda: drop_labels(torch.arange(3), float("nan")), "p = nan"),
        (lambda: drop_labels(torch.rand(3), 0.1), "labels of type torch.float32: give integers"),
        (lambda: Muon([]), "empty parameter list"),
        (lambda: fit(small(), losses, points(), 0), "steps = 0"),
        (lambda: fit(small(), losses, points(), 5, every=0), "every = 0"),
        (lambda: fit(small(), losses, points(), 5, ema=1.0), "ema = 1.0: a decay lies in"),
        (lambda: fit(small(), losses, points(), 5, ema=float("nan")), "ema = nan"),
        (lambda: fit(small(), losses, points(), 5, clip=0), "clip = 0"),
        (lambda: fit(small(), losses, points(), 5, lr=0.0), "lr = 0"),
        (lambda: fit(small(), losses, points(), 5, lr=float("nan")), "lr = nan"),
        (lambda: fit(small(), losses, points(), 5, warmup=-1), "warmup = -1"),
        (lambda: fit(small(), losses, points(), 5, cooldown=-1), "cooldown = -1"),
        (lambda: fit(small(), losses, points(), 5, lr=math.inf), "lr = inf"),
        (lambda: fit(small(), losses, points(), 5, ema=-0.1), "ema = -0.1"),
        (lambda: fit(small(), losses, points(), 5, clip=math.nan), "clip = nan"),
    ],
)
def test_bad_input_is_named_at_once(call, message):
    with pytest.raises(ValueError, match=message):
        call()
