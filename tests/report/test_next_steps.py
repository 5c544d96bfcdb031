"""What a run says is next: commands that can be copied as they are."""

import os
import shlex
from contextlib import chdir
from pathlib import Path

import pytest

from digits.report.next_steps import next_steps, print_next_steps

DEFAULT = "runs/default/2026-11-28_01-01-13-099123"  # as conf/train.yaml names it


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a `digits` on the PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "digits").touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(folder: Path) -> Path:
    """A run's folder with what the next steps look for."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").touch()
    (folder / "events.out.tfevents.1").touch()
    return folder


def test_a_run_says_how_to_look_at_it_use_it_and_compare_it(here: Path, capsys: pytest.CaptureFixture[str]):
    summary = {"status": "completed", "run_dir": str(run(here / DEFAULT)), "dataset": "mnist"}
    print_next_steps(summary)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"Next: look at {DEFAULT}/plots/mistakes.png, or",
        f"  digits predict PICTURE --model {DEFAULT}",
        f"  digits demo --model {DEFAULT}",
        f"  digits evaluate {DEFAULT} --robustness",
        "  tensorboard --logdir runs",
    ]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_a_run_that_has_not_completed_says_nothing(status: str, here: Path, capsys: pytest.CaptureFixture[str]):
    print_next_steps({"status": status, "run_dir": str(run(here / "run"))})
    assert capsys.readouterr().out == ""


def test_a_run_without_a_model_says_nothing(here: Path):
    assert next_steps(here / "run", "mnist", here) == []


def test_a_run_without_event_files_does_not_name_tensorboard(here: Path):
    (run(here / "run") / "events.out.tfevents.1").unlink()
    assert not any("tensorboard" in line for line in next_steps(here / "run", "mnist", here))


def test_a_run_elsewhere_is_named_by_its_whole_path(here: Path, capsys: pytest.CaptureFixture[str]):
    folder = run(here / "run")
    (here / "other").mkdir()
    with chdir(here / "other"):
        print_next_steps({"status": "completed", "run_dir": str(folder)})
    assert f"  tensorboard --logdir {folder}" in capsys.readouterr().out.splitlines()


def test_a_run_in_the_working_folder_itself_is_named_by_a_dot(here: Path, capsys: pytest.CaptureFixture[str]):
    print_next_steps({"status": "completed", "run_dir": str(run(here / "run"))})
    with chdir(here / "run"):
        print_next_steps({"status": "completed", "run_dir": str(here / "run")})
    assert capsys.readouterr().out.splitlines()[-1] == "  tensorboard --logdir ."


def test_a_folder_with_a_blank_is_quoted(here: Path):
    predict = next_steps(run(here / "my run"), "mnist", here)[1]
    assert shlex.split(predict)[-1] == "my run"


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell's")
def test_where_no_program_digits_is_found_the_environment_is_activated_first(
    here: Path, monkeypatch: pytest.MonkeyPatch
):
    (here / ".venv" / "bin").mkdir(parents=True)
    (here / ".venv" / "bin" / "activate").touch()
    monkeypatch.setattr("sys.prefix", str(here / ".venv"))
    monkeypatch.setenv("PATH", "")
    lines = next_steps(run(here / "run"), "mnist", here)
    assert lines[1] == "  . .venv/bin/activate"
    assert len(lines) == 6
