"""README and docs: each command there runs, cut short, or is marked as not run; links and the address hold.

In `bash` blocks a command is marked by `# not run` behind it, or before it for the rest of the block. The quick tests
look at each command without running it; the slow one runs each.
"""

import contextlib
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from digits.__main__ import _parser, main
from digits.settings.command_line import check_command_line, configure

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")])
README = (ROOT / "README.md").read_text()
ADDRESS = "https://github.com/OWNER/deepdigits"  # until it is settled
SHORT = ("trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")
PLACEHOLDERS = re.compile(r"<time>|…|\.\.\.|PICTURE|COMMAND|OVERRIDES|FOLDER|TARGET|MODEL\b")


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    return [block for of, block in found if of == language]


def commands() -> list[str]:
    """Each command of all pages that is not marked as not run, in the order of their first appearance.

    `digits export` alone, within a sentence, is the name of a command.
    """
    found = []
    for page in PAGES:
        if page.name == "CHANGELOG.md":  # of commands as they were
            continue
        text = page.read_text()
        for block in blocks(text, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("# not run"):
                    break
                if line.strip() and "# not run" not in line:
                    found += (
                        shlex.join(shlex.split(line, comments=True))
                        .replace("'&&'", "&&")
                        .replace("'>'", ">")
                        .split(" && ")
                    )
        inline = re.findall(r"`((?:python train\.py|python benchmarks/|digits [^\s`]+ |make )[^`]*)`", text)
        found += [shlex.join(shlex.split(line)) for line in inline if not PLACEHOLDERS.search(line)]
    return list(dict.fromkeys(found))


COMMANDS = commands()


def starting(*words: str) -> list[str]:
    return [command for command in COMMANDS if any(command.startswith(word) for word in words)]


def test_each_command_is_one_that_these_tests_know():
    python = ("python train.py", "python benchmarks/", "python3 -m venv", ". .venv", "pip install")
    known = (*python, "digits ", "make ", "PJRT_DEVICE=CPU")
    assert [command for command in COMMANDS if not command.startswith(known)] == []
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("command", [command for command in COMMANDS if "train.py" in command])
def test_settings_of_each_training_are_valid(command: str):
    arguments = shlex.split(command.split("train.py", 1)[1])
    if "--help" in arguments:
        return
    check_command_line(arguments)
    configure([a for a in arguments if a != "-m" and not a.startswith("hydra.") and "," not in a])


@pytest.mark.parametrize("command", starting("digits "))
def test_arguments_of_each_command_are_valid(command: str):
    arguments = shlex.split(command)[1:]
    if not {"--help", "--version"} & {*arguments}:
        _parser().parse_args([a for a in arguments if a != ">" and not a.endswith(".jsonl")])


def test_each_target_of_make_exists():
    for command in starting("make "):
        target = re.match(r"make ([\w-]+)", command)[1]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE), command


def test_each_extra_exists():
    extras = (ROOT / "setup.cfg").read_text().split("[options.extras_require]")[1]
    text = "".join(page.read_text() for page in PAGES)
    for extra in set(re.findall(r"\.\[([\w,-]+)\]'", text)):
        assert all(re.search(rf"^{name} =", extras, flags=re.MULTILINE) for name in extra.split(",")), extra


def test_each_link_within_the_repository_leads_somewhere():
    broken = []
    for page in PAGES:
        text = page.read_text()
        for link in [*re.findall(r"\]\(([^)#\s]+)", text), *re.findall(r'src="([^"]+)"', text)]:
            if not link.startswith("http") and not (page.parent / link).exists():
                broken.append(f"{page.name}: {link}")
    assert broken == []


def test_the_repositorys_address_is_the_same_everywhere():
    files = [*PAGES, *(ROOT / name for name in ("setup.cfg", "CITATION.cff", "notebooks/deepdigits.ipynb"))]
    files += [*(ROOT / "digits").rglob("*.py"), ROOT / "digits" / "weights" / "README.md"]
    for file in files:
        owners = re.findall(r"github(?:\.com)?/([\w-]+)/deepdigits\b", file.read_text())
        assert {*owners} <= {ADDRESS.split("/")[3]}, file
    for name in ("setup.cfg", "CITATION.cff", "README.md"):
        assert ADDRESS in (ROOT / name).read_text(), name


