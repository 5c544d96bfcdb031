"""Pictures in, lines out: what `digits predict` does."""

import csv
import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from tqdm import tqdm

from digits.errors import DigitsError
from digits.reading.picture import SUFFIXES, PictureLike, whole_stream
from digits.reading.reader import Digit, Reader, lines
from digits.report.reading import DRAWN, alternatives, draw_reading
from digits.report.tables import one_line

Form: TypeAlias = Literal["text", "json", "csv"]
Item = TypeVar("Item")

STDIN = "-"
MANY = 20  # files from which on a bar tells how many are left
PATH, DIGITS = 48, 12  # columns of a line of text; what is longer is not cut
FIELDS = ["file", "row", "digit", "confidence", "left", "top", "right", "bottom", "alternatives"]  # of the CSV, and:
PROBABILITIES = [f"p{value}" for value in range(10)]


def predict(paths: Sequence[str], model: str | None = None, form: Form = "text", save: Path | None = None) -> int:
    """Print what is read in the pictures that ``paths`` name, each as soon as it is; what fails goes to stderr.

    Args:
        paths: files, folders (see :func:`find_pictures`), or ``-`` for one picture on standard input.
        model: as :func:`digits.exchange.model_folder.load_model` takes it; None: the package's own.
        form: "text", "json" or "csv": see :func:`as_text`, :func:`as_json` and :func:`as_csv`.
        save: folder for what :func:`digits.report.reading.draw_reading` draws: of `scans/1.png` there is
            `1.png.digits.png`, and of pictures in several folders it is in folders of the same names.

    Returns:
        How many files and folders could not be read.

    Raises:
        DigitsError: the model cannot be had.
        OSError: ``save`` cannot be written.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may be in no encoding, or in another one
        sys.stdout.reconfigure(errors="backslashreplace")
    files: list[str] = []
    failed = 0
    reader = Reader(model)
    for path in paths:
        try:
            files += _files_of(path)
        except DigitsError as error:
            failed += 1
            _complain(error)
    pictures = [_source(file) for file in files]
    width = min(max((len(_printable(file)) for file in files), default=0), PATH)
    if form == "csv":
        _print(",".join(FIELDS + PROBABILITIES))
    with tqdm(total=len(files), unit="file", leave=False, disable=None if len(files) > MANY else True) as bar:
        for file, picture, result in zip(files, pictures, interruptible(reader.read_many(pictures)), strict=True):
            if isinstance(result, DigitsError):
                failed += 1
                _complain(result)
            elif save is not None:
                draw_reading(picture, result, save / _drawn(file, files))
            if form == "json":
                _print(as_json(file, result))
            elif not isinstance(result, DigitsError):
                _print(as_csv(file, result) if form == "csv" else as_text(file, result, width))
            bar.update()
    return failed


def interruptible(results: Iterable[Item]) -> Iterator[Item]:
    """``results``, where Ctrl-C counts between two of them.

    Python raises KeyboardInterrupt anywhere, also where threads hand over a lock, which then ends in another error. So
    it does if Ctrl-C is pressed twice. Elsewhere than in the main thread, and where it is ignored, nothing changes.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    pressed = threading.Event()

    def note(*_: object) -> None:
        pressed.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    in_main = threading.current_thread() is threading.main_thread()
    usual = in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual:
        signal.signal(signal.SIGINT, note)
    try:
        for result in results:
            if pressed.is_set():
                raise KeyboardInterrupt
            yield result
    finally:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def find_pictures(folder: Path) -> list[Path]:
    """The pictures in ``folder`` and its sub-folders, by their suffix, in natural order: 2.png before 10.png.

    Hidden files and folders, what :func:`predict` has drawn, and pipes and the like are left out.

    Raises:
        DigitsError: the folder, or one in it, cannot be read.
    """
    found: list[Path] = []
    try:
        for path, folders, names in os.walk(folder, onerror=_reraise):
            folders[:] = [name for name in folders if not name.startswith(".")]
            found += [Path(path, name) for name in names if not name.startswith(".") and not name.endswith(DRAWN)]
    except OSError as error:
        raise DigitsError(f"{error.filename}: cannot be read: {error.strerror}") from error
    pictures = [path for path in found if path.suffix.lower() in SUFFIXES]
    return sorted((path for path in pictures if path.is_file() or not path.exists()), key=_natural)


def as_text(file: str, digits: Sequence[Digit], width: int) -> str:
    """One line: the name of the file, ``width`` columns wide, the digits, the confidence of the least certain one.

    Digits are in reading order, rows are parted by a slash: 42/1789.
    """
    name = f"{_printable(file):<{width}}  "
    if not digits:
        return f"{name}no digit"
    return f"{name}{_values(digits):<{DIGITS}}  {min(digit.confidence for digit in digits):>6.1%}"


def as_json(file: str, result: Sequence[Digit] | DigitsError) -> str:
    """One JSON object on one line: ``file``, ``text`` and ``digits``, or ``file`` and ``error``.

    It is in ASCII, as a pipe may have any encoding.

    ``text`` is as in :func:`as_text`. A digit has ``value``, ``confidence``, ``box`` (left, top, right and bottom, in
    the picture's pixels), ``row`` (from 0), ``alternatives`` (``value`` and ``probability`` of the other digits of more
    than 1 %) and ``probabilities`` (of 0 to 9).
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
    """A line for each of ``digits``, under the names of ``FIELDS + PROBABILITIES``; for none one with the file alone.

    Alternatives are written as 7:0.031 9:0.012.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for digit in digits:
        others = " ".join(f"{value}:{p:.3f}" for value, p in alternatives(digit))
        fields = [file, digit.row, digit.value, f"{digit.confidence:.6f}", *digit.box, others]
        writer.writerow(fields + [f"{p:.6f}" for p in digit.probabilities])
    if not digits:
        writer.writerow([file] + [""] * (len(FIELDS + PROBABILITIES) - 1))
    return text.getvalue().rstrip("\n")


def _values(digits: Sequence[Digit]) -> str:
    return "/".join(lines(digits))


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
    return whole_stream(sys.stdin.buffer, "standard input")


def _drawn(file: str, files: Sequence[str]) -> Path:
    """Where ``file`` is drawn: its path from the folder that all ``files`` have in common, so that no two collide."""
    folders = [os.path.dirname(os.path.abspath(other)) for other in files if other != STDIN]  # noqa: PTH100,PTH120
    if file == STDIN:
        return Path(f"stdin{DRAWN}")
    # by abspath, which takes out "..": the drawing would lie elsewhere
    return Path(f"{os.path.relpath(os.path.abspath(file), os.path.commonpath(folders))}{DRAWN}")  # noqa: PTH100


def _natural(path: Path) -> list[tuple[str, int, str]]:
    """A key by which numbers in names count as numbers."""
    parts = re.findall(r"(\D*)(\d*)", str(path))
    return [(text.casefold(), int(number or -1), number) for text, number in parts]


def _printable(file: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in file)


def _print(line: str) -> None:
    with tqdm.external_write_mode():  # takes the bar away as long as it writes
        print(line, flush=True)


def _complain(error: DigitsError) -> None:
    with tqdm.external_write_mode():
        print(f"digits: {one_line(error)}", file=sys.stderr)


def _reraise(error: OSError) -> None:
    raise error
