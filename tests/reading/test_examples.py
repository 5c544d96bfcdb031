"""The pictures of `examples/`."""

import csv
import re

import pytest
from conftest import ROOT

from digits.errors import DigitsError
from digits.reading.picture import PICTURE_SUFFIXES
from digits.reading.predict import find_pictures
from digits.reading.reader import Reader, text_lines

EXAMPLES = ROOT / "examples"
MAX_BYTES = 150_000
with (EXAMPLES / "labels.csv").open(newline="", encoding="utf-8") as file:
    WRITTEN = {row["file"]: row["digits"] for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def read() -> dict[str, str]:
    """What is read in each picture, all of them at once as `digits predict examples/` does."""
    texts = {}
    for name, result in zip(WRITTEN, Reader().read_many(EXAMPLES / name for name in WRITTEN), strict=True):
        assert not isinstance(result, DigitsError), result
        texts[name] = "/".join(text_lines(result))
    return texts


def test_the_pictures_of_the_folder_are_those_with_a_label():
    assert {path.name for path in find_pictures(EXAMPLES)} == set(WRITTEN)
    others = {path.suffix for path in EXAMPLES.iterdir() if path.is_file()} - PICTURE_SUFFIXES
    assert others == {".csv", ".md", ".py"}  # which `digits predict examples/` leaves out


def test_they_are_small():
    assert all((EXAMPLES / name).stat().st_size <= MAX_BYTES for name in WRITTEN)


@pytest.mark.parametrize("name", WRITTEN)
def test_everyday_pictures_are_read_rightly(name: str, read: dict[str, str]):
    assert read[name] == WRITTEN[name]


def test_the_table_says_what_is_written():
    rows = re.findall(r"^\| \[(\S+)\].*\| (\S+) \|$", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert dict(rows) == WRITTEN
