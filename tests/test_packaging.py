"""Laws of the package: what it brings, where it looks, and how it gets onto a machine."""

import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement

from didiff.data import files
from didiff.data.files import data_folder
from didiff.training import cli, weights
from lessons.source import build
from tests import colab, slices, wheel

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = SETTINGS["project"]


# ------------------------------------------------------------------------ where data lies


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home, and a working folder beside it."""
    for name in "home", "work":
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("~/my data", "home/my data"),
        ("~", "home"),
        ("$HOME/data", "home/data"),
        ("${HOME}/data/", "home/data"),
        ('"$HOME"/data', "home/data"),
        ("'~/data'", "home/data"),
        (' "~/data" \r\n', "home/data"),
        ("data", "work/data"),
        ("./data//mine/", "work/data/mine"),
        ("../data", "data"),
        (r"data\mine", "work/data/mine"),
        (r"my\ data", "work/my data"),
        ("~/Ann's data", "home/Ann's data"),
        ("a~b", "work/a~b"),
    ],
)
def test_the_folder_of_the_data_is_named_as_in_a_shell(home, monkeypatch, said, meant):
    monkeypatch.setenv("DIDIFF_DATA", said)
    assert os.path.normpath(data_folder()) == os.path.normpath(home / meant)


@pytest.mark.parametrize("said", ["", "  ", '""', "''", "\n"])
def test_a_name_that_says_nothing_is_as_good_as_none(monkeypatch, said):
    monkeypatch.setenv("DIDIFF_DATA", said)
    assert data_folder() == ROOT / "data"


@pytest.mark.parametrize("said", ["~nobody-of-that-name/data", "$NOT_SET/data", "${NOT_SET}/x"])
def test_a_name_with_a_part_that_is_not_there_is_refused(home, monkeypatch, said):
    monkeypatch.setenv("DIDIFF_DATA", said)
    with pytest.raises(ValueError, match=r"DIDIFF_DATA = .*there is no .*name a folder"):
        data_folder()


@pytest.mark.skipif(os.sep != "/", reason="there are drives here")
def test_a_drive_is_refused_where_there_are_none(home, monkeypatch):
    monkeypatch.setenv("DIDIFF_DATA", r"C:\Users\me\data")
    with pytest.raises(ValueError, match="there is no C: here"):
        data_folder()


def test_a_folder_that_has_such_a_name_after_all_is_taken(home, monkeypatch):
    (home / "work" / "a$b").mkdir()
    monkeypatch.setenv("DIDIFF_DATA", "a$b")
    assert data_folder() == home / "work" / "a$b"


def test_an_installed_copy_keeps_its_data_in_the_users_cache(home, monkeypatch):
    monkeypatch.delenv("DIDIFF_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(files, "ROOT", home / "site-packages")
    assert data_folder().is_relative_to(home / "home")
    assert "didiff" in data_folder().parts


# ------------------------------------------------------------------------ a folder nobody can write


@pytest.fixture
def unwritable(tmp_path, monkeypatch):
    """A data folder that cannot be made, for root neither: a file lies in the way."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DIDIFF_DATA", str(tmp_path / "file" / "data"))
    return tmp_path / "file" / "data"


def test_a_folder_that_cannot_be_written_is_told_with_the_variable(unwritable):
    with pytest.raises(OSError, match=r"file.data cannot be written .*variable DIDIFF_DATA"):
        files.writable(data_folder())


def test_a_folder_that_lets_nobody_write_into_it_is_told_too(tmp_path, monkeypatch):
    def refused(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refused)
    with pytest.raises(OSError, match=r"cannot be written .*Permission denied.*DIDIFF_DATA"):
        files.writable(tmp_path)


def test_a_writable_folder_is_made_and_left_empty(tmp_path):
    assert files.writable(tmp_path / "new" / "one") == tmp_path / "new" / "one"
    assert list((tmp_path / "new" / "one").iterdir()) == []


def test_no_training_starts_that_could_not_be_written(unwritable, monkeypatch, capsys):
    def trained(*_):
        raise AssertionError("a step was made")

    monkeypatch.setitem(cli.RECIPES, "digits", SimpleNamespace(steps=5, train=trained))
    with pytest.raises(SystemExit):
        cli.main(["train", "digits"])
    assert "environment variable DIDIFF_DATA" in capsys.readouterr().err


