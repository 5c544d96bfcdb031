"""Pictures in, lines of text, JSON or CSV out: what `digits predict` does."""

import csv
import io
import itertools
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text
from tqdm import tqdm

from digits.errors import DigitsError, one_line
from digits.reading.picture import PICTURE_SUFFIXES, PictureLike, open_picture, read_stream
from digits.reading.reader import Digit, Reader, text_lines
from digits.reading.selection import SURE
from digits.report.annotate import ANNOTATED_SUFFIX, MAX_PICTURE_SIDE, alternatives, draw_reading

OutputFormat: TypeAlias = Literal["text", "json", "csv"]
Item = TypeVar("Item")

STDIN = "-"
MAX_FILES_WITHOUT_BAR = 20  # of more files, a progress bar shows how many are left
DIGITS_WIDTH = (20, 40)  # columns on a terminal: at least, however long the names are, and at most
CSV_FIELDS = ["file", "row", "digit", "confidence", "left", "top", "right", "bottom", "alternatives"]
CSV_FIELDS += [f"p{value}" for value in range(10)]  # the ten probabilities


def predict(
    paths: Sequence[str], model: str | None = None, form: OutputFormat = "text", save: Path | None = None
) -> int:
    """Print what is read in the pictures that ``paths`` name, each as soon as it is read; failures go to stderr.

    On a terminal lines of text are as :func:`print_row` has them, elsewhere as :func:`as_text`.

    Args:
        paths: files, folders (see :func:`find_pictures`), or ``-`` for one picture on standard input.
        model: as :func:`digits.exchange.model_folder.load_model` takes it; None: the package's own.
        form: "text", "json" or "csv": see :func:`as_text`, :func:`as_json` and :func:`as_csv`.
        save: folder for the annotated pictures, as :func:`digits.report.annotate.draw_reading` draws them. That of
            `scans/1.png` is `1.png.digits.png`; if there are pictures in several folders, it has the same folders.

    Returns:
        How many files and folders could not be read.

    Raises:
        DigitsError: the model cannot be had.
        OSError: ``save`` cannot be written.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # some files' names cannot be encoded
        sys.stdout.reconfigure(errors="backslashreplace")
    files: list[str] = []
    failed = 0
    reader = Reader(model)
    for path in paths:
        try:
            files += _files_of(path)
        except DigitsError as error:
            failed += 1
            _print_error(error)
    pictures = [_source(file) for file in files]
    terminal = Console(highlight=False) if sys.stdout.isatty() else None
    name_width = max((cell_len(_printable(file)) for file in files), default=0)
    if form == "csv":
        _print(",".join(CSV_FIELDS))
    no_bar = None if len(files) > MAX_FILES_WITHOUT_BAR else True  # None: only if stderr is no terminal
    with tqdm(total=len(files), unit="file", leave=False, disable=no_bar) as bar:
        for file, picture, result in zip(files, pictures, interruptible(reader.read_many(pictures)), strict=True):
            if isinstance(result, DigitsError):
                failed += 1
                _print_error(result)
            elif save is not None:
                draw_reading(*open_picture(picture, MAX_PICTURE_SIDE), result, save / _annotated_path(file, files))
            if form == "json":
                _print(as_json(file, result))
            elif isinstance(result, DigitsError):
                pass
            elif form == "csv":
                _print(as_csv(file if terminal is None else _printable(file), result))
            elif terminal is None:
                _print(as_text(file, result))
            else:
                with tqdm.external_write_mode():
                    print_row(terminal, file, result, name_width)
            bar.update()
    return failed


def interruptible(results: Iterable[Item]) -> Iterator[Item]:
    """``results``, during which Ctrl-C takes effect between two of them only.

    Otherwise Python raises KeyboardInterrupt anywhere, even while threads hand over a lock, which ends in another
    error. If Ctrl-C is pressed a second time, it takes effect at once. Outside of the main thread, and where Ctrl-C is
    ignored or handled already, nothing changes.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    pressed = threading.Event()

    def note(*_: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    in_main = threading.current_thread() is threading.main_thread()
    default = in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if default:
        signal.signal(signal.SIGINT, note)
    try:
        for result in results:
            if pressed.is_set():
                raise KeyboardInterrupt
            yield result
    finally:
        if default:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def find_pictures(folder: Path) -> list[Path]:
    """The pictures in ``folder`` and its sub-folders, by their suffix, in natural order: 2.png before 10.png.

    Hidden files and folders, pictures that :func:`predict` has annotated, and pipes and the like are left out.

    Raises:
        DigitsError: the folder, or one in it, cannot be read.
    """
    found: list[Path] = []
    try:
        for path, folders, names in os.walk(folder, onerror=_reraise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            names = [name for name in names if not name.startswith(".") and not name.endswith(ANNOTATED_SUFFIX)]
            found += [Path(path, name) for name in names]
    except OSError as error:
        raise DigitsError(f"{error.filename}: cannot be read: {error.strerror}") from error
    pictures = [path for path in found if path.suffix.lower() in PICTURE_SUFFIXES]
    return sorted((path for path in pictures if path.is_file() or not path.exists()), key=_natural_key)


def as_text(file: str, digits: Sequence[Digit]) -> str:
    """One line, for a pipe or a file: the file's name, the digits, the confidence of the least certain, tabs between.

    Digits are in reading order, rows are parted by a slash, and a question mark follows a digit of less than 90 %
    confidence: 42/17?89.
    """
    if not digits:
        return f"{_printable(file)}\tno digit"
    return f"{_printable(file)}\t{_marked(digits)}\t{min(digit.confidence for digit in digits):.1%}"


def print_row(console: Console, file: str, digits: Sequence[Digit], name_width: int) -> None:
    """Print the same for eyes: in columns that fit ``console``, doubtful digits in colour where it has colours.

    Args:
        console: a terminal.
        file: its name; if it is too long, its beginning is left out.
        digits: what was read; more than fit go on in the next line.
        name_width: columns that the longest name takes.
    """
    room = console.width - 10  # 10: the confidence, and what is between
    width = max(min(name_width, room - DIGITS_WIDTH[0]), 8)
    name = _printable(file)
    if cell_len(name) > width:
        while cell_len(name) > width - 3:
            name = name[1:]
        name = f"...{name}"
    values = Text(_marked(digits) or "no digit")
    values.highlight_regex(r"\d\?", "bold yellow")
    row = Table.grid(
        Column(width=width),
        Column(width=max(DIGITS_WIDTH[0], min(DIGITS_WIDTH[1], room - width)), overflow="fold"),
        Column(width=6, justify="right"),
        padding=(0, 2, 0, 0),
    )
    row.add_row(Text(name), values, f"{min(digit.confidence for digit in digits):.1%}" if digits else "")
    console.print(row)


def as_json(file: str, result: Sequence[Digit] | DigitsError) -> str:
    """One JSON object on one line: ``file``, ``text`` and ``digits``, or ``file`` and ``error``.

    It is in ASCII, as a pipe may have any encoding.

    ``text`` has the digits in reading order, rows parted by a slash. A digit has ``value``, ``confidence``, ``box``
    (left, top, right and bottom, in the picture's pixels), ``row`` (from 0), ``alternatives`` (``value`` and
    ``probability`` of the other digits of more than 1 %) and ``probabilities`` (of 0 to 9).
    """
    if isinstance(result, DigitsError):
        return json.dumps({"file": file, "error": str(result)})
    digits: list[dict[str, Any]] = [
        {
            "value": digit.value,
            "confidence": round(digit.confidence, 6),
            "box": [int(edge) for edge in digit.box],
            "row": digit.row,
            "alternatives": [{"value": value, "probability": round(p, 6)} for value, p in alternatives(digit)],
            "probabilities": [round(p, 6) for p in digit.probabilities],
        }
        for digit in result
    ]
    return json.dumps({"file": file, "text": _values(result), "digits": digits})


def as_csv(file: str, digits: Sequence[Digit]) -> str:
    """One line for each of ``digits``, with the columns ``CSV_FIELDS``; if there are none, a line with the file alone.

    Alternatives are written as 7:0.031 9:0.012.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for digit in digits:
        others = " ".join(f"{value}:{p:.3f}" for value, p in alternatives(digit))
        fields = [file, digit.row, digit.value, f"{digit.confidence:.6f}", *digit.box, others]
        writer.writerow(fields + [f"{p:.6f}" for p in digit.probabilities])
    if not digits:
        writer.writerow([file] + [""] * (len(CSV_FIELDS) - 1))
    return text.getvalue().rstrip("\n")


def _values(digits: Sequence[Digit]) -> str:
    return "/".join(text_lines(digits))


def _marked(digits: Sequence[Digit]) -> str:
    """As :func:`_values`, with a question mark behind each doubtful digit."""
    rows = itertools.groupby(digits, key=lambda digit: digit.row)
    return "/".join("".join(f"{d.value}?" if d.confidence < SURE else f"{d.value}" for d in row) for _, row in rows)


def _files_of(path: str) -> list[str]:
    if not path:
        raise DigitsError("a picture's name is empty")
    if path == STDIN or not os.path.isdir(path):  # noqa: PTH112  # Path raises where it may not look
        return [path]
    if not (files := find_pictures(Path(path))):
        raise DigitsError(f"{path}: no picture in this folder (a file named *.png, *.jpg, *.webp, *.tif, *.bmp ...)")
    return [str(file) for file in files]


def _source(file: str) -> PictureLike:
    if file != STDIN:
        return Path(file)
    if sys.stdin is None:
        raise DigitsError("standard input: is closed")
    return read_stream(sys.stdin.buffer, "standard input")


def _annotated_path(file: str, files: Sequence[str]) -> Path:
    """Where ``file`` is drawn: its path within the folder that all ``files`` share, so that no two are the same."""
    folders = [os.path.dirname(os.path.abspath(other)) for other in files if other != STDIN]  # noqa: PTH100,PTH120
    if file == STDIN:
        return Path(f"stdin{ANNOTATED_SUFFIX}")
    # abspath resolves "..", which would lead out of the folder that annotated pictures are written to
    within = os.path.relpath(os.path.abspath(file), os.path.commonpath(folders))  # noqa: PTH100
    return Path(f"{within}{ANNOTATED_SUFFIX}")


def _natural_key(path: Path) -> list[tuple[str, int, str]]:
    """A sorting key by which numbers in names count as numbers: 2.png before 10.png."""
    parts = re.findall(r"(\D*)(\d*)", str(path))
    return [(text.casefold(), int(number or -1), number) for text, number in parts]


def _printable(file: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in file)


def _print(line: str) -> None:
    with tqdm.external_write_mode():  # hides the progress bar while it writes
        print(line, flush=True)


def _print_error(error: DigitsError) -> None:
    with tqdm.external_write_mode():
        print(f"digits: {one_line(error)}", file=sys.stderr)


def _reraise(error: OSError) -> None:
    raise error
