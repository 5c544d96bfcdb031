"""`digits train` is `python train.py` by another name, which its errors say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

WAYS = {"train.py": [str(ROOT / "train.py")], "digits train": ["-m", "digits", "train"]}
needs_pipe = pytest.mark.skipif(not hasattr(os, "fork"), reason="a shell's pipe is POSIX")


def run(program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *WAYS[program], *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("program", WAYS)
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seed=-1"], "seed=-1: allowed is a whole number from 0 to 4,294,967,295"),
        (["-m", "model.l2=0,-1"], "model.l2=-1: allowed is a number from 0"),
        (["--fast"], "--fast: no such option; --help lists them"),
        (["seed=1", "-m", "seed=2"], "seed=2: overrides stand together; put -m before or behind all of them"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_leaves_nothing(
    program: str, arguments: list[str], said: str, tmp_path: Path
):
    result = run(program, *arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"{program}: {said}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("hydra.job_logging.root.handlers=x", "Hydra cannot take it: ValueError: Unable to configure root logger"),
        ("hydra.run.dir=${nope}", "Interpolation key 'nope' not found"),
    ],
)
def test_a_setting_of_hydra_that_it_cannot_take_is_one_line(override: str, said: str, tmp_path: Path):
    result = run("train.py", override, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("train.py: hydra.") and said in result.stderr


@pytest.mark.parametrize("program", WAYS)
def test_a_run_that_fails_is_one_line(program: str, tmp_path: Path):
    result = run(program, "data=mnist5k", "ckpt_path=no.ckpt", cwd=tmp_path)
    assert result.returncode == 1
    assert (
        result.stderr.startswith(f"{program}: ckpt_path=no.ckpt: no checkpoint there; ")
        and result.stderr.count("\n") == 1
    )


@pytest.mark.parametrize("program", WAYS)
def test_help_lists_the_settings(program: str, tmp_path: Path):
    result = run(program, "--help", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert "  model.dense_dropout=0.5  (a number from 0 to under 1)" in lines
    assert max(map(len, lines)) <= 80  # in a pipe
    assert len(lines[lines.index("Examples:") :]) > 2


def test_help_loads_nothing_heavy():
    code = "import sys; from digits.__main__ import main\ntry: main(['train', '--help'])\n"
    code += "finally: print({'torch', 'lightning', 'matplotlib'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"


@needs_pipe
def test_a_reader_who_has_seen_enough_of_the_help_is_told_nothing(tmp_path: Path):
    command = f"{sys.executable} -m digits train --help | true"
    result = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.stderr == ""
