"""`digits --help`, `digits COMMAND --help` and `digits --version`."""

import shlex

import pytest

import digits
from digits.__main__ import _parser, main
from digits.settings.usage import COMMANDS, PROGRAM

EXPLAINED = ["", *(name for name in COMMANDS if name != "train")]  # train's is Hydra's: tests/training/test_command.py


def explained(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of the help on ``command``, on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("command", EXPLAINED)
def test_help_fits_80_columns_and_ends_with_two_examples_or_more(command: str, capsys, monkeypatch):
    lines = explained(command, capsys, monkeypatch)
    assert max(map(len, lines)) <= 80
    examples = lines[lines.index("Examples:") + 1 :]
    assert len(examples) >= 2 and all(example.startswith(f"  digits {command}".rstrip()) for example in examples)


@pytest.mark.parametrize("example", [*PROGRAM.examples, *(e for usage in COMMANDS.values() for e in usage.examples)])
def test_an_example_is_one_that_the_command_line_takes(example: str):
    assert _parser().parse_args(shlex.split(example.split("|")[0])[1:]).run


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"digits {digits.__version__}\n")


def test_a_name_whose_ending_says_no_format_is_one_line_with_status_2(capsys: pytest.CaptureFixture[str]):
    assert main(["export", "model.foo"]) == 2
    assert capsys.readouterr().err == (
        "digits: model.foo: no format ends in .foo; known are .pt, .onnx, .keras, .h5; for a folder write model.foo/\n"
    )
