"""The garden: potted plants with faces, in colour, whose every part is known and has a name.

So a caption is exact, and a drawn picture can be judged part by part. `sprouts` draws them.
"""

import functools
import lzma
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .sets import scaled

FILE = Path(__file__).with_name("garden.xz")
SIDE = 64
SPLITS = {"train": slice(0, 12_000), "test": slice(12_000, 13_000)}
NOT_SAID = -1

PLANT_PARTS = {
    "background": (
        "blue", "ocean", "violet", "purple", "red", "orange", "brown", "green", "grey", "black",
    ),
    "plant": (
        "sprout", "leaf", "cactus", "barrel cactus", "aloe", "bush", "bamboo", "flower", "tulip",
        "palm", "grass", "berry bush",
    ),
    "plant_colour": ("green", "lime", "mint", "turquoise"),
    "bloom": ("no", "yellow", "pink", "red", "lavender", "white"),
    "pot": ("flowerpot", "cup", "bowl", "tub", "globe", "vase", "urn"),
    "pot_colour": (
        "blue", "lavender", "pink", "red", "orange", "yellow", "lime", "turquoise", "grey",
    ),
    "pattern": ("plain", "banded", "dotted", "striped", "zigzag", "speckled", "ringed"),
    "eyes": (
        "round", "dark", "big", "sidelong", "laughing", "closed", "winking", "sleepy", "tiny",
        "angry",
    ),
    "mouth": (
        "smile", "grin", "round mouth", "straight mouth", "cat's mouth", "tongue", "frown", "tooth",
    ),
}  # fmt: skip
"""The names of every part; y has a column for each of the nine, in this order."""

BLOOMING = ("barrel cactus", "bush", "flower", "tulip", "berry bush")
"""The plants that have a bloom; all others have "no" bloom."""


def garden(split: str = "train", side: int = 32) -> tuple[Tensor, Tensor]:
    """12000 potted plants, or 1000 to test: x (N, 3, side, side) in [-1, 1], y (N, 9).

    y numbers the names of `PLANT_PARTS`, a column a part; `caption(y[i])` says it in words. Parts
    are drawn independently of one another, every name as often as the others, but for the bloom,
    which only the plants of `BLOOMING` have. side: 64, as they are stored, or 32, which are means
    of 2 x 2 pixels. The training half takes 150 MB at 32 and 600 MB at 64,
    beside 160 MB of pixels that are kept for the next call.

    Raises ValueError for another split or side, or a file that is damaged.
    Source: "Sprouts" by DiceBear, CC0 1.0; garden.json beside this file is its card.
    """
    if split not in SPLITS:
        raise ValueError(f"split = {split!r}: choose one of {', '.join(SPLITS)}")
    if side not in (SIDE, SIDE // 2):
        raise ValueError(f"side = {side!r}: choose {SIDE // 2} or {SIDE} pixels")
    pixels, parts = (array[SPLITS[split]] for array in _stored())
    if side < SIDE:
        corners = [pixels[:, i::2, j::2].astype(np.uint16) for i in (0, 1) for j in (0, 1)]
        pixels = sum(corners[1:], corners[0]) / np.float32(4)
    return scaled(pixels.transpose(0, 3, 1, 2)), torch.from_numpy(parts.astype(np.int64))


@functools.cache
def _stored() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, 64, 64, 3) and parts (N, 9), bytes both, of training and test pictures."""
    try:
        content = lzma.decompress(FILE.read_bytes())  # its own checksum tells what is damaged
    except (lzma.LZMAError, FileNotFoundError) as error:
        raise ValueError(
            f"{FILE} is missing or damaged ({error}): install didiff again, or draw the garden "
            "anew: python -m didiff.data.sprouts"
        ) from error
    n = max(part.stop for part in SPLITS.values())
    pixels, parts = np.split(np.frombuffer(content, np.uint8), [n * SIDE * SIDE * 3])
    return pixels.reshape(n, SIDE, SIDE, 3), parts.reshape(n, len(PLANT_PARTS))


def planted(**said: str) -> Tensor:
    """The parts that are named, as a y of one row, (1, 9), with -1 for what is left unsaid.

    planted(plant="tulip", pot_colour="blue"). Raises ValueError for a part or a name that is not
    in `PLANT_PARTS`.
    """
    for part, name in said.items():
        if part not in PLANT_PARTS:
            raise ValueError(
                f"{part!r} is no part of the garden: choose among {', '.join(PLANT_PARTS)}"
            )
        if name not in PLANT_PARTS[part]:
            raise ValueError(f"{part} = {name!r}: choose one of {', '.join(PLANT_PARTS[part])}")
    numbers = [
        names.index(said[part]) if part in said else NOT_SAID for part, names in PLANT_PARTS.items()
    ]
    return torch.tensor([numbers])


def caption(parts) -> str:
    """A row of y (9,) in words: "a lime cactus in a striped blue bowl, with ...".

    What is unsaid (-1) is left out. Raises ValueError for another shape or unknown numbers.
    """
    said = _names(parts)
    bloom = said["bloom"] if said["bloom"] != "no" else ""
    pattern = said["pattern"] if said["pattern"] != "plain" else ""
    plant = _noun(said["plant_colour"], said["plant"] or "plant")
    pot = _noun(pattern, said["pot_colour"], said["pot"] or "pot")
    face = [f"{said['eyes']} eyes" if said["eyes"] else "", said["mouth"] and _noun(said["mouth"])]
    told = [
        plant + (f" with {bloom} blooms" if bloom else "") + f" in {pot}",
        " and ".join(word for word in face if word),
        f"on {_noun(said['background'], 'background')}" if said["background"] else "",
    ]
    first, looks, ground = told
    return first + (f", with {looks}" if looks else "") + (f", {ground}" if ground else "")


def _noun(*words: str) -> str:
    """With its article: "an orange cup"."""
    phrase = " ".join(word for word in words if word)
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _names(parts) -> dict[str, str]:
    """Part -> its name, "" where it is unsaid."""
    numbers = torch.as_tensor(parts).tolist()
    if not isinstance(numbers, list) or len(numbers) != len(PLANT_PARTS):
        raise ValueError(f"parts = {numbers}: give one number for each of {', '.join(PLANT_PARTS)}")
    for number, (part, names) in zip(numbers, PLANT_PARTS.items(), strict=True):
        if not NOT_SAID <= number < len(names):
            raise ValueError(
                f"{part} = {number}: numbers are 0..{len(names) - 1}, or -1 for unsaid"
            )
    pairs = zip(numbers, PLANT_PARTS.items(), strict=True)
    return {part: "" if k == NOT_SAID else names[k] for k, (part, names) in pairs}
