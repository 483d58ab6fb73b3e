"""Folders of label images: what is read, what is refused."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from nucleus_course.prediction.interchange import Predictions, PredictionsError

LABELS = np.array([[0, 1, 1], [5, 5, 0]])


def png(path, array):
    Image.fromarray(np.asarray(array)).save(path)


@pytest.mark.parametrize(
    "name, dtype",
    [("a.png", np.uint8), ("a.png", np.uint16), ("a.tif", np.uint8), ("a.tiff", np.uint16), ("a.tif", np.uint32),
     ("a.TIF", np.int32), ("a_cp_masks.tif", np.uint16)],
)  # fmt: skip
def test_every_kind_of_label_image(tmp_path, name, dtype):
    (png if name.endswith("png") else tifffile.imwrite)(tmp_path / name, LABELS.astype(dtype))
    (tmp_path / "a_outlines.txt").write_text("not an image")
    image = Predictions.load(tmp_path).images["a"]
    assert image.scores.tolist() == [1.0, 1.0]
    assert (image.label_image() == np.array([[0, 1, 1], [2, 2, 0]])).all()


def test_saved_as_json_the_ids_are_the_same(tmp_path):
    for name in ("a_cp_masks.tif", "b.tif", "c.v2.tif"):
        tifffile.imwrite(tmp_path / name, LABELS.astype(np.uint16))
    predictions = Predictions.load(tmp_path)
    predictions.save(tmp_path / "out" / "predictions.json")
    found = Predictions.load(tmp_path / "out")
    assert set(found.images) == set(predictions.images) == {"a", "b", "c.v2"}


def test_labels_beyond_sixteen_bits(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", (LABELS * 100_000).astype(np.uint32))
    assert len(Predictions.load(tmp_path).images["a"]) == 2


def test_scores_from_json_and_csv(tmp_path):
    for name in ("a", "b", "c"):
        png(tmp_path / f"{name}.png", LABELS.astype(np.uint8))
    (tmp_path / "scores.json").write_text(json.dumps({"a": {"1": 0.9, "5": 0.2, "8": 0.1}}))
    (tmp_path / "b.csv").write_text("label,score\n5,0.7\n1,0.3\n")
    images = Predictions.load(tmp_path).images
    assert images["a"].scores.tolist() == [0.9, 0.2]
    assert images["b"].scores.tolist() == [0.3, 0.7]
    assert images["c"].scores.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    "text",
    [
        "\ufefflabel,score\r\n1,0.3\r\n5,0.7\r\n",
        "label;score\n5;0,7\n1;0,3\n",
        "Label\tScore\n1.0\t0.3\n5.0\t0.7\n",
        '"label","score","area"\n"1","0.3","2"\n"5","0.7","2"\n\n',
    ],
    ids=["byte order mark", "semicolons and decimal commas", "tabs and 1.0", "quotes"],
)
def test_csv_as_spreadsheets_write_it(tmp_path, text):
    png(tmp_path / "a.png", LABELS.astype(np.uint8))
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    assert Predictions.load(tmp_path).images["a"].scores.tolist() == [0.3, 0.7]


def test_floats_that_are_whole_are_labels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", LABELS.astype(np.float32))
    assert len(Predictions.load(tmp_path).images["a"]) == 2


def test_pictures_beside_cellposes_masks_are_passed_over_with_a_line(tmp_path):
    for name in ("a.png", "a_cp_outlines.png", "a_cp_masks.png"):
        png(tmp_path / name, (LABELS if "masks" in name else LABELS + 40).astype(np.uint8))
    predictions = Predictions.load(tmp_path)
    assert list(predictions.images) == ["a"] and len(predictions.images["a"]) == 2
    assert predictions.warnings == ["2 files passed over as no label image, such as a.png"]


def test_folder_with_predictions_json_or_labels_inside(tmp_path):
    (tmp_path / "labels").mkdir()
    png(tmp_path / "labels" / "a.png", LABELS.astype(np.uint8))
    assert list(Predictions.load(tmp_path).images) == ["a"]
    Predictions({}, 0.3).save(tmp_path / "predictions.json")
    assert Predictions.load(tmp_path).score_threshold == 0.3


def write(name, content):
    def make(folder):
        path = folder / name
        if isinstance(content, np.ndarray):
            (png if name.endswith("png") else tifffile.imwrite)(path, content)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)

    return make


def scores(text):
    """A good label image, and scores beside it."""
    name = "a.csv" if "\n" in text else "scores.json"
    return [GOOD, write(name, text)]


GOOD = write("a.png", LABELS.astype(np.uint8))
STACK, HALVES = np.zeros((5, 7, 9), np.uint8), LABELS.astype(np.float32) / 2
HOLES = np.where(LABELS > 0, np.nan, LABELS).astype(np.float32)
BAD = {
    "nothing": ([], "neither predictions.json nor label images"),
    "two for one image": (
        [GOOD, write("a.tif", LABELS.astype(np.uint8))],
        "already has a label image, a.png",
    ),
    "colour": (
        [write("a.png", np.zeros((3, 4, 3), np.uint8))],
        "one plane, but this one has the shape",
    ),
    "a stack that may overlap": ([write("a.tif", STACK)], "masks that overlap go into|5 pages"),
    "fractions": ([write("a.tif", HALVES)], "hold whole numbers, not fractions"),
    "not a number": ([write("a.tif", HOLES)], "hold whole numbers"),
    "negative": ([write("a.tif", -LABELS.astype(np.int16))], "a label is negative"),
    "not an image": (
        [write("a.png", b"not a png")],
        "a.png: .*(not a readable image|cannot be read)",
    ),
    "not a tiff": ([write("a.tif", b"")], "a.tif: .*empty|cannot be read"),
    "scores not JSON": (scores("{"), "scores.json"),
    "scores a list": (scores("[1]"), "image id: {label: score}"),
    "scores for nothing": (scores('{"b": {}}'), "the folder has no label image 'b'"),
    "a label without score": (scores('{"a": {"1": 0.5}}'), "no score for label 5"),
    "score NaN": (scores('{"a": {"1": NaN, "5": 1}}'), "a score is nan"),
    "csv without columns": (scores("1,0.5\n5,0.5\n"), "columns label and score"),
    "csv with text": (scores("label,score\n1,high\n"), "columns label and score"),
    "csv with a label twice": (scores("label,score\n1,0.1\n5,1\n1,0.2\n"), "a label occurs twice"),
    "csv with half labels": (scores("label,score\n1.5,0.5\n5,1\n"), "1.5.* is not a whole"),
    "csv infinite label": (scores("label,score\ninf,0.5\n5,1\n"), "label and score"),
    "csv infinite": (scores("label,score\n1,inf\n5,1\n"), "a score is inf"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folder_has_one_clear_line(tmp_path, name):
    files, message = BAD[name]
    for make in files:
        make(tmp_path)
    with pytest.raises(PredictionsError, match=message) as caught:
        Predictions.load(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