# ------------------------------------------------------------------------ shipped weights


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("DIDIFF_DATA", str(tmp_path))
    return tmp_path / "weights"


def test_shipped_weights_are_found_wherever_the_data_lies(elsewhere):
    assert weights.load("digits").target == weights.read_card("digits")["target"]
    assert not elsewhere.exists()


def test_weights_of_ones_own_come_before_the_shipped_ones(elsewhere):
    model, card = weights.load("mnist_clean"), weights.read_card("mnist_clean")
    assert weights.save("mnist_clean", model, card | {"seed": 77}).parent == elsewhere
    assert weights.read_card("mnist_clean")["seed"] == 77
    for file in elsewhere.iterdir():
        file.unlink()
    assert weights.read_card("mnist_clean")["seed"] == card["seed"]


@pytest.mark.parametrize("left", ["digits.json", "digits.safetensors"])
def test_half_a_model_of_ones_own_is_told_and_not_passed_over(elsewhere, left):
    elsewhere.mkdir()
    (elsewhere / left).write_bytes((weights.SHIPPED / left).read_bytes())
    with pytest.raises(FileNotFoundError, match=r"digits.*missing.*delete it and its card"):
        weights.load("digits")


# ------------------------------------------------------------------------ the wheel


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return wheel.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(course, tmp_path_factory):
    """A folder that holds the wheel, installed, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", folder, course], check=True)
    return folder


ABROAD = """\
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import didiff
from didiff.data import data_folder
from didiff.training import weights
assert Path(didiff.__file__).is_relative_to(sys.argv[1]), didiff.__file__
for name in sys.argv[2].split():
    weights.load(name)
