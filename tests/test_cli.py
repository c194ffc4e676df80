"""Laws of the command line: it writes what the lessons load, and tells wrong use from right."""

import subprocess
import sys
from itertools import islice

import pytest
import torch

from didiff import Mixture, cli, metrics, mixtures, recipes, weights
from didiff.data import digits


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


def test_no_recipe_sees_the_half_that_its_judge_learns_from(monkeypatch):
    asked = []
    monkeypatch.setattr(recipes.data, "digits", lambda split: asked.append(split) or digits(split))
    next(recipes.digits())
    assert asked == ["train"]


def test_the_ideal_denoiser_of_the_digits_is_recognised_like_real_ones():
    x, y = digits("train")
    classes = torch.arange(10).repeat_interleave(10)
    images = recipes.sample(Mixture(x, labels=y), classes, omega=1, shape=(1, 8, 8))
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
