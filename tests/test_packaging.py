"""The wheel, installed where nothing of the checkout is: every command works in any folder. The requirements agree."""

import configparser
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.version import Version
from PIL import Image, ImageDraw, ImageFont

sys.path.append(str(ROOT / "benchmarks"))
from audit import holes

COMMANDS = ("train", "predict", "evaluate", "ensemble", "export", "import-keras", "push", "demo", "tpu-check")
Digits = Callable[..., str]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel, built without a network from a copy, so that nothing of it is left in the checkout."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("digits", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    _run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target, source)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel in it and, for what it requires, the packages of this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    site = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # of the *.pth files in these folders, by which an editable install is found, Python reads none
    packages = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (site / "packages.pth").write_text("\n".join(packages))
    return folder


@pytest.fixture
def digits(installed: Path, tmp_path: Path) -> Digits:
    """Calls `digits` of the wheel, from a folder that is not the project's, and returns what it printed."""

    def call(*arguments: str | Path) -> str:
        return _run(installed / "bin" / "digits", *arguments, cwd=tmp_path)

    return call


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# ---- the wheel


def test_the_wheel_carries_the_configuration_the_weights_and_the_page(wheel: Path):
    carried = set(zipfile.ZipFile(wheel).namelist())
    weights, page = ROOT / "digits" / "weights", ROOT / "digits" / "demo" / "page"
    files = [*weights.rglob("*.*"), *page.rglob("*.*"), ROOT / "digits" / "py.typed"]
    expected = {path.relative_to(ROOT).as_posix() for path in files}
    expected |= {f"digits/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert expected | {"hydra_plugins/deepdigits.py"} <= carried


def test_each_package_of_the_checkout_is_in_the_list():
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "digits").rglob("__init__.py")}
    assert {*_setup()["options"]["packages"].split()} == folders | {"digits.conf", "hydra_plugins"}


def test_the_wheels_own_code_and_configuration_are_used(installed: Path, tmp_path: Path):
    code = "import digits; from digits.settings.targets import CONF; print(digits.__file__, CONF)"
    for path in _run(installed / "bin" / "python", "-c", code, cwd=tmp_path).split():
        assert Path(path).is_relative_to(installed)


def test_the_wheels_own_sweeper_is_used(digits: Digits):
    assert "1 job: 1 completed" in digits(
        "train", "-m", "data=mnist5k", "trainer.fast_dev_run=true", "hydra.sweep.dir=s"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, digits: Digits):
    assert len(digits(command, "--help").splitlines()) > 5


