"""Laws of the garden: parts and pictures belong together, words are exact, models are judged."""

import functools
import hashlib
import itertools
import json
import lzma
from types import SimpleNamespace

import pytest
import torch
from worlds import SCHEDULES

from didiff import Denoiser, Prediction, data, guidance
from didiff.data import PLANT_PARTS, plants, sprouts
from didiff.networks import MLP, UNet
from didiff.training import garden as models
from didiff.training import recipes, weights

SIZES = [len(names) for names in PLANT_PARTS.values()]
CARD = json.loads(plants.FILE.with_suffix(".json").read_text())
COLUMN = {part: k for k, part in enumerate(PLANT_PARTS)}

garden = functools.cache(data.garden)

# typed anew: what these names look like on a screen
GROUND = {
    "blue": "1d4ed8", "ocean": "0369a1", "violet": "6d28d9", "purple": "a21caf", "red": "be123c",
    "orange": "c2410c", "brown": "78350f", "green": "047857", "grey": "64748b", "black": "1e293b",
}  # fmt: skip


# -- pictures and parts -----------------------------------------------------------------------


def test_the_halves_have_no_plant_in_common_and_the_range_of_pictures():
    halves = {split: garden(split) for split in ("train", "test")}
    for (x, y), n in zip(halves.values(), (12_000, 1_000), strict=True):
        assert (x.shape, y.shape) == ((n, 3, 32, 32), (n, 9))
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert -1 <= x.min() < -0.9
        assert 0.99 < x.max() <= 1
    train, test = ({tuple(row) for row in y.tolist()} for _, y in halves.values())
    assert not train & test


def test_a_side_of_32_is_the_mean_of_four_pixels_of_64():
    (small, y), (large, same) = (garden("test", side) for side in (32, 64))
    assert torch.equal(y, same)
    mean = torch.nn.functional.avg_pool2d(large.double(), 2)
    assert (small - mean).abs().max() < 1e-6


def test_every_part_is_drawn_as_often_as_the_others_and_independently():
    y, n = garden("train")[1], 12_000
    for part, size in zip(PLANT_PARTS, SIZES, strict=True):
        if part != "bloom":
            error = (n / size) ** 0.5  # about the deviation of a count
            counts = y[:, COLUMN[part]].bincount(minlength=size)
            assert (counts - n / size).abs().max() < 5 * error, part
    for a, b in itertools.combinations([p for p in PLANT_PARTS if p != "bloom"], 2):
        pairs = y[:, COLUMN[a]] * 100 + y[:, COLUMN[b]]
        cells = len(PLANT_PARTS[a]) * len(PLANT_PARTS[b])
        counts = torch.stack(pairs.unique(return_counts=True)[1:])[0].double()
        chi = ((counts - n / cells) ** 2 / (n / cells)).sum() + (cells - len(counts)) * n / cells
        free = cells - 1
        assert abs(chi - free) < 5 * (2 * free) ** 0.5, (a, b)


def test_those_plants_bloom_that_have_a_bloom():
    y = garden("train")[1]
    blooming = torch.tensor([name in plants.BLOOMING for name in PLANT_PARTS["plant"]])
    assert torch.equal(y[:, COLUMN["bloom"]] > 0, blooming[y[:, COLUMN["plant"]]])


def test_the_corner_of_a_picture_has_the_colour_that_its_part_names():
    x, y = garden("test", 64)
    colours = [bytes.fromhex(GROUND[name]) for name in PLANT_PARTS["background"]]
    table = torch.tensor([list(colour) for colour in colours]) / 127.5 - 1
    assert (x[:, :, 0, 0] - table[y[:, 0]]).abs().max() < 1e-6