def test_readme_fits_150_lines():
    assert len(README.splitlines()) <= 150


def test_every_page_of_docs_is_in_readmes_list():
    for page in (ROOT / "docs").glob("*.md"):
        assert f"](docs/{page.name})" in README.split("## Documentation")[1], page.name


def _is_read(line: list[str]) -> bool:
    return len(line) == 3 and line[2].endswith("%")


def test_readme_shows_what_digits_predict_examples_prints(capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.chdir(ROOT)
    main(["predict", "examples/"])
    printed = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    shown = [line.split() for line in blocks(README, "")[0].splitlines()]  # in columns, as on a terminal
    assert len(shown) >= 5
    confidences = {(name, digits): float(share.rstrip("%")) for name, digits, share in filter(_is_read, printed)}
    for name, digits, share in filter(_is_read, shown):  # shares differ a little between float32 and bfloat16
        assert confidences[name, digits] == pytest.approx(float(share.rstrip("%")), abs=0.5)


def test_readmes_python_runs(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "readme.py").write_text(blocks(README, "python")[0])
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        runpy.run_path(str(tmp_path / "readme.py"))
    assert len(output.getvalue().splitlines()) > 3


# ---- each command, run


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what a clone has, and the files of a user that the pages speak of."""
    folder = tmp_path_factory.mktemp("clone")
    names = ("train.py", "conf", "digits", "benchmarks", "examples", "Makefile", "requirements.txt", "setup.cfg")
    for name in (*names, "pyproject.toml", "README.md", "LICENSE"):
        (folder / name).symlink_to(ROOT / name)
    picture = next((ROOT / "examples").glob("*.jpg"))
    for file in ("photo.jpg", "page.jpg", "scans/photo.jpg"):
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copy(picture, folder / file)
    (folder / "handwriting" / "5").mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "thick_pen.jpg", folder / "handwriting" / "5")
    (folder / "labelled" / "2").mkdir(parents=True)
    shutil.copy(picture, folder / "labelled" / "2")
    for run in ("mine", "more"):
        run_in(folder, f"python train.py data=mnist5k {' '.join(SHORT)} trainer.max_epochs=1 hydra.run.dir=runs/{run}")
    run_in(folder, "digits export original.h5 --format keras")
    return folder


def run_in(folder: Path, command: str) -> None:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DIGITS_DATA_DIR": str(folder / "data"),  # so that without a network the embedded digits are used
    }
    result = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_runs(command: str, clone: Path):
    if "train.py" in command and "--help" not in command:
        if "accelerator=tpu" in command and "PJRT_DEVICE=CPU" not in command:
            pytest.skip("needs a TPU")
        if "hydra.run.dir=runs/mine" in command:
            shutil.rmtree(clone / "runs" / "mine", ignore_errors=True)  # it was cut short in another way
        command += " " + " ".join(SHORT) + ("" if "max_epochs" in command else " trainer.max_epochs=1")
    elif command.startswith("make "):
        command = command.replace("make ", "make --dry-run ")
    elif command.startswith("python benchmarks/"):
        command = command.split(".py")[0] + ".py --help"
    elif command.startswith("pip install"):
        command = command.replace("install", "install --dry-run --no-deps --no-build-isolation --quiet")
    elif command.startswith(("python3 -m venv", ". .venv")):
        pytest.skip("what these tests run in is such an environment")
    elif command.startswith(("digits evaluate", "digits ensemble")) and "--data" not in command:
        if "runs/" in command:
            command += " --data mnist5k"
        elif "DIGITS_DATA_DIR" in os.environ:  # of the package's own weights only MNIST's test split is a test
            command += f" --data-dir {shlex.quote(os.environ['DIGITS_DATA_DIR'])}"
        else:
            pytest.skip("DIGITS_DATA_DIR names no folder with the full MNIST")
    elif command.startswith("digits demo") and "--space" not in command:
        command = f"timeout --signal=INT 30 {command}; test $? = 124"  # it served until it was stopped
    run_in(clone, command)
