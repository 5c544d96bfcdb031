"""`digits predict`, as a user calls it."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

from digits.__main__ import main
from digits.data.mnist import load_mnist5k
from digits.errors import DigitsError
from digits.reading import predict as predicting
from digits.reading.components import Box
from digits.reading.picture import open_picture
from digits.reading.predict import as_csv, as_json, as_text, find_pictures, interruptible, print_row
from digits.reading.reader import Digit
from digits.report.annotate import ANNOTATED_SUFFIX, MAX_PICTURE_SIDE, draw_reading

DIGITS = load_mnist5k().test_images.numpy()  # in turn: 0, 1, ..., 9


def page(*rows: str) -> np.ndarray:
    """Paper (H, W) under a lamp with rows of real digits written on it, 160 pixels apart."""
    height, width = 200 * len(rows) + 60, 160 * max(map(len, rows), default=1) + 60
    paper = 225 * np.linspace(0.8, 1, width) * np.ones((height, 1))
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            ink = cv2.resize(DIGITS[int(value)], (140, 140), interpolation=cv2.INTER_CUBIC) / 255
            paper[200 * y + 60 :, 160 * x + 40 :][:140, :140] *= 1 - 0.85 * ink
    return paper.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, with a sub-folder, and with files that are none."""
    folder = tmp_path_factory.mktemp("scans")
    (folder / "two rows").mkdir()
    Image.fromarray(page("407")).save(folder / "10.png")
    Image.fromarray(page("3")).save(folder / "2.jpg")
    Image.fromarray(page("")).save(folder / "blank.png")
    Image.fromarray(page("123", "45")).convert("RGBA").save(folder / "two rows" / "снимок 1.png")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, list[str], list[str]]:
    """Status, lines of stdout and lines of stderr."""
    status = main(["predict", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out.splitlines(), err.splitlines()


def digit(value: int, row: int = 0, confidence: float = 0.9, other: float = 0.06) -> Digit:
    probabilities = [(1 - confidence - other) / 8] * 10
    probabilities[value], probabilities[(value + 1) % 10] = confidence, other
    return Digit(value, confidence, tuple(probabilities), Box(10, 20, 40, 60), row, np.zeros((28, 28), np.uint8))


def blank(size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """White paper, opened to be drawn on."""
    return open_picture(Image.new("L", size, "white"), MAX_PICTURE_SIDE)


# ---- what is read, and in which order


def test_a_line_a_file_in_natural_order(scans: Path, capsys):
    status, lines, errors = run(capsys, scans)
    assert (status, errors) == (0, [])
    assert [line.removeprefix(f"{scans}/").split("\t")[0] for line in lines] == [
        "2.jpg",
        "10.png",
        "blank.png",
        "two rows/снимок 1.png",
    ]
    assert [line.split("\t")[1] for line in lines] == ["3", "407", "no digit", "123/45"]


def test_single_files_come_in_the_order_given(scans: Path, capsys):
    _, lines, _ = run(capsys, scans / "10.png", scans / "2.jpg")
    assert [Path(line.split()[0]).name for line in lines] == ["10.png", "2.jpg"]


def test_a_file_named_explicitly_is_tried_whatever_its_suffix(tmp_path: Path, capsys):
    Image.fromarray(page("8")).save(tmp_path / "scan", "PNG")
    assert run(capsys, tmp_path / "scan")[1][0].split()[1] == "8"


def test_folders_leave_out_what_is_hidden_or_was_drawn_here(tmp_path: Path):
    (tmp_path / ".thumbnails").mkdir()
    for name in ("a.PNG", "b.txt", "._a.png", ".thumbnails/c.png", f"a.png{ANNOTATED_SUFFIX}"):
        (tmp_path / name).touch()
    assert find_pictures(tmp_path) == [tmp_path / "a.PNG"]


def test_the_model_is_the_one_named(tmp_path: Path, scans: Path, capsys):
    assert run(capsys, scans / "2.jpg", "--model", tmp_path / "no")[0] == 1


# ---- the forms


def test_text_has_tabs_between_name_digits_and_the_least_confidence():
    assert as_text("a b.png", [digit(1, 0, 0.93), digit(2, 0, 0.971), digit(3, 1, 0.95)]) == "a b.png\t12/3\t93.0%"
    assert as_text("a.png", []) == "a.png\tno digit"


def test_a_question_mark_follows_each_digit_of_less_than_90_percent():
    assert as_text("a.png", [digit(1, 0, 0.8999), digit(2, 0, 0.9), digit(3, 1, 0.5)]).split("\t")[1] == "1?2/3?"


def test_names_do_not_garble_the_terminal():
    assert as_text("a\x1b[31m\n\t\udcff.png", []) == "a?[31m???.png\tno digit"


def on_terminal(file: str, digits: list[Digit], name_width: int, **options) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, highlight=False, **options)
    print_row(console, file, digits, name_width)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("name", ["a.png", "写真/手書き数字.png", f"/home/{'folder/' * 20}写真 IMG_0042.jpg"])
@pytest.mark.parametrize("count", [1, 20, 99])
def test_neither_long_names_nor_many_digits_break_the_columns_of_a_terminal(name: str, count: int):
    lines = on_terminal(name, [digit(7, confidence=0.95)] * count, 150, color_system=None)
    assert [cell_len(line) for line in lines] == [80] * (1 + count // 21)
    assert lines[0].endswith(" 95.0%")
    assert lines[0].split("  ")[0].endswith(name[-10:])  # of a long path its end
    assert "".join(line[-28:-8].strip() for line in lines) == "7" * count


def test_doubtful_digits_are_coloured_on_a_terminal_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch):
    digits = [digit(4, confidence=0.95), digit(2, confidence=0.7)]
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "4\x1b[1;33m2?\x1b[0m" in on_terminal("a.png", digits, 5, color_system="standard")[0]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "33m" not in on_terminal("a.png", digits, 5, color_system="standard")[0]


def test_json_has_boxes_probabilities_and_alternatives():
    found = json.loads(as_json("ä.png", [digit(1, 0), digit(9, 1)]))
    assert (found["file"], found["text"]) == ("ä.png", "1/9")
    assert found["digits"][1]["box"] == [10, 20, 40, 60]
    assert (found["digits"][1]["value"], found["digits"][1]["row"]) == (9, 1)
    assert found["digits"][1]["confidence"] == 0.9 == found["digits"][1]["probabilities"][9]
    assert found["digits"][1]["alternatives"] == [{"value": 0, "probability": 0.06}]


def test_json_of_a_blank_and_of_a_failure():
    assert json.loads(as_json("a.png", [])) == {"file": "a.png", "text": "", "digits": []}
    assert json.loads(as_json("a.png", DigitsError("a.png: no"))) == {"file": "a.png", "error": "a.png: no"}


def test_csv_has_a_line_a_digit_and_one_for_a_blank(scans: Path, capsys):
    _, lines, _ = run(capsys, "--csv", scans / "10.png", scans / "blank.png")
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    assert [row["digit"] for row in rows] == ["4", "0", "7", ""]
    assert int(rows[0]["left"]) < int(rows[0]["right"]) < int(rows[1]["right"])
    assert float(rows[2]["p7"]) == float(rows[2]["confidence"]) > 0.9
    assert Path(rows[3]["file"]).name == "blank.png"
    assert next(csv.reader([as_csv('a "b",.png', [digit(1)])]))[0] == 'a "b",.png'


def test_json_is_one_object_a_line(scans: Path, capsys):
    _, lines, _ = run(capsys, "--json", scans)
    assert [json.loads(line)["text"] for line in lines] == ["3", "407", "", "123/45"]


# ---- what fails


def test_a_failure_is_named_and_the_rest_is_read(scans: Path, capsys):
    status, lines, errors = run(capsys, scans / "notes.txt", scans / "no.png", scans / "2.jpg")
    assert status == 1
    assert len(lines) == 1 and lines[0].split()[1] == "3"
    assert errors[0].startswith(f"digits: {scans / 'notes.txt'}: is no picture that can be read")
    assert errors[1:] == [f"digits: {scans / 'no.png'}: no such file"]


def test_a_failure_is_a_line_of_json_too(scans: Path, capsys):
    status, lines, _ = run(capsys, "--json", scans / "notes.txt")
    assert status == 1 and "no picture" in json.loads(lines[0])["error"]


def test_an_empty_folder_is_one_line(tmp_path: Path, capsys):
    status, lines, errors = run(capsys, tmp_path)
    assert (status, lines, len(errors)) == (1, [], 1)
    assert errors[0].startswith(f"digits: {tmp_path}: no picture in this folder")


def test_a_folder_that_cannot_be_read_is_one_line(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    def scandir(folder: str) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", scandir)  # the tests may run as root, who may read everything
    assert run(capsys, tmp_path) == (1, [], [f"digits: {tmp_path}: cannot be read: Permission denied"])


# ---- drawing


def test_pictures_are_drawn_without_collisions(scans: Path, tmp_path: Path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(page("3")).save(tmp_path / name / "1.png")
    run(capsys, tmp_path / "a", tmp_path / "b" / "1.png", "--save", tmp_path / "drawn")
    drawn = {str(path.relative_to(tmp_path / "drawn")) for path in (tmp_path / "drawn").rglob("*.*")}
    assert drawn == {f"a/1.png{ANNOTATED_SUFFIX}", f"b/1.png{ANNOTATED_SUFFIX}"}


@pytest.mark.parametrize("size", [(28, 28), (4000, 3000), (3000, 40), (1, 1)])
def test_the_drawing_has_a_size_for_eyes(size: tuple[int, int], tmp_path: Path):
    draw_reading(*blank(size), [digit(3), digit(5, confidence=0.5)], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert 350 <= max(image.size) <= 1500


def test_what_is_drawn_stays_in_its_folder_whatever_the_pictures_paths_are(scans: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "here").mkdir()
    for folder in (tmp_path / "other", tmp_path / "here" / "b"):
        folder.mkdir()
        shutil.copy(scans / "2.jpg", folder / "1.jpg")
    monkeypatch.chdir(tmp_path / "here")
    assert main(["predict", "../other/1.jpg", "b/1.jpg", "--save", "out"]) == 0
    drawn = {path.relative_to("out").as_posix() for path in Path("out").rglob("*.png")}
    assert drawn == {f"other/1.jpg{ANNOTATED_SUFFIX}", f"here/b/1.jpg{ANNOTATED_SUFFIX}"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_a_folder_is_left_out_as_nobody_may_ever_write_to_it(scans: Path, tmp_path: Path):
    shutil.copy(scans / "2.jpg", tmp_path)
    os.mkfifo(tmp_path / "1.jpg")
    assert find_pictures(tmp_path) == [tmp_path / "2.jpg"]


def test_an_empty_name_is_no_folder(capsys):
    assert run(capsys, "") == (1, [], ["digits: a picture's name is empty"])  # of an unset variable of the shell


def test_a_closed_standard_input_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)  # what Python makes of `<&-`
    assert run(capsys, "-") == (1, [], ["digits: standard input: is closed"])


def test_boxes_are_drawn_where_the_digits_are(tmp_path: Path):
    draw_reading(*blank((600, 600)), [digit(3)], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    coloured = (pixels.max(2) - pixels.min(2) > 50)[:, :600]
    assert coloured[40, 8:10].all() and coloured[40, 40:42].all()  # left and right of the box
    assert not coloured[25:55, 12:38].any()  # in it


def test_a_hundred_digits_have_their_place(tmp_path: Path):
    draw_reading(*blank((100, 100)), [digit(3)] * 100, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1000


# ---- in a shell


def shell(command: str, **options) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"DIGITS": f"{sys.executable} -m digits"}
    return subprocess.run(["bash", "-c", command], capture_output=True, env=environment, check=False, **options)


def test_a_picture_comes_through_a_pipe_and_nothing_is_coloured(scans: Path):
    result = shell("$DIGITS predict - < 2.jpg", cwd=scans)
    assert result.stdout.split()[:2] == [b"-", b"3"]
    assert b"\x1b" not in result.stdout and result.stderr == b""


def test_a_closed_pipe_ends_it_quietly(scans: Path):
    result = shell("$DIGITS predict 2.jpg | true; exit ${PIPESTATUS[0]}", cwd=scans)
    assert (result.stdout, result.stderr, result.returncode) == (b"", b"", 141)


def test_ctrl_c_ends_it_with_130(scans: Path):
    command = [sys.executable, "-m", "digits", "predict", *["2.jpg"] * 5000]
    process = subprocess.Popen(
        command,
        cwd=scans,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in a shell's background
    )
    assert process.stdout and process.stdout.readline().split()[1] == b"3"  # it streams: 5,000 take longer
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, b"digits: interrupted\n")


def test_ctrl_c_lets_the_picture_at_hand_be_finished():
    finished: list[int] = []
    taken: list[int] = []

    def results() -> Iterator[int]:
        for number in range(3):
            if number == 1:
                os.kill(os.getpid(), signal.SIGINT)
            finished.append(number)
            yield number

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    try:
        with pytest.raises(KeyboardInterrupt):
            taken.extend(interruptible(results()))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (finished, taken) == ([0, 1], [0])


def test_it_answers_soon_as_it_imports_what_it_needs(scans: Path):
    heavy = {
        "lightning",
        "matplotlib",
        "torchvision",
        "torchmetrics",
        "mlxtend",
        "pandas",
        "scipy",
        "hydra",
        "torch_xla",
    }
    code = (
        f"import sys; from digits.__main__ import main; main(['predict', '2.jpg']); print({heavy} & {{*sys.modules}})"
    )
    started = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], cwd=scans, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"
    assert time.monotonic() - started < 15  # 2 s on two idle cores


@pytest.mark.parametrize("files", [predicting.MAX_FILES_WITHOUT_BAR, predicting.MAX_FILES_WITHOUT_BAR + 1])
def test_a_bar_on_a_terminal_for_many_files_only(files: int, scans: Path):
    script = shutil.which("script")
    if script is None:
        pytest.skip("no script(1), which makes a terminal")
    command = f"stty rows 24 cols 80; {sys.executable} -m digits predict {'2.jpg ' * files}> out.txt"
    terminal = [script, "-qec", command, "/dev/null"]
    result = subprocess.run(terminal, cwd=scans, capture_output=True, text=True, check=True)
    assert ("file/s" in result.stdout) == (files > predicting.MAX_FILES_WITHOUT_BAR)
    lines = (scans / "out.txt").read_text().splitlines()
    (scans / "out.txt").unlink()
    assert len(lines) == files and {line.split()[1] for line in lines} == {"3"}