@pytest.mark.parametrize("part", [p for p in PLANT_PARTS if p != "bloom"])
def test_every_name_of_a_part_is_a_picture_of_its_own(part):
    plain = garden("test")[1][0].clone()  # a tulip, so it blooms too
    rows = plain.repeat(len(PLANT_PARTS[part]), 1)
    rows[:, COLUMN[part]] = torch.arange(len(rows))
    if part == "plant":
        rows[:, COLUMN["bloom"]] = 0
    drawn = torch.stack([torch.tensor(sprouts.draw(row.tolist(), 32)).double() for row in rows])
    apart = torch.stack([(drawn - one).abs().amax((1, 2, 3)) for one in drawn])
    assert apart.fill_diagonal_(255).min() > 8  # of 255; a pattern on lavender is the faintest


def test_what_is_stored_is_what_sprouts_draws():
    """Other versions than those on the card may draw other pixels; these are pinned."""
    parts = torch.from_numpy(sprouts.drawn_parts(13_000)).long()
    y = torch.cat([garden(split)[1] for split in ("train", "test")])
    assert torch.equal(y, parts)
    x, y = garden("test", 64)
    for k in (0, 500, 999):
        drawn = torch.tensor(sprouts.draw(y[k].tolist()))
        assert torch.equal(((x[k] + 1) * 127.5).round().byte(), drawn.permute(2, 0, 1))


def test_the_card_tells_the_truth():
    content = lzma.decompress(plants.FILE.read_bytes())
    assert CARD["content_sha256"] == hashlib.sha256(content).hexdigest()
    assert CARD["parts"] == {part: list(names) for part, names in PLANT_PARTS.items()}
    assert {s: slice(*ends) for s, ends in CARD["splits"].items()} == plants.SPLITS
    y = torch.cat([garden(split)[1] for split in plants.SPLITS]).numpy()
    assert json.loads(json.dumps(sprouts.card(y, content, CARD["versions"]))) == CARD
    assert plants.FILE.stat().st_size < 8e6


def test_a_damaged_file_says_what_to_do(monkeypatch, tmp_path):
    whole = plants.FILE.read_bytes()
    monkeypatch.setattr(plants, "FILE", tmp_path / "garden.xz")
    stored = plants._stored.__wrapped__
    for spoiled in (None, whole[:-20], whole[:50_000] + b"x" + whole[50_001:]):
        if spoiled is not None:
            plants.FILE.write_bytes(spoiled)
        with pytest.raises(
            ValueError, match=r"missing or damaged .* python -m didiff.data.sprouts"
        ):
            stored()


# -- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (dict(plant="tulip", pot_colour="blue"), "a tulip in a blue pot"),
        ({}, "a plant in a pot"),
        (
            dict(background="orange", plant="aloe", plant_colour="lime", bloom="no", pot="urn",
                 pot_colour="red", pattern="plain", eyes="angry", mouth="grin"),
            "a lime aloe in a red urn, with angry eyes and a grin, on an orange background",
        ),
        (
            dict(plant="bush", bloom="white", pattern="ringed", pot_colour="orange"),
            "a bush with white blooms in a ringed orange pot",
        ),
        (dict(plant="aloe", mouth="tongue"), "an aloe in a pot, with a tongue"),
        (dict(eyes="tiny", pot="tub"), "a plant in a tub, with tiny eyes"),
    ],
)  # fmt: skip
def test_a_plant_is_told_in_words(said, words):
    assert data.caption(data.planted(**said)[0]) == words


def test_no_two_plants_are_told_alike():
    y = garden("test")[1]
    assert len({data.caption(row) for row in y}) == len(y.unique(dim=0))


