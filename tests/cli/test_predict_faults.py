"""`predict` over many images that is killed or interrupted, or meets bad files and full disks."""

import csv
import errno
import json
import os
import random
import signal
import sys
import time
import warnings

import pytest
import tifffile
from cli.many import contents, merge, rows, run, start, wait_for_rows
from cli.stub import COUNT, install
from terminal import plain

from nucleus_course._util import files as files_module
from nucleus_course.data.read import read_pixels
from nucleus_course.prediction.results import TABLES


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL here")
def test_killed_at_random_moments_it_goes_on(images, straight, tmp_path):
    out, random_ = tmp_path / "out", random.Random(7)
    job = start(images, "--out", out, "--resume", PAUSE="0.1")
    for kills in range(1, 5):
        while not (out / "rows").is_dir():
            time.sleep(0.01)
        time.sleep(random_.uniform(0.1, 0.5))
        job.kill()
        job.communicate()
        done = len(list((out / "rows").glob("image*.json")))
        for path in (out / "rows").glob("image*.json"):
            assert json.loads(path.read_text())["stem"] == path.stem
            assert tifffile.imread(out / "labels" / f"{path.stem}.tif").any()
        job = start(images, "--out", out, "--resume", PAUSE="0.1")
        print(f"kill {kills}: {done} images done")
    _, stderr = job.communicate(timeout=600)
    assert job.returncode == 0, stderr
    leftovers = list(out.rglob(".*partial*"))
    for path in leftovers:  # left by killed processes; removed once they are an hour old
        path.unlink()
    assert len(leftovers) <= 4 and contents(out) == straight


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals to a child here")
@pytest.mark.parametrize(
    "number, code, word", [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_signals_keep_what_is_done(images, straight, tmp_path, number, code, word):
    out = tmp_path / "out"
    job = start(images, "--out", out, PAUSE="0.2")
    wait_for_rows(out, 2, job)
    job.send_signal(number)
    _, stderr = job.communicate(timeout=600)
    assert job.returncode == code and stderr.strip().endswith(f"error: {word}"), stderr
    done = rows(out)
    assert 2 <= len(done) < COUNT
    assert len(json.loads((out / "predictions.json").read_text())["images"]) == len(done)
    job = start(images, "--out", out, "--resume")
    assert job.communicate(timeout=600) and job.returncode == 0
    assert contents(out) == straight


def test_bad_files_are_one_line_each_and_the_others_go_on(images, stub, tmp_path, monkeypatch):
    mine = tmp_path / "mine"
    mine.mkdir()
    good = (images / "image04.png").read_bytes()
    for name in ("good1", "huge", "locked", "odd", "good2"):
        (mine / f"{name}.png").write_bytes(good)
    (mine / "cut.png").write_bytes(good[:60])
    (mine / "empty.png").write_bytes(b"")
    real, predict = read_pixels, stub.predict

    def read(path, **options):
        if path.stem == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        read.stem = path.stem
        return real(path, **options)

    def detect(image, **options):
        if read.stem == "huge":
            raise type("ResourceExhaustedError", (Exception,), {})("OOM when allocating")
        if read.stem == "odd":
            raise ValueError("a bug")
        return predict(image, **options)

    monkeypatch.setattr("nucleus_course.prediction.many.read_picture", read)
    monkeypatch.setattr(stub, "predict", detect)
    result = run(mine, "--out", tmp_path / "out")
    said = plain(result.stderr)
    assert result.exit_code == 1
    skipped = [line for line in said.splitlines() if line.startswith("skipped")]
    words = {"cut": "cut short", "huge": "memory", "locked": "permission", "odd": "a bug"}
    for name, word in ({"empty": "empty"} | words).items():
        (line,) = (line for line in skipped if f"{name}.png" in line)
        assert word in line
    assert said.count("Traceback") == 1, "of the bug alone"
    assert "5 of 7 images could not be processed" in said
    assert [row["image"] for row in rows(tmp_path / "out")] == ["good1.png", "good2.png"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="no such names here")
def test_names_that_are_not_utf8_end_nothing(images, tmp_path):
    """In a process of its own, with the real standard error: one such image is good, one damaged."""
    mine = tmp_path / "mine"
    mine.mkdir()
    good = (images / "image04.png").read_bytes()
    for name, data in ((b"a\xfc.png", good), (b"b\xfc.png", good[:60]), (b"c.png", good)):
        with open(os.path.join(os.fsencode(mine), name), "wb") as file:
            file.write(data)
    for options in ((), ("--resume",)):
        job = start(mine, "--out", tmp_path / "out", "--overlay", "--export", "rois", *options)
        stdout, stderr = job.communicate(timeout=600)
        assert job.returncode == 1 and "Traceback" not in stderr, stderr
        assert "2 images with a name that is not UTF-8: written as a%FC.png" in stderr
        (line,) = [line for line in stderr.splitlines() if line.startswith("skipped")]
        assert "cut short" in line
        assert [row["image"] for row in rows(tmp_path / "out")] == ["a%FC.png", "c.png"]
        assert (tmp_path / "out" / "labels" / "a%FC.tif").is_file()
        listed = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
        assert [image["file_name"] for image in listed] == ["a%FC.png", "c.png"]


def fill_for(monkeypatch, *names):
    """The disk is full for files whose name contains one of ``names``."""
    replace = os.replace

    def full(source, target):
        if any(name in str(target) for name in names):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    monkeypatch.setattr(files_module.os, "replace", full)


def test_a_full_disk_skips_an_image_and_keeps_the_others(
    images, stub, straight, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    fill_for(monkeypatch, "image03")
    result = run(images, "--out", out)
    assert result.exit_code == 1
    lines = [line for line in plain(result.stderr).splitlines() if line.startswith("skipped")]
    assert len(lines) == 1 and "disk is full" in lines[0] and "image03" in lines[0]
    assert len(rows(out)) == COUNT - 1 and not list(out.rglob("*image03*"))
    monkeypatch.undo()
    install(monkeypatch.setattr)
    assert run(images, "--out", out, "--resume").exit_code == 0 and contents(out) == straight


def test_tables_that_do_not_fit_are_no_lost_image(images, stub, straight, tmp_path, monkeypatch):
    out = tmp_path / "out"
    fill_for(monkeypatch, "predictions.json")
    result = run(images, "--out", out)
    said = plain(result.stderr)
    assert result.exit_code == 1 and "could not be processed" not in said
    assert said.rstrip().endswith("error: the tables could not be written")
    monkeypatch.undo()
    assert merge(out).exit_code == 0 and contents(out) == straight


def test_a_disk_that_stays_full_ends_the_job_early(images, stub, straight, tmp_path, monkeypatch):
    out = tmp_path / "out"
    fill_for(monkeypatch, *TABLES, *(f"image{n:02d}" for n in range(4, COUNT)))
    result = run(images, "--out", out)
    said = plain(result.stderr)
    assert result.exit_code == 1 and stub.calls == 7
    assert "5 images not tried" in said and "merge" in said and "8 of 12 images" in said
    assert len(list((out / "labels").iterdir())) == 4 and not list(out.rglob("*.csv"))
    monkeypatch.undo()
    install(monkeypatch.setattr)
    assert run(images, "--out", out, "--resume").exit_code == 0 and contents(out) == straight


def test_a_limit_that_bites_is_said_once_an_image(images, stub, tmp_path, monkeypatch):
    predict = stub.predict

    def crowded(image, **options):
        warnings.warn("2 regions hold more nuclei than can be told apart", stacklevel=2)
        return predict(image, **options)

    monkeypatch.setattr(stub, "predict", crowded)
    result = run(images / "image01.png", "--out", tmp_path / "out")
    assert result.exit_code == 0
    said = plain(result.stderr).replace("\n", " ")
    assert said.count("2 regions hold") == 1 and "image01.png" in said
    with open(tmp_path / "out" / "counts.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["warnings"] == "2 regions hold more nuclei than can be told apart"
