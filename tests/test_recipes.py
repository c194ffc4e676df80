"""Laws of the recipes: what they are taught, what is measured of them, and what is shipped."""

import hashlib
import math
from itertools import islice, pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import didiff
from didiff import Denoiser, Mixture, Prediction, guidance
from didiff.data import digits, garden
from didiff.training import Muon, metrics, recipes, weights
from tests.emulations import ELSEWHERE, DeviceElsewhere, Elsewhere, elsewhere

CLASSIFIERS = ["mnist_classifier", "mnist_clean", "mnist_judge"]
MNIST = ["mnist", "mnist_guided", *CLASSIFIERS]
GARDEN = ["garden", "garden_judge"]


@pytest.fixture
def little_mnist(monkeypatch):
    """Two hundred images whose class is the brightness of their upper half."""
    y = torch.arange(200) % 10
    x = torch.full((200, 1, 28, 28), -1.0)
    x[:, :, 4:14, 4:24] = (y / 5 - 0.9)[:, None, None, None]
    asked = []
    monkeypatch.setattr(recipes.data, "mnist", lambda split: asked.append(split) or (x, y))
    return SimpleNamespace(x=x, y=y, asked=asked)


# -- what is taught ---------------------------------------------------------------------------


@pytest.fixture
def taught(monkeypatch, little_mnist):
    """What a recipe of some name hands to `fit`, which is not carried out."""

    def arguments(name, steps=100, seed=0, run=recipes.PLAIN):
        handed = {}

        def fit(model, losses, batches, steps, **options):
            handed.update(model=model, losses=losses, batches=batches, steps=steps, options=options)
            return iter([SimpleNamespace(ema=SimpleNamespace())])

        monkeypatch.setattr(recipes, "fit", fit)
        monkeypatch.setattr(metrics, "remember", lambda *_: None)
        list(recipes.RECIPES[name].train(steps, seed, run))
        return SimpleNamespace(**handed)

    return arguments


LONG = {"lr": 2e-3, "ema": 0.9997, "clip": 1.0, "warmup": 500, "cooldown": 200, "optimiser": Muon}
GUIDED = {"lr": 1e-3, "ema": 0.999, "clip": 1.0, "warmup": 100, "cooldown": 500}
SHORT = {"lr": 1e-3, "ema": 0.999, "warmup": 200}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("digits", {"lr": 3e-3, "ema": 0.995, "warmup": 100}),
        ("mnist", LONG),
        ("mnist_guided", GUIDED),
        *((name, SHORT) for name in CLASSIFIERS),
    ],
)
def test_a_model_is_trained_by_the_numbers_the_shipped_one_was(taught, name, options, tmp_path):
    """Whoever changes one makes the shipped weights anew."""
    run = recipes.Run(tmp_path / "run.pt", torch.bfloat16)
    handed, card = taught(name, 1000, 0, run), weights.read_card(name)
    assert handed.steps == 1000
    assert handed.options == options | {"checkpoint": tmp_path / "run.pt"}
    assert handed.model.sigma_data == card["sigma_data"]
    assert type(handed.model).__name__ == card["model"]
    rebuilt = weights.build(card["architecture"]).state_dict()
    state = handed.model.net.state_dict()
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in rebuilt.items()}
    if name not in CLASSIFIERS:
        assert (handed.model.target, handed.model.dtype) == (card["target"], torch.bfloat16)
        assert taught(name).model.dtype is None


def test_sigma_data_is_that_of_the_digits(taught):
    assert taught("digits").model.sigma_data == pytest.approx(
        digits("train")[0].std().item(), abs=0.005
    )


@pytest.mark.parametrize("name", ["digits", *MNIST])
def test_batches_are_128_of_the_training_half_in_an_order_of_the_seed(taught, little_mnist, name):
    x = digits("train")[0] if name == "digits" else little_mnist.x
    known = {tuple(image) for image in x.flatten(1).tolist()}
    first, again, other = (next(taught(name, seed=seed).batches) for seed in (4, 4, 5))
    assert len(first[0]) == len(first[1]) == 128
    assert {tuple(image) for image in first[0].flatten(1).tolist()} <= known
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert set(little_mnist.asked) <= {"train"}


