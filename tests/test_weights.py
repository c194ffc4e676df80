"""Laws of weights on the disk: one loads what was saved, or is told what to do."""

import hashlib
import json
import os

import pytest
import torch

from didiff import Denoiser, trigonometric
from didiff.classifier import Classifier
from didiff.data.files import data_folder, written_beside
from didiff.training import weights

ARCHITECTURE = {"network": "MLP", "shape": [1, 2], "width": 8, "depth": 1, "classes": 3}


def card(**changes):
    entries = dict.fromkeys(weights.CARD_ENTRIES, "as it was")
    return entries | {"architecture": ARCHITECTURE} | changes


def denoiser():
    torch.manual_seed(1)
    return Denoiser(weights.build(ARCHITECTURE), "v", sigma_data=0.5)


@pytest.fixture
def saved(tmp_path, monkeypatch):
    monkeypatch.setenv("DIDIFF_DATA", str(tmp_path))
    return weights.save("toy", denoiser(), card(seed=7))


def rewrite_card(path, **changes):
    file = path.with_suffix(".json")
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# -- there and back ---------------------------------------------------------------------------


def test_a_loaded_denoiser_predicts_what_the_saved_one_did(saved):
    loaded, original = weights.load("toy"), denoiser().eval()
    x, t, y = torch.randn(5, 1, 2), trigonometric(torch.rand(5)), torch.tensor([0, 1, 2, -1, 0])
    for ours, theirs in zip(loaded(x, t, y), original(x, t, y), strict=True):
        assert torch.equal(ours, theirs)
    assert (loaded.target, loaded.sigma_data, loaded.training) == ("v", 0.5, False)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_classifier_comes_back_as_one(tmp_path):
    torch.manual_seed(1)
    architecture = {"network": "ConvNet", "shape": [1, 8, 8], "channels": [16, 16], "patch": 1}
    original = Classifier(weights.build(architecture), sigma_data=0.5).eval()
    path = weights.save(tmp_path / "c.safetensors", original, card(architecture=architecture))
    loaded, x = weights.load(path), torch.randn(3, 1, 8, 8)
    assert (type(loaded), loaded.sigma_data) == (Classifier, 0.5)
    t = trigonometric(torch.tensor(0.5))
    assert torch.equal(loaded.class_log_prob(x, t), original.class_log_prob(x, t))


def test_a_judge_keeps_its_memory(tmp_path):
    architecture = {"network": "Judge", "shape": [1, 28, 28], "channels": [16, 4]}
    original = Classifier(weights.build(architecture))
    original.net.feature_mean.copy_(torch.arange(4.0))
    path = weights.save(tmp_path / "judge.safetensors", original, card(architecture=architecture))
    assert weights.load(path).net.feature_mean.tolist() == [0, 1, 2, 3]
    counted = weights.read_card(path)["parameters"]  # a memory is none
    assert counted == sum(p.numel() for p in original.net.parameters())


def test_the_folder_is_that_of_the_environment_or_a_path_says_where(saved, tmp_path):
    assert saved == tmp_path / "weights" / "toy.safetensors"
    elsewhere = weights.save(tmp_path / "else" / "where.safetensors", denoiser(), card())
    assert elsewhere == tmp_path / "else" / "where.safetensors"
    assert weights.load(elsewhere).target == "v"


def test_without_the_environment_the_folder_is_beside_the_package(monkeypatch):
    monkeypatch.delenv("DIDIFF_DATA", raising=False)
    assert (data_folder() / "README.md").exists()


def test_the_card_keeps_what_it_was_given_and_counts_for_itself(saved):
    held = weights.read_card("toy")
    assert held["seed"] == 7
    assert held["parameters"] == sum(p.numel() for p in denoiser().parameters())


def test_the_checksum_is_that_of_the_file(saved):
    assert weights.read_card("toy")["sha256"] == hashlib.sha256(saved.read_bytes()).hexdigest()


# -- damage -----------------------------------------------------------------------------------


def truncate(path):
    path.write_bytes(path.read_bytes()[:-10])


def flip_one_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_target(path):
    rewrite_card(path, target="wish")


def change_width(path):
    rewrite_card(path, architecture=ARCHITECTURE | {"width": 9})


def name_another_network(path):
    rewrite_card(path, architecture=ARCHITECTURE | {"network": "os.system"})


def add_an_argument(path):
    rewrite_card(path, architecture=ARCHITECTURE | {"colour": 1})


def forget_the_architecture(path):
    file = path.with_suffix(".json")
    held = json.loads(file.read_text())
    del held["architecture"]
    file.write_text(json.dumps(held))


def spoil_the_card(path):
    path.with_suffix(".json").write_text('{"sha256": ')