print(data_folder())
"""


@pytest.mark.slow
def test_the_wheel_brings_the_tracked_files_of_didiff_and_nothing_else(course):
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "didiff"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    brought = [name for name in zipfile.ZipFile(course).namelist() if ".dist-info/" not in name]
    assert sorted(brought) == sorted(listed.stdout.split())


@pytest.mark.slow
def test_an_installed_copy_is_a_good_guest(installed, tmp_path):
    top = sorted(path.name for path in installed.iterdir())
    assert top == ["didiff", f"didiff-{PROJECT['version']}.dist-info"]
    before = sorted(installed.rglob("*"))
    names = " ".join(path.stem for path in weights.SHIPPED.glob("*.safetensors"))
    home = wheel.outside() | {"HOME": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    for said in {}, {"DIDIFF_DATA": str(tmp_path / "mine")}:
        done = subprocess.run(
            [sys.executable, "-P", "-c", ABROAD, installed, names],
            env={k: v for k, v in home.items() if k != "XDG_CACHE_HOME"} | said,
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()).is_relative_to(tmp_path)
    assert sorted(installed.rglob("*")) == before


# ------------------------------------------------------------------------ the first cell


WHEEL = f"didiff-{PROJECT['version']}-py3-none-any.whl"
PLACES = ["", "Colab Notebooks/", "one/two/three/"]


class Shell:
    """What the cell asks IPython for: pip, which here installs what is whole."""

    def __init__(self, installs):
        self.installs, self.asked, self.cell = installs, [], {}

    def run_line_magic(self, name, line):
        assert name == "pip"
        self.asked.append(line.format(**self.cell))
        self.there = self.installs

    there = False


def first_cell(monkeypatch, shell, drive=None, address="", version=(3, 12, 0), deeper=False):
    """Runs the first cell where didiff is not installed, but for what `shell` installs."""
    settings = SETTINGS | {"tool": {"didiff": {"repository": address}}}
    monkeypatch.setattr(build.tomllib, "loads", lambda _: settings)
    spec = SimpleNamespace(origin="site-packages/didiff/__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec if shell.there else None)
    monkeypatch.setattr(sys, "version_info", version)
    text = build.install_cell(deeper=deeper).source
    text = text.replace("/content/drive/MyDrive", str(drive)) if drive else text
    shell.cell.update(get_ipython=lambda: shell)
    exec(TransformerManager().transform_cell(text), shell.cell)


def test_where_didiff_is_installed_the_first_cell_does_nothing(monkeypatch):
    shell = Shell(True)
    shell.there = True
    first_cell(monkeypatch, shell)
    assert shell.asked == []


@pytest.mark.parametrize("place", PLACES)
def test_a_wheel_in_the_drive_is_installed(home, monkeypatch, place):
    (home / place).mkdir(parents=True, exist_ok=True)
    (home / place / WHEEL).touch()
    shell = Shell(True)
    first_cell(monkeypatch, shell, drive=home, address="https://example.org/didiff")
    assert shell.asked == [f'install --quiet "{home}/{place}{WHEEL}"']


def test_a_wheel_in_the_working_folder_comes_first(home, monkeypatch):
    Path(WHEEL).touch()
    (home / WHEEL).touch()
    shell = Shell(True)
    first_cell(monkeypatch, shell, drive=home)
    assert shell.asked == [f'install --quiet "{WHEEL}"']


def test_a_wheel_beside_the_lessons_serves_what_is_deeper(home, monkeypatch):
    (home / "deeper").mkdir()
    (home / WHEEL).touch()
    monkeypatch.chdir(home / "deeper")
    shell = Shell(True)
    first_cell(monkeypatch, shell, deeper=True)
    assert shell.asked == [f'install --quiet "../{WHEEL}"']


def test_without_a_wheel_the_public_address_is_asked(home, monkeypatch):
    shell = Shell(True)
    first_cell(monkeypatch, shell, address="https://example.org/didiff")
    assert shell.asked == ['install --quiet "git+https://example.org/didiff"']


@pytest.mark.parametrize("file", [None, "didiff-0.0.9-py3-none-any.whl", f"{WHEEL[:-4]} (1).whl"])
def test_without_a_wheel_of_this_version_and_an_address_one_line_says_what_to_do(
    home, monkeypatch, file
):
    if file:
        Path(file).touch()
    shell = Shell(True)
    with pytest.raises(ModuleNotFoundError) as told:
        first_cell(monkeypatch, shell)
    assert shell.asked == []
    for part in file or "no wheel", f"put {WHEEL}", "pip install -e .":
        assert part in str(told.value)
    assert "\n" not in str(told.value)


def test_a_damaged_wheel_is_named_with_the_remedy(home, monkeypatch):
    Path(WHEEL).write_bytes(b"half a wheel")
    with pytest.raises(ModuleNotFoundError, match=rf"{WHEEL} cannot be installed.*put {WHEEL}"):
        first_cell(monkeypatch, Shell(False))


def test_a_python_that_is_too_old_is_told_in_one_line(home, monkeypatch):
    with pytest.raises(RuntimeError, match=r"didiff needs Python 3\.11 or newer, this is 3\.\d+"):
        first_cell(monkeypatch, Shell(True), version=(3, 10, 9))


def test_a_mere_folder_of_that_name_is_not_the_course(home, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace(origin=None))
    with pytest.raises(ModuleNotFoundError, match="no wheel"):
        exec(TransformerManager().transform_cell(build.install_cell().source), {})


# ------------------------------------------------------------------------ Colab


NEEDED = [Requirement(text) for text in PROJECT["dependencies"]]


@pytest.mark.parametrize("requirement", NEEDED, ids=lambda requirement: requirement.name)
def test_colab_has_every_requirement_in_a_version_that_will_do(requirement):
    assert requirement.specifier.contains(colab.pins()[requirement.name])


CELLS = [
    "import torch; x = torch.ones(3)",  # 0
    "def draw(): return helper(x)",  # 1
    "def helper(x): return x * scale",  # 2
    "scale = 2",  # 3
    "for scale in (5, 6): y = scale",  # 4
    "table = {}",  # 5
    "table['a'] = y",  # 6
    "x = 'of another section'",  # 7
    "y = 0\ny += 1",  # 8
    "total = 0\nfor k in range(3): total += k",  # 9
    "draw(); print(total)",  # 10
]


@pytest.mark.parametrize(
    ("wanted", "needed"),
    [
        ([3], [3]),
        ([4], [4]),  # scale is bound there before it is read
        ([6], [4, 5, 6]),
        ([8], [8]),
        ([9], [9]),
        ([1], [0, 1]),
        ([10], [0, 1, 2, 4, 7, 9, 10]),  # a function reads what is bound when it is called
    ],
)
def test_a_slice_is_what_a_cell_needs(wanted, needed):
    assert slices.needed(CELLS, wanted) == needed


def test_a_slider_is_moved_by_one_stop_and_turns_at_the_end():
    def moved(**state):
        return colab.one_stop_on(state)["state"]

    assert moved(value=3, max=9, step=2) == {"value": 5}
    assert moved(value=9, max=9, step=2) == {"value": 7}
    assert moved(index=0, _options_labels=["a", "b"]) == {"index": 1}
    assert moved(index=1, _options_labels=["a", "b"]) == {"index": 0}


# ------------------------------------------------------------------------ installing


@pytest.fixture(scope="module")
def install():
    spec = importlib.util.spec_from_file_location("install", wheel.INSTALL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked(install, monkeypatch, settings="", uv=0, card=None, **environment):
    """The commands that an installation of `.` runs, where pip has these settings."""
    ran = []

    def run(command, **_):
        ran.append(command[3:])
        code = uv if "uv" in command[1:3] or command[-1] == "uv" else 0
        return SimpleNamespace(stdout=settings, returncode=code)

    monkeypatch.setattr(install.subprocess, "run", run)
    monkeypatch.setattr(install.shutil, "which", lambda _: card)
    monkeypatch.setattr(install.sys, "platform", "linux")
    for name in install.UV_SETTINGS:
        monkeypatch.delenv(f"UV_{name}", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    install.main(["."])
    return ran


def test_who_told_pip_nothing_gets_the_torch_that_fits_the_machine(install, monkeypatch):
    *_, last = asked(install, monkeypatch)
    assert last[-3:] == [".", "--torch-backend", "auto"]


@pytest.mark.parametrize(
    ("settings", "handed"),
    [
        ("global.index-url='https://a.example/simple'", ["--index-url", "https://a.example/simple"]),
        (":env:.find-links='/wheels /more'", ["--find-links", "/wheels", "--find-links", "/more"]),
        ("install.extra-index-url='\\nhttps://b.example'", ["--extra-index-url", "https://b.example"]),
        ("global.no-index='true'", ["--no-index"]),
    ],
)  # fmt: skip
def test_what_pip_was_told_is_handed_on_and_nothing_else(install, monkeypatch, settings, handed):
    told = "global.timeout='60'\nlist.format='columns'\n" + settings
    *_, last = asked(install, monkeypatch, told)
    assert last[-len(handed) - 1 :] == [*handed, "."]
    assert "--torch-backend" not in last


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_FIND_LINKS", "UV_TORCH_BACKEND"])
def test_who_told_uv_where_to_look_is_left_alone(install, monkeypatch, name):
    *_, last = asked(install, monkeypatch, **{name: "cpu"})
    assert last[-1] == "."


@pytest.mark.parametrize(("card", "option"), [(None, True), ("/usr/bin/nvidia-smi", False)])
def test_without_uv_pip_installs_and_without_a_card_it_takes_no_cuda(
    install, monkeypatch, card, option
):
    *_, last = asked(install, monkeypatch, uv=1, card=card)
    assert last[:2] == ["install", "."]
    assert last[2:] == (install.TORCH_WITHOUT_CUDA if option else [])


def test_the_readme_and_conda_name_the_same_option(install):
    option = " ".join(install.TORCH_WITHOUT_CUDA)
    assert option in (ROOT / "README.md").read_text()
    assert option in (ROOT / "environment.yml").read_text()


def test_the_types_are_checked_for_the_oldest_python_and_the_newest_served():
    (line,) = (x for x in (ROOT / "Makefile").read_text().splitlines() if x.startswith("ENDS"))
    ends = line.partition("#")[0].split(":=")[1].split()
    assert f">={ends[0]}" == PROJECT["requires-python"]
    assert ends[0] == SETTINGS["tool"]["mypy"]["python_version"]
    assert SETTINGS["tool"]["ruff"]["target-version"] == "py" + ends[0].replace(".", "")