def test_no_recipe_sees_the_half_that_its_judge_learns_from(monkeypatch):
    asked = []
    monkeypatch.setattr(recipes.data, "digits", lambda split: asked.append(split) or digits(split))
    next(recipes.digits(10))
    recipes.digits_card()
    assert asked == ["train", "train"]


@pytest.mark.parametrize("name", ["digits", "mnist_clean"])
def test_the_first_weights_depend_on_the_seed_alone(taught, name):
    first, again, other = (
        taught(name, seed=seed).model.net.last.weight for seed in (1, 1, 2) if torch.rand(5).any()
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_model_that_learns_to_be_guided_starts_as_its_teacher(taught):
    first = taught("mnist_guided").model.net.state_dict()
    teacher = weights.load("mnist").net.state_dict()
    assert all(torch.equal(first[name], weight) for name, weight in teacher.items())


def test_a_recipe_depends_on_its_seed_alone():
    def losses(seed):
        return [p.loss.item() for p in islice(recipes.digits(9, seed), 3)]

    first = losses(0)
    torch.rand(5)
    assert losses(0) == first
    assert losses(1) != first


class Asked(nn.Module):
    """A denoiser, and a classifier, that notes what it is asked and knows nothing."""

    target, sigma_data = "x0", 1.0

    def forward(self, x, t, y=None):
        self.x, self.t, self.y = x, t, y
        return Prediction(0 * x, 0 * x)

    def class_log_prob(self, x, t):
        self.x, self.t = x, t
        return torch.full((len(x), 10), -2.0)


@pytest.mark.parametrize(("name", "share"), [("digits", 0.15), ("mnist", 0.1)])
def test_labels_are_dropped_so_that_the_model_can_be_guided(taught, name, share):
    model, n, y = Asked(), 20_000, torch.arange(20_000) % 10
    taught(name).losses(model, torch.zeros(n, 1), y)
    dropped = model.y == -1
    assert dropped.double().mean() == pytest.approx(share, abs=4 * (0.25 / n) ** 0.5)
    assert torch.equal(model.y[~dropped], y[~dropped])


@pytest.mark.parametrize("name", ["digits", "mnist", "mnist_classifier"])
def test_all_levels_of_the_cosine_schedule_are_taught_alike(taught, name):
    n, model = 20_000, Asked()
    taught(name).losses(model, torch.zeros(n, 1).double(), torch.zeros(n, dtype=torch.long))
    levels = didiff.DDPMSchedule(1000, didiff.schedules.cosine).alpha_bar
    rank = torch.searchsorted(-levels, -model.t.alpha_bar.double() + 1e-12)  # k, from 0 at data
    assert (rank >= 1).all()  # never clean data
    assert rank.double().mean() == pytest.approx(500, abs=1 + 4 * 289 / n**0.5)
    assert len(rank.unique()) > 990  # of 1000, each missed once in e^20


def test_a_classifier_is_taught_its_labels(taught):
    class Sure(Asked):
        def class_log_prob(self, x, t):
            return torch.arange(10.0).expand(len(x), 10)

    for name in CLASSIFIERS:
        nats = taught(name).losses(Sure(), torch.zeros(3, 1, 28, 28), torch.tensor([0, 4, 9]))
        assert nats.tolist() == [0, -4, -9]


@pytest.mark.parametrize(("name", "moved"), [("mnist_clean", False), ("mnist_judge", True)])
def test_who_judges_pictures_is_shown_clean_ones_and_the_judge_also_askew(taught, name, moved):
    model, x = Asked(), torch.rand(20, 1, 28, 28) * 2 - 1
    taught(name).losses(model, x, torch.zeros(20, dtype=torch.long))
    assert (model.t.signal, model.t.noise) == (1, 0)
    assert torch.equal(model.x, x) is not moved


def test_shaken_images_stay_on_the_screen_and_what_comes_in_is_ground(little_mnist):
    x = little_mnist.x
    moved = recipes.shaken(x)
    assert moved.shape == x.shape
    assert -1 - 1e-6 <= moved.min() <= moved.max() <= 1 + 1e-6
    assert (moved != x).flatten(1).any(1).all()
    assert (recipes.shaken(torch.ones(50, 1, 28, 28))[:, 0, :, [0, -1]].amin((1, 2)) < 0).any()


def middle_of(image):
    """Where the ink of an image (28, 28) lies, (x, y) in half sides from its centre."""
    side, ink = torch.linspace(-1, 1, 28) * 27 / 28, image + 1
    return torch.stack([(ink * axis).sum() / ink.sum() for axis in (side, side[:, None])])


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize(("column", "most"), [(0, 0.12), (1, 0.15), (2, 0.1)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_shaken_images_are_read_at_places_askew_by_at_most(monkeypatch, row, column, most, sign):
    side = torch.linspace(-1, 1, 28) * 27 / 28
    dot = torch.exp(-((side - 0.2) ** 2 + (side[:, None] - 0.3) ** 2) / 0.02) * 2 - 1
    drawn = torch.full((1, 2, 3), 0.5)
    drawn[0, row, column] = (1 + sign) / 2
    monkeypatch.setattr(torch, "rand", lambda *shape: drawn)
    moved = middle_of(recipes.shaken(dot[None, None])[0, 0])
    read = torch.eye(2, 3)  # the new picture at p shows the old one at read @ (p, 1)
    read[row, column] += sign * most
    expected = torch.linalg.solve(read[:, :2], torch.tensor([0.2, 0.3]) - read[:, 2])
    torch.testing.assert_close(moved, expected, atol=4e-3, rtol=0)  # a twentieth of a pixel


def test_each_image_is_shaken_in_its_own_way(little_mnist):
    x = little_mnist.x[:1].expand(50, 1, 28, 28).clone()
    x[:, :, 4:14, 4:24] = 1
    assert len(recipes.shaken(x).unique(dim=0)) == 50


# -- the whole run of each --------------------------------------------------------------------


@pytest.mark.parametrize("name", MNIST)
def test_every_recipe_of_mnist_learns_and_its_weights_come_back(name, little_mnist, tmp_path):
    recipe = recipes.RECIPES[name]
    states = [dict(p.model.state_dict()) for p in recipe.train(1, 0, recipes.PLAIN)]
    *_, end = recipe.train(2, 0, recipes.PLAIN)
    assert all(v.isfinite().all() for v in end.ema.state_dict().values())
    moved = [not torch.equal(v, states[0][k]) for k, v in end.model.named_parameters()]
    assert sum(moved) > 0.9 * len(moved)  # all but what starts behind a zero
    card = recipe.card() | dict.fromkeys(("command", "seed", "hardware", "duration_s", "quality"))
    path = weights.save(tmp_path / f"{name}.safetensors", end.ema, card)
    loaded = weights.load(path)
    assert type(loaded) is type(end.ema)
    assert all(map(torch.equal, loaded.state_dict().values(), end.ema.state_dict().values()))


def test_a_judge_remembers_the_training_images_it_was_shown(little_mnist):
    progress = list(recipes.mnist_judge(2))
    assert [p.step for p in progress] == [1, 2]
    end, x = progress[-1].ema, little_mnist.x
    assert set(little_mnist.asked) == {"train"}
    with torch.no_grad():
        features = end.features(x, recipes.SCHEDULE.at(0)).double()
    seen = metrics.remembered(end)
    torch.testing.assert_close(seen.mean, features.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen.covariance, features.T.cov(), atol=1e-5, rtol=0)
    assert end.net.spread.tolist() == [0] * 10  # all images of a class are equal here


def test_the_card_tells_the_network_and_the_data(little_mnist):
    for name in sorted(recipes.RECIPES):
        sets = {"digits": digits, "garden": garden, "garden_judge": garden}
        x, y = sets[name]("train") if name in sets else (little_mnist.x, little_mnist.y)
        told = recipes.RECIPES[name].card()
        assert told["architecture"] == weights.read_card(name)["architecture"]
        assert told["dataset"] == weights.read_card(name)["dataset"]
        assert told["schedule"] == weights.read_card(name)["schedule"]
        digest = hashlib.sha256(x.numpy().tobytes())
        digest.update(y.numpy().tobytes())
        assert told["dataset_sha256"] == digest.hexdigest()
    assert set(little_mnist.asked) == {"train"}


# -- guided images ----------------------------------------------------------------------------


def exact_digits(x, y) -> Mixture:
    """The exact law of images, with a shape where a network has one."""
    exact = Mixture(x, labels=y)
    exact.net = SimpleNamespace(shape=x.shape[1:])
    return exact


@pytest.fixture
def two_classes():
    x = torch.linspace(-1, 1, 24).sin().reshape(6, 1, 2, 2)
    return exact_digits(x, torch.tensor([0, 0, 0, 1, 1, 1]))


def test_guided_images_are_the_walk_typed_anew(two_classes):
    y, omega, seed = torch.tensor([0, 1, 1]), 2.5, 7
    made = recipes.sample(two_classes, y, omega, steps=4, seed=seed)
    noise = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    k = [1000, 750, 500, 250, 0]
    alpha_bar = didiff.DDPMSchedule(1000, didiff.schedules.cosine).alpha_bar[k]
    x, levels = noise.double(), list(zip(alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), strict=True))
    for (signal, wide), (next_signal, next_wide) in pairwise(levels):
        t = didiff.NoiseLevel(signal, wide)
        unasked, asked = (two_classes(x, t, labels) for labels in (torch.full((3,), -1), y))
        x0, eps = (a + omega * (b - a) for a, b in zip(unasked, asked, strict=True))
        x = next_signal * x0 + next_wide * eps
    torch.testing.assert_close(made.double(), x, atol=1e-4, rtol=0)  # single precision
    assert made.dtype == torch.float32
    assert len(recipes.sample(two_classes, [0, 1, 1], omega, steps=2)) == 3


def test_the_default_walk_has_20_steps_of_seed_0_and_redraws_nothing(two_classes):
    y = torch.tensor([0, 1, 1])
    plain = recipes.sample(two_classes, y, 1)
    assert torch.equal(plain, recipes.sample(two_classes, y, 1, steps=20, seed=0, eta=0))
    assert not torch.equal(plain, recipes.sample(two_classes, y, 1, steps=19))
    assert not torch.equal(plain, recipes.sample(two_classes, y, 1, seed=1))


def test_noise_that_is_redrawn_depends_on_the_seed_alone(two_classes):
    def made(eta, seed=0):
        return recipes.sample(two_classes, torch.tensor([0, 1, 1]), 1, 5, seed, eta)

    first = made(1.0)
    torch.rand(5)
    assert torch.equal(first, made(1.0))
    assert not torch.equal(first, made(0.0))
    assert not torch.equal(first, made(0.5))


def test_many_images_are_made_in_parts_and_are_the_same(monkeypatch, two_classes):
    classes, made, sizes = torch.tensor([0, 1, 1, 0, 1, 0, 0]), [], set()

    def noted(x, t, y):
        sizes.add(len(x) // 2)  # guidance asks two questions in one batch
        return two_classes(x, t, y)

    noted.net = two_classes.net
    for size in (500, 3):
        monkeypatch.setattr(metrics, "AT_ONCE", size)
        made.append(recipes.sample(noted, classes, omega=1, steps=3))
    assert torch.allclose(*made, rtol=0, atol=1e-5)  # single precision
    assert sizes == {7, 3, 1}


class Distant(nn.Module):
    """An exact denoiser whose weights are on the emulated device, and so all it is given."""

    def __init__(self, exact):
        super().__init__()
        self.exact, self.net = exact, exact.net
        self.weight = nn.Parameter(torch.empty(1, device=ELSEWHERE))

    def forward(self, x, t, y=None):
        assert isinstance(x, Elsewhere)
        assert isinstance(y, Elsewhere)
        return Prediction(*map(elsewhere, self.exact(x.cpu(), t, y.cpu())))

    def class_log_prob(self, x, t):
        assert isinstance(x, Elsewhere)
        return elsewhere(F.log_softmax(x.cpu().flatten(1)[:, :10], 1))

    def features(self, x, t):
        return elsewhere(x.cpu()[:, 0, 0, :2])


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_model_on_another_device_makes_the_same_images(two_classes, eta):
    y = torch.tensor([0, 1, 1])
    here = recipes.sample(two_classes, y, 2, 3, eta=eta)
    with DeviceElsewhere():
        there = recipes.sample(Distant(two_classes), y, 2, 3, eta=eta)
    assert type(there) is torch.Tensor
    assert torch.equal(here, there)


def test_the_ideal_denoiser_of_the_digits_is_recognised_like_real_ones():
    x, y = digits("train")
    classes = torch.arange(10).repeat_interleave(10)
    images = recipes.sample(exact_digits(x, y), classes, omega=1)
    assert metrics.recognised(images, classes) >= 0.95
    assert torch.cdist(images.flatten(1), x.flatten(1)).min(1).values.median() < 0.2


# -- what is measured -------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch):
    """Images that are planted where guided ones would be made, and what was asked for."""
    asked = []

    def sample(denoiser, y, omega, eta=0.0):
        asked.append((denoiser, y.bincount().tolist(), omega, eta))
        return y[:, None].double() * omega + eta

    monkeypatch.setattr(recipes, "sample", sample)
    return asked


def test_images_are_measured_at_each_omega_all_classes_alike(made):
    measures = {
        "mean": lambda images, y: images.mean().item(),
        "off": lambda images, y: (images[:, 0] - y).abs().max().item() / 3,
    }
    model = object()
    found = recipes.images_quality(model, (1, 2.5), 40, measures, eta=0.5)
    assert made == [(model, [4] * 10, omega, 0.5) for omega in (1, 2.5)]
    assert found == {
        "omega_1": {"mean": 5.0, "off": 0.1667},
        "omega_2.5": {"mean": 4.5 * 2.5 + 0.5, "off": round((9 * 1.5 + 0.5) / 3, 4)},
    }


def test_of_digits_a_thousand_are_measured_by_default(made, monkeypatch):
    monkeypatch.setattr(metrics, "judge", None)
    measures = dict.fromkeys(recipes.SEEN, lambda images, y: images.mean().item())
    for name, measure in measures.items():
        monkeypatch.setitem(recipes.SEEN, name, measure)
    found, told = recipes.RECIPES["digits"].quality(None), weights.read_card("digits")
    assert {k: v.keys() for k, v in found.items()} == {
        k: v.keys() for k, v in told["quality"].items()
    }
    assert [asked[1:] for asked in made] == [([100] * 10, 1, 0.0), ([100] * 10, 3, 0.0)]


def test_the_model_of_mnist_is_measured_as_its_card_tells(made, monkeypatch):
    monkeypatch.setattr(metrics, "frechet", lambda images: images.max().item())
    for name in recipes.SEEN:
        monkeypatch.setitem(recipes.SEEN, name, lambda images, y: images.mean().item())
    low = Denoiser(nn.Identity(), "eps", 0.5, torch.bfloat16)
    found, told = recipes.RECIPES["mnist"].quality(low), weights.read_card("mnist")["quality"]
    assert found.keys() == told.keys()
    assert {k: v.keys() for k, v in found.items()} == {k: v.keys() for k, v in told.items()}
    for name, numbers in found.items():
        omega, eta = (1, 1) if name == "omega_1_eta_1" else (float(name.split("_")[1]), 0)
        expected = {"recognised": 4.5 * omega + eta, "diversity": 4.5 * omega + eta}
        assert numbers == pytest.approx(expected | {"frechet": 9 * omega + eta}, abs=1e-4)
    for model, counts, _, _ in made:
        assert counts == [200] * 10
        assert (model.net, model.target, model.sigma_data) == (low.net, "eps", 0.5)
        assert model.dtype is None  # in the precision it will be loaded with


class Known:
    """A classifier that always says three, with probability 0.7, and notes what it saw."""

    def __init__(self):
        self.seen = []

    def class_log_prob(self, x, t):
        self.seen.append((x, t))
        said = torch.full((len(x), 10), math.log(0.3 / 9))
        said[:, 3] = math.log(0.7)
        return said

    def features(self, x, t):
        return x[:, 0, 0, :2]


UNEVEN = torch.tensor([3] * 8 + [0] * 2 + [1] * 10).repeat(30)  # 600: more than go in at once


@pytest.mark.parametrize("name", ["mnist_classifier", "mnist_clean"])
def test_a_classifier_is_measured_at_four_levels_of_noise(monkeypatch, name):
    asked, x = [], torch.ones(600, 1, 28, 28)
    monkeypatch.setattr(recipes.data, "mnist", lambda split: asked.append(split) or (x, UNEVEN))
    classifier = Known()
    found = recipes.RECIPES[name].quality(classifier)
    assert asked == ["test"]
    assert found.keys() == weights.read_card(name)["quality"].keys()
    nats = -(0.4 * math.log(0.7) + 0.6 * math.log(0.3 / 9))
    for numbers in found.values():
        assert numbers == {"accuracy": pytest.approx(0.4), "nats": pytest.approx(nats, abs=5e-5)}
    clocks = [t.clock.item() for _, t in classifier.seen]
    schedule = didiff.DDPMSchedule(1000, didiff.schedules.cosine)
    wanted = [schedule(torch.tensor(u)).clock.item() for u in (0.0, 0.25, 0.5, 0.75)]
    assert clocks == pytest.approx([clock for clock in wanted for _ in "ab"], abs=1e-6)
    torch.manual_seed(0)
    noise = torch.randn(600, 1, 28, 28)
    shown = torch.cat([x for x, _ in classifier.seen]).split(600)
    for u, seen in zip((0.0, 0.25, 0.5, 0.75), shown, strict=True):
        t = schedule(torch.tensor(u))
        torch.testing.assert_close(seen, t.signal.float() * x + t.noise.float() * noise)


def frechet_typed_anew(a, mean, covariance):
    """Of points of the plane against a Gaussian: |m - m'|^2 + tr(C + C' - 2 (C C')^1/2)."""
    apart, ours = a.mean(0) - mean, a.T.cov()
    product = ours @ covariance
    root = (product.trace() + 2 * product.det().sqrt()).sqrt()  # trace of a 2 x 2 root
    return (apart.square().sum() + ours.trace() + covariance.trace() - 2 * root).item()


def test_a_judge_is_measured_on_all_test_images_and_on_few(monkeypatch):
    n = 4200
    x, y = torch.randn(n, 1, 28, 28), torch.arange(n) % 10
    y[:150:10] = 3  # a mix that is uneven: 405 zeros, of which no hundred more can be made
    x[y == 3] += 1  # and seen to be: these are like no others
    asked = []
    monkeypatch.setattr(recipes.data, "mnist", lambda split: asked.append(split) or (x, y))
    judge = Known()
    mean, covariance = torch.tensor([0.3, -0.2]), torch.tensor([[1.5, 0.4], [0.4, 0.8]])
    judge.net = SimpleNamespace(feature_mean=mean, feature_covariance=covariance)
    found = recipes.RECIPES["mnist_judge"].quality(judge)
    assert asked == ["test"]
    assert all((t.signal, t.noise) == (1, 0) for _, t in judge.seen)
    assert found.keys() == weights.read_card("mnist_judge")["quality"].keys()
    assert found["test"]["accuracy"] == pytest.approx((y == 3).double().mean().item())
    features, mean, covariance = (v.double() for v in (x[:, 0, 0, :2], mean, covariance))
    own = 1 / y.bincount()[y]
    whole = metrics.Moments(own.double() @ features / 10, features.T.cov(aweights=own.double()))
    all_alike = metrics.frechet_distance(whole, metrics.Moments(mean, covariance))
    assert found["test"]["frechet"] == pytest.approx(all_alike, abs=1e-4)
    classes = [features[y == k] for k in range(10)]
    for name, each in {"hundreds": 10, "two_thousands": 200}.items():
        parts = [
            torch.cat([of_class[start : start + each] for of_class in classes])
            for start in range(0, min(map(len, classes)) // each * each, each)
        ]
        far = torch.tensor([frechet_typed_anew(part, mean, covariance) for part in parts])
        expected = {"frechet": far.mean().item(), "std": far.std().item()}
        assert math.isfinite(expected["std"]) == (len(parts) > 1)
        assert found[name] == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_of_few_test_images_no_thousands_are_taken(monkeypatch):
    x, y = torch.randn(2400, 1, 28, 28), torch.arange(2400) % 10
    monkeypatch.setattr(recipes.data, "mnist", lambda split: (x, y))
    judge = Known()
    judge.net = SimpleNamespace(feature_mean=torch.zeros(2), feature_covariance=torch.eye(2))
    found = recipes.judge_quality(judge)
    assert found.keys() == {"test", "hundreds"}
    assert found["hundreds"]["frechet"] > found["test"]["frechet"]  # it is biased upwards


def test_classifiers_on_another_device_are_measured_alike(monkeypatch, two_classes):
    x, y = torch.randn(200, 1, 28, 28), torch.arange(200) % 10
    monkeypatch.setattr(recipes.data, "mnist", lambda split: (x, y))
    there = Distant(two_classes)
    there.net = SimpleNamespace(
        feature_mean=elsewhere(torch.zeros(2)), feature_covariance=elsewhere(torch.eye(2))
    )
    with DeviceElsewhere():
        assert len(recipes.classifier_quality(there)) == 4
        assert recipes.judge_quality(there)["test"]["frechet"] >= 0


# -- what is shipped --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    return recipes.images_quality(weights.load("digits"))


def test_the_shipped_digits_are_recognised_and_diverse(shipped):
    assert shipped["omega_1"]["recognised"] >= 0.95
    assert shipped["omega_3"]["recognised"] >= 0.99
    assert shipped["omega_1"]["diversity"] >= 0.8


def test_the_shipped_card_tells_what_is_measured_today(shipped):
    card = weights.read_card("digits")
    for omega, numbers in card["quality"].items():
        for name, value in numbers.items():
            assert shipped[omega][name] == pytest.approx(value, abs=0.005)  # other machines round
    assert card["dataset_sha256"] == recipes.digits_card()["dataset_sha256"]
    assert card["architecture"] == recipes.DIGITS_NETWORK


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_every_model_is_shipped_with_the_command_that_makes_it(name):
    card, model = weights.read_card(name), weights.load(name)
    told = f"python -m didiff train {name} --steps {recipes.RECIPES[name].steps} --seed 0"
    assert card["command"].removesuffix(" --bf16") == told
    assert card["parameters"] == sum(p.numel() for p in model.net.parameters())


def test_all_shipped_weights_together_are_a_small_download():
    assert sum(file.stat().st_size for file in weights.SHIPPED.iterdir()) < 25e6


@pytest.mark.slow
@pytest.mark.parametrize(("name", "omega"), [("mnist", 1), ("mnist", 2), ("mnist_guided", 1)])
def test_the_shipped_card_of_mnist_tells_what_is_measured_today(name, omega):
    n, told = 200, weights.read_card(name)["quality"][f"omega_{omega}"]["recognised"]
    seen = recipes.images_quality(weights.load(name), (omega,), n)[f"omega_{omega}"]
    error = (max(told * (1 - told), 1 / n) / n) ** 0.5
    assert seen["recognised"] == pytest.approx(told, abs=4 * error)


@pytest.mark.slow
def test_a_noise_aware_classifier_steers_the_unconditional_model():
    y, levels = torch.arange(100) % 10, didiff.grid(recipes.SCHEDULE, 20, start=0.99)
    wish = guidance.log_prob_of(weights.load("mnist_classifier"), y)
    start, noise = guidance.condition(weights.load("mnist"), None), torch.randn(100, 1, 28, 28)
    shares = [
        metrics.recognised(
            didiff.last(didiff.ddim(guidance.classifier(start, wish, omega), noise, levels)), y
        )
        for omega in (0, 4)
    ]
    assert shares[0] < 0.1 + 4 * (0.09 / 100) ** 0.5  # nobody asked for a class
    assert shares[1] > 0.8
