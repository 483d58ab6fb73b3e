"""`evaluate` and its neighbours: nothing is overwritten, no option is without effect, both models are treated alike."""

import json

import numpy as np
import pytest
from PIL import Image
from terminal import one_line_error, plain, run

import nucleus_course as nc
from nucleus_course.evaluation.by_source import by_source
from nucleus_course.evaluation.metrics import aggregated_jaccard
from nucleus_course.prediction.interchange import Predictions


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two images with four squares each, and two sets of predictions, right and half as many."""
    monkeypatch.chdir(tmp_path)
    labels = np.zeros((64, 64), np.int32)
    for i in range(4):
        labels[8 + 14 * i : 16 + 14 * i, 20:30] = i + 1
    half = np.where(labels > 2, 0, labels)
    for name in ("a", "b"):
        rows = tmp_path / "data" / name
        (rows / "images").mkdir(parents=True)
        (rows / "masks").mkdir()
        Image.fromarray(((labels > 0) * 200).astype(np.uint8)).save(rows / "images" / f"{name}.png")
        for i in range(1, 5):
            mask = ((labels == i) * 255).astype(np.uint8)
            Image.fromarray(mask).save(rows / "masks" / f"{i}.png")
    for name, image in (("all", labels), ("half", half)):
        (tmp_path / name).mkdir()
        for each in ("a", "b"):
            Image.fromarray(image.astype(np.uint8)).save(tmp_path / name / f"{each}.png")
        predictions = Predictions.load(tmp_path / name)
        predictions.info["min_area"] = 60
        predictions.save(tmp_path / f"{name}.json")
    return tmp_path


EVALUATE = "evaluate --data data --split all --predictions"


@pytest.mark.parametrize(
    "words, named",
    [
        ("all.json --out all.json", "all.json"),
        ("all.json --out r.json --html r.json", "r.json"),
        ("all --against half.json --out half.json", "half.json"),
        ("half.json --against r.against.json --out r.json", "r.against.json"),
    ],
)
def test_no_result_replaces_what_is_read_or_another_result(folder, words, named):
    (folder / "r.against.json").write_bytes((folder / "half.json").read_bytes())
    before = {path: path.read_bytes() for path in folder.glob("*.json")}
    one_line_error(run(f"{EVALUATE} {words}"), named, "--out")
    assert {path: path.read_bytes() for path in folder.glob("*.json")} == before


def test_a_prediction_that_is_compared_is_not_overwritten_by_the_new_one(folder):
    (folder / "r.predictions.json").write_bytes((folder / "half.json").read_bytes())
    words = "evaluate --data data --split all --weights compact --against r.predictions.json --out r.json"
    one_line_error(run(words), "r.predictions.json", "--out")
    assert (folder / "r.predictions.json").read_bytes() == (folder / "half.json").read_bytes()


@pytest.mark.parametrize("point", ["--rescale 0.5", "--min-area 100", "--score-threshold 1"])
def test_the_other_model_has_the_same_operating_point(folder, point):
    """A model against itself differs by nothing, whatever the point (nuclei have 80 pixels, 20 at half the size)."""
    if "rescale" in point:  # predictions at half the size
        small = Predictions.load("all.json")
        for name in ("all", "half"):
            for each in ("a", "b"):
                whole = Image.open(f"{name}/{each}.png")
                whole.resize((32, 32), Image.Resampling.NEAREST).save(f"{name}/{each}.png")
        small = Predictions.load(folder / "all")
        small.info["min_area"] = 60
        small.save("all.json")
    result = run(f"{EVALUATE} all.json --against all.json --out r.json --bootstrap 20 {point}")
    assert result.exit_code == 0, result.stderr
    found = json.loads((folder / "r.against.json").read_text())["metrics"]
    assert found["f1_50"]["difference"] == 0


def test_options_of_a_prediction_need_one(folder):
    for option in ("--flips 2", "--diameter 12", "--preset compact", "--dtype float32"):
        one_line_error(run(f"{EVALUATE} all.json {option}"), option.split()[0], "--weights")
    one_line_error(run(f"{EVALUATE} all.json --learned source-1-train"), "--learned", "--sources")
    refused = run(f"{EVALUATE} all.json --seed -1")
    assert refused.exit_code == 2 and "--seed" in plain(refused.stderr)
    one_line_error(run("reproduce --run --data data"), "table1")
    choose = "thresholds --data data --weights compact --at-least mean_mask_iou=0.78"
    one_line_error(run(choose), "percent", "mean_mask_iou=78")


def test_merge_says_what_the_folder_held_before(folder, stub, images):
    from cli.many import run as predict

    assert predict(images, "--out", folder / "old").exit_code == 0
    part = folder / "part"
    part.mkdir()
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(part / "new.png")
    assert predict(part, "--out", folder / "one").exit_code == 0
    result = run(f"merge {folder / 'one'} --out {folder / 'old'}")
    assert result.exit_code == 0 and "already in" in plain(result.stderr)


def test_images_without_a_source_and_sources_without_nuclei_are_counted(folder):
    dataset = nc.load_dataset("data", progress=False)
    report = nc.evaluate(dataset, Predictions.load("all.json"), progress=False)
    table = by_source(report, {"a": "one"}, replicates=10)
    assert table.without_source == 1 and table.sources["one"]["images"] == 1
    assert "left out: 1" in table.table().caption


def test_a_source_without_nuclei_has_no_ap_and_does_not_count_in_its_mean(tmp_path):
    labels = np.zeros((16, 16), np.int32)
    labels[4:9, 4:9] = 1
    for name, image in (("empty", labels * 0), ("full", labels)):
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / f"{name}_masks.png")
        Image.fromarray((image * 200).astype(np.uint8)).save(tmp_path / f"{name}.png")
        (tmp_path / "found").mkdir(exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / "found" / f"{name}.png")
    dataset = nc.load_dataset(tmp_path, allow_empty=True, progress=False)
    report = nc.evaluate(dataset, Predictions.load(tmp_path / "found"), progress=False)
    table = by_source(report, {"empty": "none", "full": "some"}, replicates=10)
    assert table.sources["none"]["first"]["coco_ap"] is None
    assert table.means["all"]["coco_ap"]["first"] == pytest.approx(100)
    assert table.means["all"]["coco_ap"]["low"] == pytest.approx(100)
    table.save(tmp_path / "t.json")
    assert "NaN" not in (tmp_path / "t.json").read_text()


def test_aji_does_not_depend_on_the_order_of_the_detections():
    """Two detections with the same IoU: 1 of 4 pixels, and 2 of 8 (4 nucleus pixels, 6 detected, 2 shared)."""
    overlap = np.array(
        [[0, 1], [0, 1], [4, 2]]
    )  # background, first, second; columns: background, nucleus
    swapped = overlap[[0, 2, 1]]
    assert aggregated_jaccard(overlap) == aggregated_jaccard(swapped) == (2, 8 + 1)