def test_what_is_planted_is_numbered_and_the_rest_unsaid():
    y = data.planted(mouth="tooth", background="blue")
    assert y.tolist() == [[0, -1, -1, -1, -1, -1, -1, -1, 7]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.garden("all"), "split = 'all': choose one of train, test"),
        (lambda: data.garden("test", 28), "side = 28: choose 32 or 64"),
        (lambda: data.planted(leaf="red"), "'leaf' is no part of the garden: choose among backgr"),
        (lambda: data.planted(pot="mug"), "pot = 'mug': choose one of flowerpot, cup"),
        (lambda: data.caption([1, 2]), r"parts = \[1, 2\]: give one number for each of backgr"),
        (lambda: data.caption(3), "parts = 3: give one number"),
        (lambda: data.caption([10] + [0] * 8), r"background = 10: numbers are 0\.\.9, or -1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# -- labels of several parts ------------------------------------------------------------------


def told(y=None, parts=(2, 3), net=MLP):
    torch.manual_seed(1)
    net = net((1, 8, 8), 16, 1, classes=parts) if net is MLP else net((1, 8, 8), (4, 8), parts, 1)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    torch.manual_seed(2)
    return net(torch.randn(4, 1, 8, 8), torch.full((4,), 0.4), y)


@pytest.mark.parametrize("net", [MLP, UNet])
def test_every_part_is_told_to_each_sample_for_itself(net):
    y = torch.tensor([[0, 0], [1, 2], [-1, 1], [1, -1]])
    plain = told(y, net=net)
    for sample, part in itertools.product(range(4), range(2)):
        other = y.clone()
        other[sample, part] = (y[sample, part] + 2) % (3, 4)[part] - 1  # the next of -1, 0, ..
        moved = (told(other, net=net) - plain).abs().flatten(1).amax(1) > 1e-4
        assert moved.tolist() == [k == sample for k in range(4)]
    assert torch.equal(told(None, net=net), told(torch.full((4, 2), -1), net=net))
    assert torch.equal(
        told(torch.tensor([[1, 2]]), net=net), told(torch.tensor([[1, 2]] * 4), net=net)
    )


def test_one_part_is_a_label():
    y = torch.tensor([0, 2, -1, 1])
    assert torch.equal(told(y, 3), told(y[:, None], (3,)))


@pytest.mark.parametrize("y", [1, [0, 1, 0, 1], [[0, 1, 0]], [[0, 1]] * 3])
def test_labels_of_other_parts_are_refused(y):
    with pytest.raises(ValueError, match=r"labels of shape \(.*\) for a batch of 4 of 2 parts"):
        told(torch.tensor(y))


def test_a_part_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"labels 0\.\.2: this network knows 0\.\.1, and -1"):
        told(torch.tensor([[2, 2], [0, 0], [0, 0], [0, 0]]))


def test_guidance_tells_parts_as_it_tells_labels():
    asked = []

    def denoiser(x, t, y, *omega):
        asked.append(y.tolist())
        return SimpleNamespace(x0=x, eps=x, __iter__=None) if omega else (x, x)

    x, t = torch.randn(2, 1, 8, 8), SCHEDULES["linear"].at(400)
    guidance.classifier_free(denoiser, [[3, 1]], 2.0)(x, t)
    guidance.classifier_free(denoiser, [[3, 1], [2, -1]], 2.0, negative=[[0, -1]])(x, t)
    guidance.condition(denoiser, [[3, 1]])(x, t)
    guidance.learned(denoiser, [[3, 1]], 2.0)(x, t)
    assert asked == [
        [[-1, -1], [-1, -1], [3, 1], [3, 1]],
        [[0, -1], [0, -1], [3, 1], [2, -1]],
        [[3, 1], [3, 1]],
        [[3, 1], [3, 1]],
    ]


# -- models -----------------------------------------------------------------------------------


@pytest.fixture
def little_garden(monkeypatch):
    """The first plants of each half, and which halves were asked for."""
    halves, asked = {s: tuple(v[:96] for v in garden(s)) for s in plants.SPLITS}, []
    monkeypatch.setattr(models.data, "garden", lambda split: asked.append(split) or halves[split])
    return SimpleNamespace(asked=asked, test=halves["test"])


def test_the_networks_know_how_wide_the_pixels_spread():
    assert garden("train")[0].std().item() == pytest.approx(models.GARDEN_STD, abs=0.0005)


