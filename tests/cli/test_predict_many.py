"""`predict` over many images with a detector that needs no network: what is written, and resuming."""

import json
import os
import shutil

import pytest
import tifffile
from cli.many import contents, merge, rows, run
from cli.stub import COUNT
from terminal import one_line_error, plain

from nucleus_course.data.read import read_image
from nucleus_course.prediction.document import to_document
from nucleus_course.prediction.interchange import Predictions
from nucleus_course.prediction.label_images import load_label_folder
from nucleus_course.prediction.results import TABLES, fingerprint


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
    """A second folder has two images of the same names: one with other content, one identical."""
    for plate, numbers in (("p1", (3, 5)), ("p2", (4, 5))):
        (tmp_path / plate).mkdir()
        for name, number in zip("xy", numbers):
            data = (images / f"image{number:02d}.png").read_bytes()
            (tmp_path / plate / f"{name}.png").write_bytes(data)
    return tmp_path / "p1", tmp_path / "p2"


def nuclei(folder):
    """{image: nuclei}; the label image and predictions.json must agree."""
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
    for part in (plates, plates[:1], plates[1:]):  # each image finds its results by any path
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
    """Same names from different folders, and from the same folder on different disks: merge keeps all, with exports."""
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
    one_line_error(merge(out), "image00.json", "not JSON", "--resume")


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
