"""Atomic writing: the complete new file or the old one, even with several writers."""

import os
import re
import stat
import threading
import time
from pathlib import Path

import pytest

from nucleus_course._util.cores import usable_cores
from nucleus_course._util.files import atomic_folder, atomic_write, remove_stale, write_file
from nucleus_course._util.progress import track

PACKAGE = Path(__file__).parents[2] / "nucleus_course"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.json"
    write_file(target, "old")
    with pytest.raises(RuntimeError), atomic_write(target) as place:
        place.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and names(tmp_path) == ["a.json"]


def test_a_folder_appears_as_a_whole_and_replaces_as_a_whole(tmp_path):
    target = tmp_path / "a" / "x.zarr"
    for content in ("old", "new"):
        with atomic_folder(target) as place:
            (place / content).write_text(content)
            assert not (target / content).exists()
        assert names(target) == [content] and names(target.parent) == ["x.zarr"]
    with pytest.raises(RuntimeError), atomic_folder(target) as place:
        (place / "half").mkdir()
        raise RuntimeError
    assert names(target) == ["new"] and names(target.parent) == ["x.zarr"]


def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(tmp_path, monkeypatch):
    with atomic_folder(tmp_path / "x") as place:
        (place / "old").touch()
    rename = Path.rename

    def fails(self, target):
        if target == tmp_path / "x" and (self / "new").exists():
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError), atomic_folder(tmp_path / "x") as place:
        (place / "new").touch()
    assert names(tmp_path) == ["x"] and names(tmp_path / "x") == ["old"]


def test_writers_at_the_same_time_do_not_meet(tmp_path):
    """Both write at once; with a fixed temporary name they would share one file."""
    target = tmp_path / "model.weights.h5"
    with atomic_write(target) as one, atomic_write(target) as other:
        assert one != other and one.parent == other.parent == tmp_path
        assert one.name.endswith(".weights.h5")
        one.write_text("one")
        other.write_text("other")
    assert target.read_text() == "one" and names(tmp_path) == [target.name]


@pytest.mark.skipif(os.name == "nt", reason="no umask")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_the_umask_s(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_file(tmp_path / "a", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


def test_nothing_in_the_package_sets_the_umask_while_threads_run():
    found = [p.name for p in PACKAGE.rglob("*.py") if re.search(r"\bumask\(", p.read_text())]
    assert found in ([], ["interchange.py"])


def test_a_name_of_255_bytes_and_folders_that_are_not_there(tmp_path):
    target = tmp_path / "x" / ("é" * 125 + "a.png")
    write_file(target, b"1")
    assert names(tmp_path / "x") == [target.name]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "near.txt").symlink_to(tmp_path / "far" / "file.txt")
    write_file(tmp_path / "near.txt", "text")
    assert (tmp_path / "near.txt").is_symlink()
    assert (tmp_path / "far" / "file.txt").read_text() == "text"


def test_threads_leave_one_whole_file(tmp_path):
    texts = [str(number) * 10_000 for number in range(8)]
    threads = [threading.Thread(target=write_file, args=(tmp_path / "a", t)) for t in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_text() in texts and names(tmp_path) == ["a"]


def test_only_old_temporary_files_are_removed(tmp_path):
    with atomic_write(tmp_path / "a.zip") as old, atomic_write(tmp_path / "a.zip") as new:
        os.utime(old, (time.time() - 7200,) * 2)
        (tmp_path / "mine.partial").write_text("a download to go on with")
        os.utime(tmp_path / "mine.partial", (0, 0))
        remove_stale(tmp_path)
        assert names(tmp_path) == sorted([new.name, "mine.partial"])
        old.write_text("")


def test_cores_and_progress():
    assert 1 <= usable_cores() <= os.cpu_count()
    assert list(track([1, 2], "counting")) == [1, 2] == list(track(iter([1, 2]), "counting", 2))