@pytest.mark.parametrize("name", sorted(models.RECIPES))
def test_every_recipe_of_the_garden_learns_and_its_weights_come_back(name, little_garden, tmp_path):
    recipe = recipes.RECIPES[name]
    _, end = recipe.train(2, 0, recipes.PLAIN)
    assert end.loss.isfinite()
    assert end.model.sigma_data == models.GARDEN_STD
    assert set(little_garden.asked) == {"train"}
    card = recipe.card() | dict.fromkeys(("command", "seed", "hardware", "duration_s", "quality"))
    loaded = weights.load(weights.save(tmp_path / f"{name}.safetensors", end.ema, card))
    assert all(map(torch.equal, loaded.state_dict().values(), end.ema.state_dict().values()))
    assert card["architecture"] == weights.read_card(name)["architecture"]


@pytest.mark.usefixtures("little_garden")
def test_of_a_tenth_of_the_plants_nothing_is_said_and_of_others_a_tenth(monkeypatch):
    handed = {}
    monkeypatch.setattr(models, "fit", lambda model, losses, *_, **__: handed.update(f=losses))
    models.garden(1)
    n, seen = 8000, []

    class Listening:
        target, sigma_data = "eps", 1.0

        def __call__(self, x, t, y):
            seen.append(y)
            return Prediction(x, x)

    handed["f"](Listening(), torch.zeros(n, 1), torch.zeros(n, 9, dtype=torch.long))
    unsaid = (seen[0] == -1).double()
    silent = 0.1 + 0.9 * 0.1**9
    for share, chance, trials in (
        (unsaid.prod(1).mean(), silent, n),
        (unsaid[unsaid.prod(1) == 0].mean(), 0.1, 9 * 0.9 * n),
    ):
        near = 5 * (chance * (1 - chance) / trials) ** 0.5
        assert share.item() == pytest.approx(chance, abs=near)


def reading(y, wrong=()):
    """A judge that reads y, but for the parts that are named."""
    shifted = [k + (part in wrong) for part, k in zip(PLANT_PARTS, y.T, strict=True)]
    heads = [torch.eye(size)[k % size] for size, k in zip(SIZES, shifted, strict=True)]
    return SimpleNamespace(class_log_prob=lambda x, t: torch.cat(heads, 1).log())


def test_a_part_counts_as_right_where_the_judge_reads_it_so():
    x, y = (half[:40] for half in garden("test"))
    found = models.right(reading(y, {"pot", "eyes"}), x, y)
    assert found == {part: float(part not in {"pot", "eyes"}) for part in PLANT_PARTS}


def test_plants_are_measured_by_the_parts_that_were_said(monkeypatch):
    asked, (x, y) = [], (half[:50] for half in garden("test"))

    def sample(denoiser, said, omega):
        asked.append((denoiser.dtype, omega))
        assert torch.equal(said, y)
        return x if omega == 2 else torch.zeros_like(x)

    monkeypatch.setattr(models, "sample", sample)
    found = models.garden_quality(Denoiser(MLP(), "v", 0.5, torch.bfloat16), n=50)
    assert found.keys() == weights.read_card("garden")["quality"].keys()
    assert asked == [(None, omega) for omega in (1, 2, 3, 4)]
    assert set(found["omega_2"].values()) == {1.0}
    assert found["omega_3"]["plant"] < 0.5


def test_the_shipped_judge_reads_real_plants():
    assert min(weights.read_card("garden_judge")["quality"]["test"].values()) >= 0.99
    x, y = (half[:100] for half in garden("test"))
    assert min(models.right(models.judge(), x, y).values()) >= 0.97


def test_the_shipped_model_draws_what_it_is_told():
    told = weights.read_card("garden")["quality"]
    asked = [part for part in PLANT_PARTS if part not in {"pattern", "eyes", "mouth"}]
    assert max(min(shares[part] for part in asked) for shares in told.values()) >= 0.98


@pytest.mark.slow
def test_the_shipped_card_of_the_garden_tells_what_is_measured_today():
    n, told = 100, weights.read_card("garden")["quality"]["omega_2"]
    y = garden("test")[1][:n]
    seen = models.right(models.judge(), recipes.sample(weights.load("garden"), y, 2.0), y)
    for part, share in told.items():
        error = (max(share * (1 - share), 1 / n) / n) ** 0.5
        assert seen[part] == pytest.approx(share, abs=4 * error), part
