"""Laws of the data: honest splits, and batches that depend on (seed, step) alone."""

import hashlib
import sys
from itertools import islice

import pytest
import torch
from sklearn.datasets import load_digits

from didiff import data


def rows(x):
    return [tuple(row) for row in x.flatten(1).tolist()]


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
    data._load_digits.cache_clear()
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        data.digits("train")


def test_an_epoch_takes_no_sample_twice_and_the_next_one_has_another_order():
    x = torch.arange(103.0)[:, None]
    taken = [b for b, _ in islice(data.batches(x, x[:, 0], 10, seed=3), 20)]
    first, second = torch.cat(taken[:10])[:, 0], torch.cat(taken[10:])[:, 0]
    for epoch in first, second:
        assert len(set(epoch.tolist())) == 100
    assert not torch.equal(first, second)


def test_images_keep_their_labels():
    x = torch.arange(50.0)[:, None]
    for a, y in islice(data.batches(x, torch.arange(50), 7), 30):
        assert torch.equal(a[:, 0].long(), y)


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
        (lambda x: data.batches(x, x, 0), "batches of 0 .* 1..5"),
        (lambda x: data.batches(x, x, 6), "batches of 6 from 5 .* 1..5"),
        (lambda x: data.batches(x, x[:3], 2), "5 samples with 3 labels"),
    ],
)
def test_bad_input_is_named_at_once(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(5))
