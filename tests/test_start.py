"""Laws of the first impression: the READMEs' pictures, and the page on which `make lab` opens."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lessons.source import build, pictures
from tests import labdrive

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "lessons" / "README.md"]
NAMES = (pictures.ROAD, pictures.MOVIE, pictures.SCALES)
LESSON = "03_forward_process"


def shown(page: Path) -> dict[Path, str]:
    """The pictures of a page, with their alt texts."""
    found = re.findall(r"!\[(.*?)\]\((.+?)\)", page.read_text(encoding="utf-8"))
    return {(page.parent / name).resolve(): alt for alt, name in found}


def frames(path: Path) -> list[np.ndarray]:
    with Image.open(path) as image:
        count = getattr(image, "n_frames", 1)
        return [at(image, k) for k in range(count)]


def at(image: Image.Image, k: int) -> np.ndarray:
    image.seek(k)
    return np.asarray(image.convert("RGB")).astype(int)


# ------------------------------------------------------------------------ pictures


def test_each_picture_that_is_drawn_is_shown_and_no_other():
    paths = {path for page in PAGES for path in shown(page)}
    assert paths == {pictures.FOLDER / name for name in NAMES}
    assert {path.name for path in pictures.FOLDER.iterdir()} == set(NAMES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_picture_says_in_words_what_it_shows(page):
    assert shown(page)
    assert all(len(alt.split()) > 8 for alt in shown(page).values())


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_a_small_download_that_fits_a_page(name):
    path = pictures.FOLDER / name
    assert path.stat().st_size < 300_000
    with Image.open(path) as image:
        assert image.width <= 1100


def test_the_movie_walks_from_noise_to_digits_on_a_ground_that_stands_still():
    movie = frames(pictures.FOLDER / pictures.MOVIE)
    assert len(movie) == pictures.STEPS + 1
    paper = [(frame == 255).all(-1).mean() for frame in movie]
    assert paper[0] < 0.5 < 0.8 < paper[-1]  # noise leaves little white, and ten digits much
    margin = [frame[: pictures.MARGIN] for frame in movie]
    assert all((strip == 255).all() for strip in margin)


def test_the_makefile_draws_them_and_the_readme_says_so():
    makefile, readme = (ROOT / "Makefile").read_text(), PAGES[0].read_text(encoding="utf-8")
    assert "pictures: $(READY)\n\t$(PY) -m lessons.source.pictures\n" in makefile
    assert "make pictures" in readme


@pytest.mark.slow
def test_the_shipped_weights_draw_the_stored_pictures(tmp_path):
    """Other processors round otherwise, and a shade is a thirtieth of the way to black."""
    for path in pictures.save(tmp_path):
        for new, old in zip(frames(path), frames(pictures.FOLDER / path.name), strict=True):
            assert abs(new - old).mean() < 255 / 30 / 2, path.name


# ------------------------------------------------------------------------ the start page


def test_make_lab_opens_on_the_start_page_and_renders_it():
    (lab,) = re.findall(r"^lab: .*\n\t(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert "$(LAB)" in lab
    assert "default_url=/lab/tree/README.md" in lab
    assert "lessons/source/jupyter" in (ROOT / "Makefile").read_text()


def leads(page, link: str, target: str) -> bool:
    """Whether a click on a link of the start page brings a cell into sight."""
    page.locator(".lm-TabBar-tab:has-text('README.md')").click()
    page.locator(link).first.click()
    cell = page.locator(target)

    def in_sight() -> bool:
        place = cell.bounding_box() if cell.count() == 1 else None
        return place is not None and 0 < place["y"] < 800

    try:
        labdrive.until(in_sight, labdrive.START, lambda: "not in sight")
    except TimeoutError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.browser
def test_the_start_page_shows_its_picture_and_leads_to_a_slider(tmp_path, monkeypatch):
    if labdrive.find_chromium() is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Chromium here: see .ci/run")
    for file in "README.md", f"{LESSON}.ipynb":
        shutil.copy(build.LESSONS / file, tmp_path)
    shutil.copytree(pictures.FOLDER, tmp_path / "source" / "pictures")
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(build.SOURCES / "jupyter"))
    with labdrive.lab(tmp_path) as server, labdrive.chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{server.url}/lab/tree/README.md?token={server.token}")
        picture = page.locator(".jp-MarkdownViewer img").first
        picture.wait_for(timeout=labdrive.RUN * 1000)
        shots = ROOT / "build" / "shots"
        shots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=shots / "start.png")
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 900
        # JupyterLab gives a link that address when it listens to it
        link = f".jp-MarkdownViewer td a[href*='/files/{LESSON}.ipynb'][href*='#cell-id']"
        target = f"{labdrive.PANEL} .jp-CodeCell:has-text('still_over')"
        # a machine with other work may be too slow for its first jump, while the notebook opens
        assert any(leads(page, link, target) for _ in range(3))
