from __future__ import annotations

import errno
import os

import pytest

from tianti.errors import Damaged, UserError
from tianti.files import (
    atomic_open,
    check_files,
    describe_files,
    publish_folder,
    read_json,
    write_json,
    write_text,
)


def test_a_second_write_takes_the_place_of_the_first(tmp_path):
    for text in ("one", "two"):
        write_text(tmp_path / "a" / "b.txt", text)
        assert (tmp_path / "a" / "b.txt").read_text() == text


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def write_and_break() -> None:
        with atomic_open(path, "w") as file:
            file.write("new")
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        write_and_break()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS])
def test_a_failing_disk_is_one_line_with_a_remedy(tmp_path, monkeypatch, number):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError) as caught:
        write_text(path, "new")
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_flipped_torn_and_missing_files_are_named(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "data").write_bytes(b"0123456789")
    files = describe_files(tmp_path)
    check_files(tmp_path, files, hashes=True)
    (tmp_path / "sub" / "data").write_bytes(b"0123456780")
    check_files(tmp_path, files, hashes=False)
    with pytest.raises(Damaged, match=r"sub/data: file is damaged \(checksum"):
        check_files(tmp_path, files, hashes=True)
    (tmp_path / "sub" / "data").write_bytes(b"012345678")
    with pytest.raises(Damaged, match=r"sub/data: file is damaged \(size"):
        check_files(tmp_path, files, hashes=False)
    (tmp_path / "sub" / "data").unlink()
    with pytest.raises(Damaged, match="missing"):
        check_files(tmp_path, files, hashes=False)


def test_publishing_replaces_a_folder(tmp_path):
    for name, text in (("final", "old"), ("partial", "new")):
        write_text(tmp_path / name / "x", text)
    publish_folder(tmp_path / "partial", tmp_path / "final")
    assert (tmp_path / "final" / "x").read_text() == "new"
    assert os.listdir(tmp_path) == ["final"]


def test_json_survives_and_damage_is_told(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"名": [1, 2.5, None]})
    assert read_json(path) == {"名": [1, 2.5, None]}
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(Damaged, match=r"a\.json"):
        read_json(path)
