"""Laws of the data: honest splits, the originals or nothing, batches of (seed, step) alone."""

import gzip
import hashlib
import struct
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from threading import Thread

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from didiff import data
from didiff.data import sets


def rows(x):
    return [tuple(row) for row in x.flatten(1).tolist()]


# -- digits -----------------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn_in_the_range_of_images():
    x, y = data.digits("all")
    bunch = load_digits()
    assert x.shape == (1797, 1, 8, 8)
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert (x.min(), x.max()) == (-1, 1)
    ours = sorted(zip(rows((x + 1) * 8), y.tolist(), strict=True))
    theirs = zip(bunch.data.tolist(), bunch.target.tolist(), strict=True)
    assert ours == sorted((tuple(image), label) for image, label in theirs)


def test_the_halves_share_no_image_and_make_the_whole():
    (train, _), (test, _), (everything, _) = (data.digits(s) for s in ("train", "test", "all"))
    assert abs(len(train) - len(test)) <= 1
    assert not set(rows(train)) & set(rows(test))
    assert torch.equal(torch.cat([train, test]), everything)


def test_the_halves_never_change():
    labels = data.digits("train")[1]
    published = "66a32224f97c57c3"
    assert hashlib.sha256(bytes(labels.tolist())).hexdigest()[:16] == published


def test_without_scikit_learn_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    sets._load_digits.cache_clear()
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        data.digits("train")


# -- MNIST, a small one of our own ------------------------------------------------------------


def idx(values, kind=8):
    """The bytes of an IDX file, from its description: two zeros, the type, the axes, the sizes."""
    head = struct.pack(f">HBB{values.ndim}I", 0, kind, values.ndim, *values.shape)
    return head + values.tobytes()


