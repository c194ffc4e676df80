"""Draws the garden anew, with DiceBear's CC0 style "Sprouts":

    pip install "didiff[garden]"
    python -m didiff.data.sprouts

It writes garden.xz and its card garden.json, where `data.garden` looks. Some minutes on one core.
"""

import functools
import io
import json
import lzma
import sys
from importlib.metadata import version
from importlib.resources import files

import numpy as np

from .files import sha256, written_beside
from .plants import BLOOMING, FILE, PLANT_PARTS, SIDE, SPLITS

STYLE = "sprouts"
TOOLS = "dicebear-core", "dicebear-styles", "resvg-py"
SEED = 0

# What DiceBear calls our names, in the order of `PLANT_PARTS`, and the colours we chose: far enough
# apart to be told from one another, where the style has some that are not.
VARIANTS = {
    "plant": "sprout seedling cactus ball succulent bush tall flower tulip palm grass buds",
    "pot": "taper cylinder bowl tub round bag rim",
    "pattern": "none band dots stripes chevron speckles ring",
    "eyes": "round dots bigPupils sideeye happy closedLine wink sleepy close angry",
    "mouth": "smile grin ooh line catMouth tongue frown tooth",
}
COLOURS = {
    "background": "1d4ed8 0369a1 6d28d9 a21caf be123c c2410c 78350f 047857 64748b 1e293b",
    "plant_colour": "22c55e a3e635 bbf7d0 2dd4bf",
    "bloom": "000000 fcd34d f472b6 f43f5e a78bfa f8fafc",
    "pot_colour": "7dd3fc c4b5fd f0abfc f87171 fb923c fcd34d bef264 5eead4 94a3b8",
}


def drawn_parts(n: int, seed: int = SEED) -> np.ndarray:
    """Parts of n plants, uint8 (n, 9), independent of one another and uniform but for the bloom."""
    random = np.random.RandomState(seed)  # NumPy promises that its stream stays as it is
    y = np.stack([random.randint(len(names), size=n) for names in PLANT_PARTS.values()], 1)
    columns = list(PLANT_PARTS)
    blooming = np.isin(
        y[:, columns.index("plant")], [PLANT_PARTS["plant"].index(b) for b in BLOOMING]
    )
    colours = random.randint(1, len(PLANT_PARTS["bloom"]), size=n)
    y[:, columns.index("bloom")] = np.where(blooming, colours, PLANT_PARTS["bloom"].index("no"))
    return y.astype(np.uint8)


def draw(parts, side: int = SIDE) -> np.ndarray:
    """The plant of these parts (9,), uint8 (side, side, 3)."""
    import resvg_py
    from dicebear import Avatar
    from PIL import Image

    svg = Avatar(_style(), _options(parts)).to_string()
    png = resvg_py.svg_to_bytes(svg_string=svg, width=side, height=side, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGB"))


@functools.cache  # to read it takes two seconds
def _style():
    from dicebear import Style

    return Style(json.loads(files("dicebear_styles").joinpath(f"{STYLE}.json").read_text("utf-8")))


def _options(parts) -> dict:
    """These parts in DiceBear's words; nothing is left to its own dice."""
    number = dict(zip(PLANT_PARTS, parts, strict=True))
    variants = {part: names.split()[number[part]] for part, names in VARIANTS.items()}
    colours = {part: [f"#{hexes.split()[number[part]]}"] for part, hexes in COLOURS.items()}
    patterned = variants["pattern"] != "none"
    return {
        "seed": "",
        **{f"{part}Variant": name for part, name in variants.items() if name != "none"},
        **{f"{part.removesuffix('_colour')}Color": colour for part, colour in colours.items()},
        "patternProbability": 100 * patterned,
        "cheeksProbability": 0,
        "animationVariant": "none",
    }


def card(y: np.ndarray, content: bytes, tools: dict[str, str]) -> dict:
    """What the stored garden is, how it was made, and whose style it shows."""
    return {
        "what": f"{len(y)} potted plants of {SIDE} x {SIDE} pixels: first all pixels, uint8 "
        f"({len(y)}, {SIDE}, {SIDE}, 3), then all parts, uint8 ({len(y)}, {len(PLANT_PARTS)})",
        "parts": PLANT_PARTS,
        "splits": {name: [part.start, part.stop] for name, part in SPLITS.items()},
        "command": "python -m didiff.data.sprouts",
        "seed": SEED,
        "versions": tools,
        "style": "Sprouts by DiceBear, https://www.dicebear.com",
        "licence": "CC0 1.0, https://creativecommons.org/publicdomain/zero/1.0/",
        "content_sha256": sha256(content),
    }


def main() -> None:
    """Writes garden.xz and its card, or says what is missing."""
    from tqdm.auto import tqdm

    try:
        tools = {tool: version(tool) for tool in TOOLS}
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is missing: pip install 'didiff[garden]'")
    y = drawn_parts(max(part.stop for part in SPLITS.values()))
    pixels = np.stack([draw(parts) for parts in tqdm(y, desc="plants")])
    content = pixels.tobytes() + y.tobytes()
    # a dictionary that holds all of it: plants in other pots are still alike
    strongest = {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 1 << 28}
    with written_beside(FILE) as path:
        path.write_bytes(lzma.compress(content, filters=[strongest]))
    with written_beside(FILE.with_suffix(".json")) as path:
        path.write_text(json.dumps(card(y, content, tools), indent=2) + "\n")
    print(f"{FILE}: {FILE.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