def make_the_card_a_list(path):
    path.with_suffix(".json").write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_one_bit,
        change_target,
        change_width,
        name_another_network,
        add_an_argument,
        forget_the_architecture,
        spoil_the_card,
        make_the_card_a_list,
    ],
)
def test_damaged_weights_are_refused_with_the_file_and_the_remedy(saved, damage):
    damage(saved)
    with pytest.raises(ValueError, match=r"toy\.(safetensors|json).*python -m didiff train toy"):
        weights.load("toy")


@pytest.mark.parametrize("network", ["os.system", "Block", None])
def test_a_card_may_name_the_networks_of_a_closed_table_only(network):
    with pytest.raises(ValueError, match=f"network = {network!r}: choose one of MLP"):
        weights.build(ARCHITECTURE | {"network": network})


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_missing_files_are_named_with_the_remedy(saved, suffix):
    saved.with_suffix(suffix).unlink()
    with pytest.raises(FileNotFoundError, match=rf"toy\{suffix} is missing.*didiff train toy"):
        weights.load("toy")


# -- saving -----------------------------------------------------------------------------------


def test_a_card_that_is_not_the_networks_is_not_written(tmp_path):
    path = tmp_path / "toy.safetensors"
    with pytest.raises(ValueError, match="do not fit into"):
        weights.save(path, denoiser(), card(architecture=ARCHITECTURE | {"depth": 2}))
    incomplete = card()
    del incomplete["seed"], incomplete["quality"]
    with pytest.raises(ValueError, match="the card lacks seed, quality"):
        weights.save(path, denoiser(), incomplete)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("quality", object()),
        ("quality", {"omega_1": {"recognised": torch.tensor(0.5)}}),
        ("seed", torch.tensor(3)),
        ("dataset", {1, 2}),
    ],
)
def test_a_card_that_is_no_json_is_named_and_the_old_weights_stay_loadable(saved, entry, value):
    before, unprintable = saved.read_bytes(), card(**{entry: value})
    for ask in (weights.check, lambda *given: weights.save("toy", *given)):
        with pytest.raises(ValueError, match=f"the card's {entry} = .* cannot be written as JSON"):
            ask(denoiser(), unprintable)
    assert saved.read_bytes() == before
    assert weights.load("toy").sigma_data == 0.5
    assert len(list(saved.parent.iterdir())) == 2


def test_a_model_of_another_kind_is_named(tmp_path):
    with pytest.raises(ValueError, match="a Linear cannot be kept: give one of Denoiser, Class"):
        weights.save(tmp_path / "toy.safetensors", torch.nn.Linear(1, 1), card())


def test_what_can_be_saved_passes_the_check_which_writes_and_draws_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DIDIFF_DATA", str(tmp_path))
    model, state = denoiser(), torch.get_rng_state()
    weights.check(model, card())
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), state)


def test_a_sigma_data_that_was_measured_is_a_number(tmp_path):
    x = torch.tensor([1.0, 2.0, 4.0])
    network = weights.build(ARCHITECTURE)
    for model in Denoiser(network, "v", x.std()), Classifier(network, x.std()):
        assert type(model.sigma_data) is float
        assert model.sigma_data == pytest.approx((7 / 3) ** 0.5, rel=1e-6)
    path = weights.save(tmp_path / "toy.safetensors", Denoiser(network, "v", x.std()), card())
    assert weights.load(path).sigma_data == pytest.approx((7 / 3) ** 0.5, rel=1e-6)


def test_weights_that_lie_otherwise_in_memory_are_saved_in_order(tmp_path):
    model = denoiser()
    weight = model.net.blocks[0].inner.weight
    weight.data = weight.data.T.contiguous().T  # not contiguous, the same numbers
    path = weights.save(tmp_path / "toy.safetensors", model, card())
    assert torch.equal(weights.load(path).net.blocks[0].inner.weight, weight)


def test_a_card_is_the_same_text_on_every_machine(tmp_path):
    named = weights.save(tmp_path / "toy.safetensors", denoiser(), card())
    assert (named.parent / "toy.json").read_bytes().endswith(b"}\n")
    assert b"\r" not in (named.parent / "toy.json").read_bytes()


def test_the_bytes_are_on_the_disk_before_the_name_points_at_them(tmp_path, monkeypatch):
    order, sync, replace = [], os.fsync, os.replace

    def noted_sync(descriptor):
        order.append(("sync", os.fstat(descriptor).st_ino))
        sync(descriptor)

    def noted_replace(source, target):
        order.append(("name", os.stat(source).st_ino))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    path = weights.save(tmp_path / "toy.safetensors", denoiser(), card())
    for file in path, path.with_suffix(".json"):
        inode = file.stat().st_ino
        assert order.index(("sync", inode)) < order.index(("name", inode))


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "very" / "deep" / "file"
    with written_beside(path) as beside:
        beside.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"

    def interrupted():
        with written_beside(path) as beside:
            beside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]