def test_help_names_every_command(digits: Digits):
    words = digits("--help").split()
    assert {*COMMANDS} <= {*words}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A printed 2 and a printed 3, in a folder for each."""
    folder = tmp_path_factory.mktemp("pictures")
    for digit in "23":
        picture = Image.new("L", (120, 120), "white")
        ImageDraw.Draw(picture).text((40, 20), digit, font=ImageFont.load_default(70))
        (folder / digit).mkdir()
        picture.save(folder / digit / "printed.png")
    return folder


def test_predict_reads_pictures(digits: Digits, pictures: Path):
    read = [json.loads(line) for line in digits("predict", pictures, "--json").splitlines()]
    assert [digit["value"] for picture in read for digit in picture["digits"]] == [2, 3]


def test_evaluate_scores_pictures(digits: Digits, pictures: Path):
    assert json.loads(digits("evaluate", "--data", pictures, "--json"))["test/errors"] == 0


def test_export_and_push_take_the_packages_own_model(digits: Digits, tmp_path: Path):
    digits("export", "model", "--half")
    names = digits("push", "owner/name", "--model", "model", "--dry-run").splitlines()
    assert {"model/config.json", "model/model.safetensors", "model/README.md"} <= {*names}


def test_train_makes_a_run(digits: Digits, tmp_path: Path):
    small = ("data=mnist5k", "data.batch_size=16", "recipe.ema_decay=0", "trainer.fast_dev_run=true")
    digits("train", *small, "trainer.accelerator=cpu", "hydra.run.dir=run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "completed"


@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="the extra demo is not installed")
def test_demo_writes_a_space_of_what_is_installed(digits: Digits, tmp_path: Path):
    digits("demo", "--space", "space")
    assert f"pillow=={version('pillow')}" in (tmp_path / "space" / "requirements.txt").read_text().splitlines()
    kept = {path.name for path in (tmp_path / "space" / "digits" / "conf").iterdir()} - {"__pycache__"}
    assert kept == {"model"}  # a Space only reads


@pytest.mark.slow
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch_xla", "jax", "libtpu")),
    reason="the extra tpu-check is not installed",
)
def test_tpu_check_compiles(digits: Digits):
    assert json.loads(digits("tpu-check", "--json", "data.batch_size=64"))["chips"] == 8


# ---- the requirements


def _setup() -> configparser.ConfigParser:
    setup = configparser.ConfigParser(inline_comment_prefixes="#")
    setup.read(ROOT / "setup.cfg")
    return setup


def _requirements(lines: str) -> dict[str, Requirement]:
    bare = [line.partition("#")[0].strip() for line in lines.splitlines()]
    found = [Requirement(line) for line in bare if line and not line.startswith("-")]
    return {requirement.name: requirement for requirement in found}


def _bounds(requirement: Requirement) -> tuple[Version, Version]:
    """The first version that is allowed, and the first that is not any more, or the last that is."""
    of = {specifier.operator: Version(specifier.version) for specifier in requirement.specifier}
    return (of["=="], of["=="]) if "==" in of else (of[">="], of.get("<", Version("9999")))


TESTED = _requirements((ROOT / "requirements.txt").read_text())
ALWAYS = _requirements(_setup()["options"]["install_requires"])
EXTRAS = {name: _requirements(lines) for name, lines in _setup()["options.extras_require"].items()}


@pytest.mark.parametrize("name", ["requirements.txt", *EXTRAS])
def test_what_is_narrowed_stays_within_what_is_always_required(name: str):
    narrowed = TESTED if name == "requirements.txt" else EXTRAS[name]
    for both in narrowed.keys() & ALWAYS.keys():
        (first, end), (least, most) = _bounds(narrowed[both]), _bounds(ALWAYS[both])
        assert least <= first < end <= most, both


def test_xla_and_its_torch_are_the_same_wherever_they_are_named():
    lists = [TESTED, EXTRAS["tpu"], EXTRAS["tpu-check"]]
    for name in ("torch", "torchvision", "torch-xla"):
        assert len({str(named[name].specifier) for named in lists}) == 1, name
    assert EXTRAS["tpu"]["libtpu"].specifier == EXTRAS["tpu-check"]["libtpu"].specifier
    assert "torch-xla" not in ALWAYS


def test_what_the_tests_need_of_other_extras_is_the_same_there():
    for name in ("onnx", "keras", "heic", "demo"):
        for requirement in EXTRAS[name].values():
            assert str(EXTRAS["dev"][requirement.name]) == str(requirement)


@pytest.mark.parametrize("name", ["always", *EXTRAS])
def test_each_requirement_has_an_upper_bound(name: str):
    for requirement in (ALWAYS if name == "always" else EXTRAS[name]).values():
        assert {specifier.operator for specifier in requirement.specifier} & {"<", "=="}, requirement


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *(("pillow", "11.2.1"), ("filelock", "3.20.0"), ("opencv-python-headless", "4.11.0.86")),
        *(("lightning", "2.6.2"), ("lightning", "2.6.3")),
    ],
)
def test_no_release_with_a_known_hole_is_admitted(name: str, version: str):
    for requirements in (ALWAYS, TESTED, *EXTRAS.values()):
        assert name not in requirements or not requirements[name].specifier.contains(version)


# ---- the lock

LOCK = (ROOT / "constraints.txt").read_text()


def test_the_lock_has_one_version_of_each_requirement_and_it_is_within_its_range():
    locked = {name.lower(): requirement for name, requirement in _requirements(LOCK).items()}
    for requirements in (ALWAYS, TESTED, *(EXTRAS[name] for name in ("dev", "tpu-check", "upkeep"))):
        for requirement in requirements.values():
            (version,) = locked[requirement.name.lower()].specifier
            assert version.operator == "==" and requirement.specifier.contains(version.version), requirement


def test_the_lock_names_no_index():
    assert not [line for line in LOCK.splitlines() if "://" in line or line.startswith("-")]


def test_make_installs_what_is_locked_but_where_it_tests_what_is_newest():
    makefile = (ROOT / "Makefile").read_text()
    assert "INSTALL := pip install --quiet --constraint constraints.txt" in makefile
    assert [line for line in makefile.splitlines() if "pip install" in line and "INSTALL" not in line] == [
        "\t$(NEWEST)/bin/pip install --quiet --editable '.[dev]'"
    ]


# ---- the audit


def test_an_audit_that_reaches_no_service_says_so():
    unknown = {"name": "a", "skip_reason": "not found"}
    assert [holes(report) for report in ("", "Traceback", json.dumps({"dependencies": [unknown]}))] == [None] * 3


def test_an_audit_names_each_hole_and_the_version_without_it():
    package = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]}
    assert holes(json.dumps({"dependencies": [package]})) == ["a 1: CVE-1, mended in 1.1"]
    assert holes(json.dumps({"dependencies": [package | {"vulns": []}]})) == []


def test_an_installation_of_the_checkout_has_all_that_is_tested_together():
    assert "-e ." in (ROOT / "requirements.txt").read_text().splitlines()
