"""`predict` over many images with a detector that needs no network: resume, shards, kills, faults, several processes."""

import csv
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import terminal
import tifffile
from cli.stub import COUNT, install, write_squares
from terminal import one_line_error, plain, table

from nucleus_course._util import files as files_module
from nucleus_course.data.read import read_image, read_pixels
from nucleus_course.prediction.document import to_document
from nucleus_course.prediction.interchange import Predictions
from nucleus_course.prediction.label_images import load_label_folder
from nucleus_course.prediction.results import TABLES, fingerprint

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"


def run(*words):
    return terminal.run("predict", *words)


def merge(*words):
    return terminal.run("merge", *words)


@pytest.fixture
def stub(monkeypatch):
    return install(monkeypatch.setattr)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_squares(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def straight(images, tmp_path_factory):
    """The results of one process without a fault, as {relative path: bytes}."""
    out = tmp_path_factory.mktemp("straight") / "out"
    with pytest.MonkeyPatch.context() as patch:
        install(patch.setattr)
        assert run(images, "--out", out).exit_code == 0
    return contents(out)


def contents(out):
    """Every file of a results folder but the locks; no temporary file may be among them."""
    files = {p.relative_to(out).as_posix(): p for p in out.rglob("*") if p.is_file()}
    assert not [name for name in files if ".partial" in name]
    return {name: p.read_bytes() for name, p in files.items() if not name.endswith(".lock")}


def rows(out, name="counts.csv"):
    return table(out / name)


def start(*words, **env):
    """`predict` with the stub in a process of its own."""
    code = "import cli.stub; cli.stub.main()"
    path = os.pathsep.join([str(ROOT), str(TESTS)])
    environment = {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1", "COLUMNS": "200", **env}
    words = [sys.executable, "-c", code, "predict", *map(str, words)]
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_rows(out, count, process):
    """Until so many images are done."""
    while len(list((out / "rows").glob("image*.json"))) < count:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)


# ------------------------------------------------------------------------------ what is written


def test_the_tables_are_those_of_all_images_at_once(images, straight, tmp_path):
    out = tmp_path / "out"
    for name, data in straight.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    found = Predictions.load(out / "predictions.json")
    assert to_document(found) == json.loads(straight["predictions.json"])
    assert list(found.images) == [f"image{n:02d}" for n in range(COUNT)]
    for number, row in enumerate(rows(out)):
        assert row["image"] == f"image{number:02d}.png" and int(row["nuclei"]) == number + 1
        labels = tifffile.imread(out / "labels" / f"image{number:02d}.tif")
        assert labels.max() == number + 1 and (labels > 0).sum() == (
            (read_image(images / row["image"]) > 127).sum()
        )
    measured = rows(out, "measurements.csv")
    assert len(measured) == COUNT * (COUNT + 1) // 2
    assert all(float(r["area_px"]) == 6 * (4 + int(r["image"][5:7])) for r in measured)
    assert load_label_folder(out).detections == len(measured)


def test_resume_does_what_is_missing_and_what_changed(images, stub, straight, tmp_path):
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.mkdir()
    for name in ("image00.png", "image01.png"):
        (mine / name).write_bytes((images / name).read_bytes())
    assert run(mine, "--out", out).exit_code == 0 and stub.calls == 2
    again = run(mine, "--out", out, "--resume")
    assert again.exit_code == 0 and stub.calls == 2 and "2 images done before" in again.stderr
    (mine / "image00.png").write_bytes((images / "image05.png").read_bytes())
    (mine / "image02.png").write_bytes((images / "image02.png").read_bytes())
    (out / "labels" / "image01.tif").unlink()
    assert run(mine, "--out", out, "--resume").exit_code == 0 and stub.calls == 5
    assert [int(row["nuclei"]) for row in rows(out)] == [6, 2, 3]
    assert contents(out)["labels/image01.tif"] == straight["labels/image01.tif"]


def test_other_settings_need_another_folder(images, stub, tmp_path):
    out = tmp_path / "out"
    assert run(images, "--out", out).exit_code == 0
    before = contents(out)
    error = run(images, "--out", out, "--score-threshold 0.95")
    one_line_error(error, "score_threshold 0.5, not 0.95", "--overwrite")
    assert contents(out) == before
    (out / "notes.txt").write_text("mine")
    words = f"--out {out} --score-threshold 0.95 --overwrite"
    assert run(images / "image03.png", words).exit_code == 0
    assert [row["nuclei"] for row in rows(out)] == ["0"]
    names = {"labels/image03.tif", "rows/image03.json", "rows/settings.json", "notes.txt", *TABLES}
    assert set(contents(out)) == names


@pytest.fixture
def plates(images, tmp_path):
    """Two folders with images of the same names: one of another content, one of the same."""
    for plate, numbers in (("p1", (3, 5)), ("p2", (4, 5))):
        (tmp_path / plate).mkdir()
        for name, number in zip("xy", numbers):
            data = (images / f"image{number:02d}.png").read_bytes()
            (tmp_path / plate / f"{name}.png").write_bytes(data)
    return tmp_path / "p1", tmp_path / "p2"


def nuclei(folder):
    """{image: nuclei}, where the label image and predictions.json say the same."""
    found = {row["image"]: int(row["nuclei"]) for row in rows(folder)}
    assert {
        image: tifffile.imread(folder / "labels" / f"{image[:-4]}.tif").max() for image in found
    } == found
    document = json.loads((folder / "predictions.json").read_text())
    assert {image["file_name"] for image in document["images"]} == set(found)
    return found


def test_folders_with_the_same_names_in_one_call(plates, stub, tmp_path):
    out = tmp_path / "out"
    result = run(*plates, "--out", out)
    assert result.exit_code == 0 and "p1__x and p1__y" in plain(result.stderr)
    wanted = {"p1__x.png": 4, "p1__y.png": 6, "p2__x.png": 5, "p2__y.png": 6}
    assert nuclei(out) == wanted
    calls = stub.calls
    for part in (plates, plates[:1], plates[1:]):  # each image knows its results by any way
        assert run(*part, "--out", out, "--resume").exit_code == 0
    assert stub.calls == calls and nuclei(out) == wanted
    for shard in ("1/2", "2/2"):
        assert run(*plates, "--out", tmp_path / "s", "--shard", shard).exit_code == 0
    assert merge(tmp_path / "s").exit_code == 0 and contents(tmp_path / "s") == contents(out)


def test_folders_with_the_same_names_one_after_the_other(plates, stub, tmp_path):
    out = tmp_path / "out"
    first = run(plates[0], "--out", out)
    assert first.exit_code == 0 and "called" not in first.stderr
    before = contents(out / "labels")
    result = run(plates[1], "--out", out, "--resume")
    assert result.exit_code == 0
    assert "2 images renamed in the results" in plain(result.stderr) and "p2__x" in plain(
        result.stderr
    )
    wanted = {"x.png": 4, "y.png": 6, "p2__x.png": 5, "p2__y.png": 6}
    assert nuclei(out) == wanted
    assert before.items() <= contents(out / "labels").items()
    calls = stub.calls
    for part in (plates, plates[:1], plates[1:]):
        assert run(*part, "--out", out, "--resume").exit_code == 0
    assert stub.calls == calls and nuclei(out) == wanted
    (plates[1] / "x.png").write_bytes((plates[0] / "y.png").read_bytes())  # changed, not another
    assert run(plates[1], "--out", out, "--resume").exit_code == 0
    assert nuclei(out) == wanted | {"p2__x.png": 6}
    plates[0].rename(tmp_path / "moved")
    calls = stub.calls
    assert run(tmp_path / "moved", "--out", out, "--resume").exit_code == 0
    assert stub.calls == calls and len(nuclei(out)) == 4


def test_folders_with_the_same_names_on_two_machines(plates, stub, tmp_path):
    """Of other places, and of the same place on disks of their own: merge keeps all, with their exports."""
    pytest.importorskip("pyarrow")
    for number, plate in enumerate(plates):
        words = "--out", tmp_path / f"r{number}", "--export", "parquet,rois"
        assert run(plate, *words).exit_code == 0
        plate.rename(tmp_path / f"gone{number}")
    result = merge(tmp_path / "r0", tmp_path / "r1", "--out", tmp_path / "both")
    assert result.exit_code == 0 and "p2__x" in plain(result.stderr)
    wanted = {"x.png": 4, "y.png": 6, "p2__x.png": 5, "p2__y.png": 6}
    assert nuclei(tmp_path / "both") == wanted
    from pyarrow import parquet

    table = parquet.read_table(tmp_path / "both" / "parquet" / "p2__x.parquet")
    assert table["image"].to_pylist() == ["p2__x"] * 5
    assert (tmp_path / "both" / "rois" / "p2__x.zip").is_file()

    shutil.copytree(tmp_path / "gone1", plates[0])
    assert run(plates[0], "--out", tmp_path / "r2", "--export", "parquet,rois").exit_code == 0
    for _ in range(2):  # again: the same
        assert merge(tmp_path / "r0", tmp_path / "r2", "--out", tmp_path / "disks").exit_code == 0
        found = nuclei(tmp_path / "disks")
        assert sorted(found.values()) == [4, 5, 6] and found["x.png"] == 4


def test_a_row_that_somebody_damaged_is_named(images, stub, tmp_path):
    out = tmp_path / "out"
    assert run(images / "image00.png", "--out", out).exit_code == 0
    (out / "rows" / "image00.json").write_text('{"file_name"')
    one_line_error(merge(out), "image00.json", "damaged", "--resume")


def test_fingerprints_tell_files_apart(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    data = bytearray(os.urandom(300_000))
    first.write_bytes(data), second.write_bytes(data)
    assert fingerprint(first) == fingerprint(second)
    for place in (0, 299_999):
        changed = bytearray(data)
        changed[place] ^= 1
        second.write_bytes(changed)
        assert fingerprint(first) != fingerprint(second)


# ------------------------------------------------------------------------- shards and several processes


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5"])
def test_shards_that_are_none(images, stub, tmp_path, shard):
    one_line_error(run(images, "--out", tmp_path / "out", "--shard", shard), f"--shard {shard}")


def test_shards_in_parallel_then_merge(images, straight, tmp_path):
    out = tmp_path / "out"
    jobs = [start(images, "--out", out, "--shard", f"{i}/3", PAUSE="0.05") for i in (1, 2, 3)]
    for job in jobs:
        stdout, stderr = job.communicate(timeout=600)
        assert job.returncode == 0 and "next, when all shards are done" in stdout, stderr
    assert not (out / "predictions.json").exists()
    assert merge(out).exit_code == 0
    assert contents(out) == straight


def test_an_empty_shard_is_no_error(images, stub, tmp_path):
    done = run(images / "image00.png", "--out", tmp_path / "out", "--shard", "2/2")
    assert done.exit_code == 0 and "is empty" in done.stderr and not stub.calls


def test_folders_of_several_machines_become_one(images, stub, straight, tmp_path):
    for part in ("1", "2"):
        assert run(images, "--out", tmp_path / part, "--shard", f"{part}/2").exit_code == 0
    words = (tmp_path / "1", tmp_path / "2")
    one_line_error(merge(*words), "--out DIR")
    result = merge(*words, "--out", tmp_path / "out")
    assert result.exit_code == 0 and f"{COUNT * (COUNT + 1) // 2} nuclei in 12 images" in plain(
        result.stdout
    )
    assert contents(tmp_path / "out") == straight
    one_line_error(merge(tmp_path / "nothing"), "no results")
    assert run(images, "--out", tmp_path / "3", "--score-threshold", 0.2).exit_code == 0
    one_line_error(
        merge(tmp_path / "1", tmp_path / "3", "--out", tmp_path / "x"), "score_threshold"
    )


def test_two_processes_share_a_folder(images, straight, tmp_path):
    """Both do the same images, then each its own half: nothing is lost, nothing half."""
    files = sorted(images.iterdir())
    for name, parts in (("same", (files, files)), ("halves", (files[::2], files[1::2]))):
        out = tmp_path / name
        jobs = [start(*part, "--out", out, "--resume", PAUSE="0.03") for part in parts]
        for job in jobs:
            _, stderr = job.communicate(timeout=600)
            assert job.returncode == 0, stderr
        assert contents(out) == straight, name


# --------------------------------------------------------------------------------- ends and faults


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
    for path in leftovers:  # of killed processes; removed from an hour of age on
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


def fill_for(monkeypatch, *names):
    """The disk is full for files with one of the names in theirs."""
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
