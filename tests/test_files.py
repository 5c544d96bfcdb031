"""A file is written whole or not at all."""

import os
from pathlib import Path

import pytest

from digits.files import move_files, remove_unfinished, temporary_beside, write_atomically


def test_a_file_is_replaced_and_the_one_before_it_kept(tmp_path: Path):
    for content in (b"1", b"2", b"3"):
        write_atomically(tmp_path / "a", content, keep=tmp_path / "before")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"3", "before": b"2"}


def test_where_writing_fails_the_old_file_stays_and_nothing_is_left_over(tmp_path: Path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def full(descriptor: int) -> None:  # stands in for a disk that is full: to fill one takes root
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/a'"):
        write_atomically(tmp_path / "a", b"new", keep=tmp_path / "before")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_a_folder_that_has_vanished_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="gone/a"):
        write_atomically(tmp_path / "gone" / "a", b"")


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path):
    (tmp_path / "below").mkdir()
    temporary_beside(tmp_path / "below" / "a").touch()
    temporary_beside(tmp_path / "model").mkdir()
    (temporary_beside(tmp_path / "model") / "weights").touch()
    (tmp_path / "a.tmp").touch()  # somebody else's
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tmp", "below"]


def test_files_are_moved_into_a_folder_in_place_of_those_there(tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "target"
    for folder, names in ((source, ("a", "below/b")), (target, ("a", "c"))):
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(folder.name)
    move_files(source, target, first="a")
    found = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert found == {"a": "source", "below/b": "source", "c": "target"}
