"""Laws of files on Windows, emulated: what is open is neither replaced nor deleted."""

import os

import pytest
import torch

from didiff import Denoiser
from didiff.data.files import written_beside
from didiff.training import fit, weights
from tests.emulations import like_windows

ARCHITECTURE = {"network": "MLP", "shape": [2], "width": 8, "depth": 1}


@pytest.fixture(autouse=True)
def windows(monkeypatch):
    like_windows(monkeypatch)


def save(path, seed=1):
    torch.manual_seed(seed)
    model = Denoiser(weights.build(ARCHITECTURE))
    card = dict.fromkeys(weights.CARD_ENTRIES, "as it was") | {"architecture": ARCHITECTURE}
    return weights.save(path, model, card)


def test_the_emulation_refuses_what_windows_does(tmp_path):
    path = tmp_path / "file"
    path.touch()
    with path.open("rb") as file:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fsync(file.fileno())
        for touch in (path.unlink, lambda: path.replace(tmp_path / "other")):
            with pytest.raises(PermissionError):
                touch()
    path.unlink()


def test_weights_are_saved_and_saved_again(tmp_path):
    path = save(tmp_path / "toy.safetensors")
    first = path.read_bytes()
    save(path, seed=2)
    assert path.read_bytes() != first
    assert weights.load(path).target == "v"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["toy.json", "toy.safetensors"]


def test_a_checkpoint_is_written_again_and_again_and_read(tmp_path):
    path = tmp_path / "run.pt"

    def run(steps):
        model = torch.nn.Linear(2, 2)
        batches = [(torch.ones(3, 2),)]
        return list(fit(model, lambda m, x: m(x)[:, 0], batches, steps, checkpoint=path, every=1))

    assert run(3)[-1].step == 3
    assert [p.step for p in run(5)] == [3, 4, 5]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_open_elsewhere_stays_and_the_new_one_is_kept_beside_it(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with path.open(), pytest.raises(OSError, match=r"file cannot be replaced .*rename file\.part"):
        write(path, "new")
    assert path.read_text() == "old"
    assert (tmp_path / "file.part").read_text() == "new"
    write(path, "newest")
    assert path.read_text() == "newest"
    assert list(tmp_path.iterdir()) == [path]


def write(path, text):
    with written_beside(path) as beside:
        beside.write_text(text)


def test_weights_that_are_open_elsewhere_are_not_lost(tmp_path):
    path = save(tmp_path / "toy.safetensors")
    with (
        path.open(),
        pytest.raises(OSError, match=r"rename toy\.safetensors\.part, which is whole"),
    ):
        save(path, seed=2)
    (tmp_path / "toy.safetensors.part").replace(path)
    assert weights.load(path).target == "v"
