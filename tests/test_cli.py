"""Laws of the command line: it writes what the lessons load, and tells wrong use from right."""

import subprocess
import sys
from itertools import islice
from types import SimpleNamespace

import pytest
import torch

import didiff
from didiff import Mixture, guidance, mixtures
from didiff.classifier import Classifier
from didiff.data import digits
from didiff.training import cli, metrics, recipes, weights


def test_it_says_what_it_can_do():
    ask = [sys.executable, "-m", "didiff", "--help"]
    said = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    assert "train a model that the lessons load" in said


def test_training_writes_weights_that_load_and_a_card_that_tells_the_command(
    tmp_path, capsys, monkeypatch
):
    measured = {"omega_1": {"recognised": 0.25}}
    quick = recipes.RECIPES["digits"]._replace(quality=lambda denoiser: measured)
    monkeypatch.setitem(recipes.RECIPES, "digits", quick)
    cli.main(["train", "digits", "--steps", "20", "--seed", "3", "--out", str(tmp_path)])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits.json", "digits.safetensors"]
    card = weights.read_card(tmp_path / "digits.safetensors")
    assert card["command"] == "python -m didiff train digits --steps 20 --seed 3"
    assert card["quality"] == measured
    assert "omega_1  recognised 0.25" in capsys.readouterr().out

    *_, end = recipes.digits(20, seed=3)
    loaded = weights.load(tmp_path / "digits.safetensors")
    assert all(map(torch.equal, loaded.state_dict().values(), end.ema.state_dict().values()))


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    quick = recipes.RECIPES["digits"]._replace(quality=lambda denoiser: {})
    monkeypatch.setitem(recipes.RECIPES, "digits", quick)
    kept = ["--checkpoint", str(tmp_path / "run.pt")]
    for steps, folder, more in [("10", "half", kept), ("20", "whole", kept), ("20", "at once", [])]:
        cli.main(["train", "digits", "--steps", steps, "--out", str(tmp_path / folder), *more])
    whole, at_once = (
        weights.load(tmp_path / f / "digits.safetensors") for f in ("whole", "at once")
    )
    assert all(map(torch.equal, whole.state_dict().values(), at_once.state_dict().values()))


