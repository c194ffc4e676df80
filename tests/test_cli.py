"""Laws of the command line: it writes what the lessons load, and tells wrong use from right."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from didiff import Denoiser
from didiff.data.files import data_folder
from didiff.training import Progress, cli, recipes, weights

ARCHITECTURE = {"network": "MLP", "shape": [2], "width": 8, "depth": 1}
CARD = {"architecture": ARCHITECTURE, "dataset": "none", "dataset_sha256": "0", "schedule": "none"}
QUALITY = {"omega_1": {"recognised": 0.25, "diversity": 0.123456789}}


@pytest.fixture
def tiny(monkeypatch):
    """A recipe of that name which trains nothing in no time, and the list of what it was asked."""
    asked = []
    torch.manual_seed(1)
    model = Denoiser(weights.build(ARCHITECTURE), "v", 0.5)

    def train(steps, seed, run):
        asked.append((steps, seed, run))
        for step in range(1, steps + 1):
            yield Progress(step, torch.tensor(1 / step), model, model, 60.04 * step)
            asked.append(step)

    recipe = recipes.Recipe(train, 7, lambda ema: QUALITY, lambda: CARD)
    monkeypatch.setitem(recipes.RECIPES, "tiny", recipe)
    asked_of = type("Tiny", (), {"asked": asked, "model": model, "recipe": recipe})
    return asked_of


def run(tmp_path, *more):
    cli.main(["train", "tiny", "--out", str(tmp_path / "new" / "folder"), *more])
    path = tmp_path / "new" / "folder" / "tiny.safetensors"
    return weights.read_card(path), weights.load(path)


def error_of(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    return capsys.readouterr().err


def test_it_says_what_it_can_do():
    ask = [sys.executable, "-m", "didiff", "--help"]
    said = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    assert "train a model that the lessons load" in said


# -- what is written --------------------------------------------------------------------------


def test_weights_are_written_with_a_card_that_tells_how_they_were_made(tiny, tmp_path):
    card, model = run(tmp_path, "--steps", "3", "--seed", "5")
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == [
        "tiny.json",
        "tiny.safetensors",
    ]
    assert all(map(torch.equal, model.state_dict().values(), tiny.model.state_dict().values()))
    threads = torch.get_num_threads()
    told = {
        "command": "python -m didiff train tiny --steps 3 --seed 5",
        "seed": 5,
        "hardware": f"{os.cpu_count()} cores {platform.machine()}, {threads} threads of torch",
        "duration_s": 180.1,
        "quality": QUALITY,
    }
    assert {name: card[name] for name in told | CARD} == told | CARD
    assert tiny.asked[0] == (3, 5, recipes.PLAIN)


def test_without_options_a_recipe_is_followed(tiny, tmp_path):
    card, _ = run(tmp_path)
    assert card["command"] == "python -m didiff train tiny --steps 7 --seed 0"
    assert tiny.asked[0] == (7, 0, recipes.PLAIN)


def test_checkpoint_and_precision_are_a_matter_of_the_run(tiny, tmp_path):
    card, model = run(tmp_path, "--checkpoint", str(tmp_path / "run.pt"), "--bf16")
    assert tiny.asked[0][2] == recipes.Run(tmp_path / "run.pt", torch.bfloat16)
    assert card["command"] == "python -m didiff train tiny --steps 7 --seed 0 --bf16"
    assert model.dtype is None


def test_the_usual_folder_is_that_of_the_weights(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("DIDIFF_DATA", str(tmp_path))
    cli.main(["train", "tiny"])
    assert weights.load("tiny").target == "v"
    assert (data_folder() / "weights" / "tiny.json").exists()


# -- what is told on the way ------------------------------------------------------------------


def test_a_run_tells_its_progress_in_ten_lines_and_then_its_quality(tiny, tmp_path, capsys):
    run(tmp_path, "--steps", "20")
    *told, quality, written = capsys.readouterr().out.splitlines()
    assert told == [f"step {k} of 20  loss {1 / k:.4f}  {60.04 * k:.0f} s" for k in range(2, 21, 2)]
    assert quality == "omega_1  recognised 0.25  diversity 0.123457"
    size = (tmp_path / "new" / "folder" / "tiny.safetensors").stat().st_size
    assert written.endswith(f"tiny.safetensors, {size / 1e6:.1f} MB, and its card")


def test_a_run_of_a_few_steps_tells_each(tiny, tmp_path, capsys):
    run(tmp_path, "--steps", "3")
    assert capsys.readouterr().out.count("step ") == 3


# -- nothing is lost --------------------------------------------------------------------------


def test_weights_that_could_not_be_written_are_refused_after_the_first_step(tiny, tmp_path, capsys):
    tiny.model.sigma_data = torch.tensor(0.5)
    said = error_of(capsys, ["train", "tiny", "--out", str(tmp_path)])
    assert "the card's sigma_data = tensor(0.5000) cannot be written as JSON" in said
    assert len(tiny.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_before_any_work(tiny, tmp_path, capsys):
    (tmp_path / "file").touch()
    said = error_of(capsys, ["train", "tiny", "--out", str(tmp_path / "file")])
    assert str(tmp_path / "file") in said
    assert tiny.asked == []


def test_the_weights_are_there_even_if_measuring_fails(tiny, tmp_path, capsys, monkeypatch):
    def quality(ema):
        raise FileNotFoundError("MNIST is not complete")

    monkeypatch.setitem(recipes.RECIPES, "tiny", tiny.recipe._replace(quality=quality))
    assert "MNIST is not complete" in error_of(capsys, ["train", "tiny", "--out", str(tmp_path)])
    assert weights.load(tmp_path / "tiny.safetensors").target == "v"
    assert json.loads((tmp_path / "tiny.json").read_text())["quality"] == {}


def test_the_check_of_the_card_leaves_the_random_numbers_of_the_run_alone(tmp_path, monkeypatch):
    quick = recipes.RECIPES["digits"]._replace(quality=lambda denoiser: {})
    monkeypatch.setitem(recipes.RECIPES, "digits", quick)
    cli.main(["train", "digits", "--steps", "3", "--seed", "3", "--out", str(tmp_path)])
    *_, end = recipes.digits(3, seed=3)
    loaded = weights.load(tmp_path / "digits.safetensors")
    assert all(map(torch.equal, loaded.state_dict().values(), end.ema.state_dict().values()))


def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    quick = recipes.RECIPES["digits"]._replace(quality=lambda denoiser: {})
    monkeypatch.setitem(recipes.RECIPES, "digits", quick)
    kept = ["--checkpoint", str(tmp_path / "run.pt")]
    for steps, folder, more in [("3", "half", kept), ("6", "whole", kept), ("6", "at once", [])]:
        cli.main(["train", "digits", "--steps", steps, "--out", str(tmp_path / folder), *more])
    whole, at_once = (
        weights.load(tmp_path / f / "digits.safetensors") for f in ("whole", "at once")
    )
    assert all(map(torch.equal, whole.state_dict().values(), at_once.state_dict().values()))


# -- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["train", "cats"], "invalid choice: 'cats'"),
        (["train", "digits", "--steps", "0", "--out", "{}"], "steps = 0"),
        (["train", "digits", "--steps", "many"], "invalid int"),
    ],
)
def test_wrong_use_is_told_before_any_work(arguments, message, capsys, tmp_path):
    assert message in error_of(capsys, [part.format(tmp_path) for part in arguments])
    assert list(tmp_path.iterdir()) == []