PIXELS = np.random.RandomState(1).randint(0, 256, (7, 28, 28), np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9, 2], np.uint8)
IMAGES_FILE, LABELS_FILE = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
FILES = {
    IMAGES_FILE: idx(PIXELS),
    LABELS_FILE: idx(LABELS),
    "t10k-images-idx3-ubyte": idx(PIXELS[:2]),
    "t10k-labels-idx1-ubyte": idx(LABELS[:2]),
}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
NOBODY = "http://127.0.0.1:9/"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The place of a small MNIST, which is empty, and nobody serves it."""
    monkeypatch.setenv("DIDIFF_DATA", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(sets, "MNIST", DIGESTS)
    monkeypatch.setattr(sets, "MNIST_MIRRORS", [NOBODY])
    (tmp_path / "mnist").mkdir()
    return tmp_path / "mnist"


def fill(folder, name=str, content=bytes):
    for file, original in FILES.items():
        (folder / name(file)).write_bytes(content(original))


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("dash", ["-idx", ".idx"])
@pytest.mark.parametrize("content", [bytes, gzip.compress])
def test_mnist_is_read_under_either_name_packed_or_not(folder, dash, ending, content):
    fill(folder, lambda name: name.replace("-idx", dash) + ending, content)
    x, y = data.mnist("train")
    assert (x.shape, x.dtype, y.dtype) == ((7, 1, 28, 28), torch.float32, torch.int64)
    assert np.array_equal(((x + 1) * 127.5).round().numpy()[:, 0], PIXELS)
    assert (x.min(), x.max()) == (-1, 1)
    assert y.tolist() == LABELS.tolist()
    assert len(data.mnist("test")[0]) == 2


def test_missing_files_come_from_the_first_mirror_that_has_them(folder, tmp_path, monkeypatch):
    (tmp_path / "served").mkdir()
    fill(tmp_path / "served", "{}.gz".format, gzip.compress)
    (folder / LABELS_FILE).write_bytes(FILES[LABELS_FILE])
    handler = partial(Quiet, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        mirrors = [NOBODY, f"http://127.0.0.1:{server.server_port}/"]
        monkeypatch.setattr(sets, "MNIST_MIRRORS", mirrors)
        x, y = data.mnist("train")
        server.shutdown()
    assert (len(x), y.tolist()) == (7, LABELS.tolist())
    assert {file.name for file in folder.iterdir()} - {".lock"} == {
        f"{IMAGES_FILE}.gz",
        LABELS_FILE,
    }
    monkeypatch.setattr(sets, "MNIST_MIRRORS", [NOBODY])
    assert torch.equal(data.mnist("train")[0], x)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_a_disk_that_refuses_is_told_and_not_taken_for_a_missing_network(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DIDIFF_DATA", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"\.gz\.part cannot be written .*make room") as caught:
        data.mnist("train")
    assert not isinstance(caught.value, FileNotFoundError)


def test_without_a_network_one_is_told_which_files_to_put_where(folder):
    with pytest.raises(FileNotFoundError) as caught:
        data.mnist("train")
    message = str(caught.value)
    assert f"not complete in {folder}, and {IMAGES_FILE}.gz cannot be downloaded" in message
    assert f"{NOBODY}{IMAGES_FILE}.gz: [Errno" in message
    assert f"put {IMAGES_FILE} and {LABELS_FILE} there, as they are or as .gz" in message
    assert "data.digits()" in message


def float_images():
    return idx(PIXELS.astype(">f4"), kind=13)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        (IMAGES_FILE, FILES[LABELS_FILE], "magic number is 00 00 08 01 and not 00 00 08 03"),
        (LABELS_FILE, FILES[IMAGES_FILE], "magic number is 00 00 08 03 and not 00 00 08 01"),
        (IMAGES_FILE, float_images(), "magic number is 00 00 0d 03 and not 00 00 08 03"),
        (IMAGES_FILE, b"<html>log in", "magic number is 3c 68 74 6d and not 00 00 08 03"),
        (IMAGES_FILE, b"", "magic number is  and not 00 00 08 03"),
        (IMAGES_FILE, FILES[IMAGES_FILE][:-1], "has 5503 bytes and not the 5504 of its header"),
        (IMAGES_FILE, FILES[IMAGES_FILE] + b"?", "has 5505 bytes and not the 5504 of its header"),
        (IMAGES_FILE, FILES[IMAGES_FILE][:9], "has 9 bytes and not the 16 of its header"),
        (IMAGES_FILE, idx(PIXELS[:, :20, :24]), "images have 20 x 24 pixels and not 28 x 28"),
        (LABELS_FILE, idx(LABELS + 1), "has a label 10, and the digits are 0..9"),
        (IMAGES_FILE, idx(255 - PIXELS), "form is right, but its SHA-256 is .{64} and not "),
        (LABELS_FILE, idx(LABELS[:-1]), "form is right, but its SHA-256 is .{64} and not "),
        (IMAGES_FILE, gzip.compress(FILES[IMAGES_FILE])[:-99], "gzip is cut short or damaged"),
        (IMAGES_FILE, gzip.compress(FILES[IMAGES_FILE]) + b"?", "gzip is cut short or damaged"),
    ],
)
def test_what_is_not_the_original_is_refused_with_what_it_is_and_stays(
    folder, name, content, fault
):
    fill(folder)
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} is not the original, .*{fault}.*: move it away"):
        data.mnist("train")
    assert (folder / name).read_bytes() == content
    assert len(list(folder.iterdir())) == len(FILES)


# -- one's own images -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 6, 8), (5, 6, 8, 1), (5, 6, 8, 3), (5, 6, 8, 4)])
@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_images_of_ones_own_keep_their_places(tmp_path, shape, kind):
    pixels = np.random.RandomState(0).randint(0, 256, shape, np.uint8)
    np.savez(tmp_path / "own.npz", x=pixels, y=np.arange(5).astype(kind))
    x, y = data.from_npz(tmp_path / "own.npz")
    channels = (*shape, 1)[3]
    assert (x.shape, x.dtype, y.dtype) == ((5, channels, 6, 8), torch.float32, torch.int64)
    assert x.is_contiguous()
    for channel in range(channels):
        theirs = pixels.reshape(5, 6, 8, channels)[..., channel] / 127.5 - 1
        assert np.allclose(x[:, channel].numpy(), theirs, atol=1e-6)
    assert y.tolist() == [0, 1, 2, 3, 4]


IMAGE, LABEL = np.zeros((5, 6, 8), np.uint8), np.arange(5)


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"x": IMAGE / 255, "y": LABEL}, r"x is float64: give uint8, .*np\.uint8\(255 \* x"),
        ({"x": IMAGE[0], "y": LABEL}, r"x has the shape \(6, 8\): give images as \(N, H, W\)"),
        ({"x": IMAGE[:0], "y": LABEL[:0]}, r"x has the shape \(0, 6, 8\): give images"),
        ({"x": IMAGE[:, None], "y": LABEL}, r"shape \(5, 1, 6, 8\): channels come last"),
        ({"x": IMAGE, "y": LABEL[:4]}, r"y has the shape \(4,\): give one label .* the 5 images"),
        ({"x": IMAGE, "y": LABEL[:, None]}, r"y has the shape \(5, 1\): give one label"),
        ({"x": IMAGE, "y": LABEL / 2}, r"y is float64: give whole numbers"),
        ({"x": IMAGE, "y": LABEL - 1}, "y has a label -1: count classes from 0"),
        ({"x": IMAGE, "y": LABEL.astype("u8") + 2**63}, f"y has a label {2**63}: count classes"),
        ({"x": IMAGE}, r"no arrays x and y .*'y.*write it with np\.savez\(path, x=images, y=label"),
        ({"x": IMAGE, "y": np.array([None] * 5)}, "Object arrays .* write it with"),
    ],
)
def test_images_that_cannot_be_used_are_named_with_the_remedy(tmp_path, arrays, fault):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(ValueError, match=rf"own\.npz.*{fault}"):
        data.from_npz(tmp_path / "own.npz")


def cut_short(path):
    np.savez(path, x=IMAGE, y=LABEL)
    path.write_bytes(path.read_bytes()[:-30])


def damage(path):
    np.savez_compressed(path, x=IMAGE, y=LABEL)
    content = bytearray(path.read_bytes())
    head = 30 + sum(struct.unpack("<HH", content[26:30]))  # with the name and an extra field
    content[head] = 7  # a kind of block that deflate does not know
    path.write_bytes(content)


def write_one_array(path):
    with path.open("wb") as file:
        np.save(file, IMAGE)


@pytest.mark.parametrize(
    "spoil",
    [cut_short, damage, write_one_array, lambda p: p.touch(), lambda p: p.write_text("x,y")],
    ids=["cut short", "damaged", "one array", "empty", "text"],
)
def test_a_file_that_is_no_npz_is_named_with_the_remedy(tmp_path, spoil):
    spoil(tmp_path / "own.npz")
    with pytest.raises(ValueError, match=r"own\.npz has no arrays x and y .*np\.savez\(path, x="):
        data.from_npz(tmp_path / "own.npz")


def test_a_missing_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"own\.npz is missing: write it with np\.savez"):
        data.from_npz(tmp_path / "own.npz")


# -- batches ----------------------------------------------------------------------------------


def test_an_epoch_takes_no_sample_twice_and_the_next_one_has_another_order():
    x = torch.arange(103.0)[:, None]
    taken = [b for b, _ in islice(data.batches(x, x[:, 0], 10, seed=3), 20)]
    first, second = torch.cat(taken[:10])[:, 0], torch.cat(taken[10:])[:, 0]
    for epoch in first, second:
        assert len(set(epoch.tolist())) == 100
    assert not torch.equal(first, second)


def test_images_keep_their_labels():
    x = torch.arange(50.0)[:, None]
    given = list(islice(data.batches(x, torch.arange(50), 7), 300))
    assert len(given) == 300  # they do not end
    for a, y in given:
        assert torch.equal(a[:, 0].long(), y)


def test_all_samples_may_be_one_batch():
    x = torch.arange(5.0)
    assert sorted(next(data.batches(x, x, 5))[0].tolist()) == [0, 1, 2, 3, 4]


def test_batches_depend_on_seed_and_step_alone():
    x, y = torch.arange(64.0)[:, None], torch.arange(64)
    once = [labels for _, labels in islice(data.batches(x, y, 16, seed=1), 12)]
    torch.manual_seed(99)  # whatever else is drawn meanwhile
    torch.rand(7)
    again = [labels for _, labels in islice(data.batches(x, y, 16, seed=1), 12)]
    other = [labels for _, labels in islice(data.batches(x, y, 16, seed=2), 12)]
    assert all(map(torch.equal, once, again))
    assert not any(map(torch.equal, once, other))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: data.digits("validation"), "'validation': choose one of train, test, all"),
        (lambda x: data.mnist("all"), "'all': choose one of train, test"),
        (lambda x: data.batches(x, x, 0), "batches of 0 .* 1..5"),
        (lambda x: data.batches(x, x, 6), "batches of 6 from 5 .* 1..5"),
        (lambda x: data.batches(x, x[:3], 2), "5 samples with 3 labels"),
        (lambda x: data.batches(x[:3], x, 2), "3 samples with 5 labels"),
    ],
)
def test_bad_input_is_named_at_once(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(5))