def test_bfloat16_is_a_matter_of_the_run_and_the_card_says_so(tmp_path, monkeypatch):
    quick = recipes.RECIPES["digits"]._replace(quality=lambda denoiser: {})
    monkeypatch.setitem(recipes.RECIPES, "digits", quick)
    cli.main(["train", "digits", "--steps", "2", "--out", str(tmp_path), "--bf16"])
    assert weights.read_card(tmp_path / "digits.safetensors")["command"].endswith("--seed 0 --bf16")
    assert weights.load(tmp_path / "digits.safetensors").dtype is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["train", "cats"], "invalid choice: 'cats'"),
        (["train", "digits", "--steps", "0"], "steps = 0"),
        (["train", "digits", "--steps", "many"], "invalid int"),
    ],
)
def test_wrong_use_is_told_before_any_work(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


# -- the recipes ------------------------------------------------------------------------------


def test_a_recipe_depends_on_its_seed_alone():
    def losses(seed):
        return [p.loss.item() for p in islice(recipes.digits(seed=seed), 3)]

    first = losses(0)
    torch.rand(5)
    assert losses(0) == first
    assert losses(1) != first


@pytest.fixture
def little_mnist(monkeypatch):
    """Two hundred images whose class is the brightness of their upper half."""
    y = torch.arange(200) % 10
    x = torch.full((200, 1, 28, 28), -1.0)
    x[:, :, 4:14, 4:24] = (y / 5 - 0.9)[:, None, None, None]
    monkeypatch.setattr(recipes.data, "mnist", lambda split: (x, y))
    return x, y


@pytest.mark.parametrize("name", ["mnist", "mnist_classifier", "mnist_clean", "mnist_judge"])
def test_every_recipe_of_mnist_runs_and_its_weights_come_back(name, little_mnist, tmp_path):
    recipe = recipes.RECIPES[name]
    first, last = ((p.loss, p.ema) for p in recipe.train(2, 0, recipes.PLAIN))
    assert first[0] != last[0]
    card = recipe.card() | dict.fromkeys(("command", "seed", "hardware", "duration_s", "quality"))
    path = weights.save(tmp_path / f"{name}.safetensors", last[1], card)
    assert type(weights.load(path)) is type(last[1])


def test_a_judge_remembers_what_it_was_shown(little_mnist):
    *_, end = recipes.mnist_judge(2)
    seen = metrics.remembered(end.ema)
    quality = recipes.judge_quality(end.ema)["test"]
    assert quality["frechet"] == pytest.approx(
        0, abs=1e-3
    )  # test images are the training ones here
    assert seen.covariance.trace() > 0
    assert 0 <= quality["accuracy"] <= 1


def test_a_hundred_real_images_seem_further_away_than_all_of_them(monkeypatch):
    x, y = torch.randn(2000, 1, 28, 28), torch.arange(2000) % 10
    monkeypatch.setattr(recipes.data, "mnist", lambda split: (x, y))
    judge = Classifier(recipes.build(recipes.JUDGE_NETWORK))
    metrics.remember(judge, x, y)
    quality = recipes.judge_quality(judge)
    assert quality["hundreds"]["frechet"] > 10 * quality["test"]["frechet"]
    assert quality["hundreds"]["frechet"] > 4 * quality["hundreds"]["std"] > 0


def exact_digits(x, y) -> Mixture:
    """The exact law of the digits, with a shape where a network has one."""
    exact = Mixture(x, labels=y)
    exact.net = SimpleNamespace(shape=x.shape[1:])
    return exact


def test_many_images_are_made_in_parts_and_are_the_same(monkeypatch):
    x, y = digits("train")
    exact, classes = exact_digits(x[:50], y[:50]), torch.arange(7)
    made = []
    for size in (500, 3):
        monkeypatch.setattr(recipes, "AT_ONCE", size)
        made.append(recipes.sample(exact, classes, omega=1, steps=3))
    assert torch.allclose(*made, rtol=0, atol=1e-4)  # single precision


def test_a_classifier_is_measured_at_four_levels_of_noise(little_mnist):
    *_, end = recipes.mnist_classifier(2)
    quality = recipes.classifier_quality(end.ema)
    assert list(quality) == ["clock_0.0", "clock_0.25", "clock_0.5", "clock_0.75"]
    for numbers in quality.values():
        assert numbers["nats"] > 0
        assert 0 <= numbers["accuracy"] <= 1


def test_shaken_images_are_moved_and_stay_within_the_screen(little_mnist):
    x, _ = little_mnist
    moved = recipes.shaken(x)
    assert moved.shape == x.shape
    assert -1 - 1e-6 <= moved.min() <= moved.max() <= 1 + 1e-6
    assert (moved != x).flatten(1).any(1).all()
    centre = torch.linspace(-1, 1, 28)
    ink, before = (((v + 1) * centre).sum((1, 2, 3)) / (v + 1).sum((1, 2, 3)) for v in (moved, x))
    assert 0 < (ink - before).abs().max() < 0.3


def test_no_recipe_sees_the_half_that_its_judge_learns_from(monkeypatch):
    asked = []
    monkeypatch.setattr(recipes.data, "digits", lambda split: asked.append(split) or digits(split))
    next(recipes.digits())
    assert asked == ["train"]


def test_the_ideal_denoiser_of_the_digits_is_recognised_like_real_ones():
    x, y = digits("train")
    classes = torch.arange(10).repeat_interleave(10)
    images = recipes.sample(exact_digits(x, y), classes, omega=1)
    assert metrics.recognised(images, classes) >= 0.95
    assert torch.cdist(images.flatten(1), x.flatten(1)).min(1).values.median() < 0.2


def test_the_exact_denoiser_has_no_excess_and_a_wrong_one_as_much_as_it_is_wrong():
    exact = mixtures.bimodal()
    quality = recipes.points_quality(exact, exact, n=1000)
    assert quality["excess"] == quality["score_error"] == 0

    def shifted(x, t, y=None):
        guess = exact(x, t, y)
        return guess._replace(eps=guess.eps + 0.1)

    quality = recipes.points_quality(shifted, exact, n=20000)
    # E |eps* + .1 - eps|^2 = floor + .01, because eps* is the conditional mean
    error = 4 * 2 * 0.1 * (quality["floor"] / 20000) ** 0.5
    assert quality["loss"] - quality["floor"] == pytest.approx(0.01, abs=error)


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


@pytest.mark.parametrize("name", ["mnist", "mnist_classifier", "mnist_clean", "mnist_judge"])
def test_what_mnist_needs_is_shipped_with_the_command_that_makes_it(name):
    card, model = weights.read_card(name), weights.load(name)
    told = f"python -m didiff train {name} --steps {recipes.RECIPES[name].steps} --seed 0"
    assert card["command"].removesuffix(" --bf16") == told
    assert card["parameters"] == sum(p.numel() for p in model.net.parameters())


def test_all_shipped_weights_together_are_a_small_download():
    assert sum(file.stat().st_size for file in weights.SHIPPED.iterdir()) < 15e6


@pytest.mark.slow
@pytest.mark.parametrize("omega", [1, 2])
def test_the_shipped_card_of_mnist_tells_what_is_measured_today(omega):
    n, told = 200, weights.read_card("mnist")["quality"][f"omega_{omega}"]["recognised"]
    seen = recipes.images_quality(weights.load("mnist"), (omega,), n)[f"omega_{omega}"]
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
