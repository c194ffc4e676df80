"""The pictures of the READMEs, drawn by the shipped model of MNIST.

    python -m lessons.source.pictures

Nothing is drawn by hand and nothing chosen: seed 0. Same torch, same processor: same bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from didiff import guidance, samplers, schedules
from didiff.notebook.pictures import FONT
from didiff.training import recipes, weights
from lessons.source import build

FOLDER = build.SOURCES / "pictures"
INK, PAPER, WORDS, LINE = (21, 38, 63), (255, 255, 255), (87, 96, 106), (208, 215, 222)
GAP, MARGIN, CAPTION = 4, 20, 40  # pixels: between digits, around all, for a line of words
STEPS = 24

ROAD = "road.png"  # from noise to digits, at the head of the start page
MOVIE = "noise.png"  # the same as an animated PNG
SCALES = "guidance.png"  # sixteen digits under three values of omega


def walk(y: Tensor, omega: float, seed: int = 0) -> list[samplers.State]:
    """The states of a guided walk from noise to digits y (B,)."""
    denoiser = guidance.classifier_free(weights.load("mnist"), y, omega)
    levels, chance = schedules.grid(recipes.SCHEDULE, STEPS), torch.Generator().manual_seed(seed)
    noise = samplers.initial_noise((len(y), 1, 28, 28), levels[0], chance, torch.float32)
    return list(samplers.ddim(denoiser, noise, levels))


# -- ink on paper -----------------------------------------------------------------------------


def tile(image: Tensor, side: int, how: Image.Resampling) -> Image.Image:
    """An image (1, 28, 28) in [-1, 1] as ink on paper, `side` pixels wide; -1 is paper."""
    share = ((image[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    mask = Image.fromarray(share.numpy()).resize((side, side), how)
    return Image.composite(
        Image.new("RGB", mask.size, INK), Image.new("RGB", mask.size, PAPER), mask
    )


def block(images: Tensor, columns: int, side: int, how=Image.Resampling.BICUBIC) -> Image.Image:
    """Images (N, 1, 28, 28) row by row, with a thin line around."""
    rows, pitch = -(-len(images) // columns), side + GAP
    sheet = Image.new("RGB", (columns * pitch + GAP, rows * pitch + GAP), PAPER)
    for k, image in enumerate(images):
        sheet.paste(tile(image, side, how), (k % columns * pitch + GAP, k // columns * pitch + GAP))
    ImageDraw.Draw(sheet).rectangle((0, 0, sheet.width - 1, sheet.height - 1), outline=LINE)
    return sheet


def titled(blocks: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Blocks side by side, each over its caption."""
    width = sum(b.width for b in blocks) + MARGIN * (len(blocks) + 1)
    page = Image.new("RGB", (width, max(b.height for b in blocks) + MARGIN + CAPTION), PAPER)
    pen, font, left = ImageDraw.Draw(page), ImageFont.truetype(FONT, 17), MARGIN
    for part, caption in zip(blocks, captions, strict=True):
        page.paste(part, (left, MARGIN))
        middle = (left + part.width / 2, MARGIN + part.height + CAPTION / 2)
        pen.text(middle, caption, WORDS, font, anchor="mm")
        left += part.width + MARGIN
    return page


# -- the three pictures -----------------------------------------------------------------------


def scales() -> Image.Image:
    """Sixteen digits, a row each of 2, 3, 5 and 8, from one noise under three values of omega."""
    y = torch.tensor([2, 3, 5, 8]).repeat_interleave(4)
    blocks = [block(walk(y, omega)[-1].x, 4, 72) for omega in (0.0, 1.0, 4.0)]
    return titled(blocks, ["ω = 0: nobody asks", "ω = 1: 2, 3, 5, 8 as asked", "ω = 4: pushed"])


def road() -> Image.Image:
    """Four digits on their way from noise, a column for every third step."""
    states = walk(torch.tensor([2, 0, 4, 7]), 2.0)[::3]
    columns = [block(state.x, 1, 84) for state in states]
    captions = ["noise", *(f"{state.t.signal:.2f} x₀" for state in states[1:-1]), "digits"]
    return titled(columns, captions)


def movie() -> list[Image.Image]:
    """Ten digits on their way from noise, a frame for every step; square pixels pack well."""
    states, how = walk(torch.arange(10), 2.0), Image.Resampling.NEAREST
    blocks = [block(state.x, 5, 112, how) for state in states]
    words = [f"xt = {s.t.signal:.2f} x0 + {s.t.noise:.2f} eps" for s in states]
    return [titled([block], [text]) for block, text in zip(blocks, words, strict=True)]


def in_few_colours(image: Image.Image) -> Image.Image:
    """The same picture in 30 shades between paper and ink, which all frames of a film share."""
    shares = torch.linspace(0, 1, 30)[:, None]
    shades = torch.tensor(PAPER) + shares * (torch.tensor(INK) - torch.tensor(PAPER))
    palette = Image.new("P", (1, 1))
    palette.putpalette([*shades.round().int().flatten().tolist(), *WORDS, *LINE])
    return image.quantize(palette=palette, dither=Image.Dither.NONE)


def save(folder: Path = FOLDER) -> list[Path]:
    """Draw all pictures into `folder`; returns their paths."""
    folder.mkdir(exist_ok=True)
    drawn = {ROAD: [road()], MOVIE: movie(), SCALES: [scales()]}
    for name, images in drawn.items():
        first, *others = map(in_few_colours, images)
        if others:
            times = [120] * len(others) + [2500]  # milliseconds
            film: dict = {"append_images": others, "duration": times, "loop": 0}
            first.save(folder / name, save_all=True, optimize=True, **film)
        else:
            first.save(folder / name, optimize=True)
    return [folder / name for name in drawn]


def main() -> None:
    torch.set_num_threads(1)  # sums in another order would change bytes
    for path in save():
        print(f"{path.relative_to(build.LESSONS.parent)}  {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
