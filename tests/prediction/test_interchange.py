"""The interchange format: what is written is read back, and every kind of bad input has a one-line error or a rule."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeDataset, ellipses, image_predictions, random_case

from nucleus_course._util.errors import UserError
from nucleus_course.evaluation import evaluate
from nucleus_course.prediction.document import to_document
from nucleus_course.prediction.interchange import ImagePredictions, Predictions, PredictionsError


@pytest.fixture(scope="module")
def case():
    return random_case(21, images=3)


def test_round_trip_is_exact(case, tmp_path):
    predictions = Predictions(case[1].images, 0.5, {"model": "mine", "min_area": 7})
    predictions.save(tmp_path / "new" / "predictions.json")
    back = Predictions.load(tmp_path / "new" / "predictions.json")
    assert (back.score_threshold, back.name, back.info["min_area"]) == (0.5, "mine", 7)
    assert list(back.images) == list(predictions.images)
    for key, image in predictions.images.items():
        other = back.images[key]
        assert other.rles == image.rles
        assert (other.scores == image.scores).all() and (other.boxes == image.boxes).all()
        assert (other.height, other.width) == (image.height, image.width)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["predictions.json"]


def test_file_is_coco(case, tmp_path):
    from pycocotools.coco import COCO

    _, predictions, _ = case
    predictions.save(tmp_path / "predictions.json")
    document = json.loads((tmp_path / "predictions.json").read_text())
    assert document["categories"] == [{"id": 1, "name": "nucleus"}]
    coco = COCO(tmp_path / "predictions.json")
    for item in document["annotations"][:5]:
        mask = coco.annToMask(item)
        rows, columns = np.nonzero(mask)
        x, y, w, h = item["bbox"]
        assert (x, x + w) == (columns.min(), columns.max() + 1)
        assert (y, y + h) == (rows.min(), rows.max() + 1)


def test_a_failed_write_leaves_the_old_file(case, tmp_path):
    _, predictions, _ = case
    path = tmp_path / "predictions.json"
    predictions.save(path)
    before = path.read_bytes()
    with pytest.raises((ValueError, TypeError)):
        Predictions(predictions.images, 0.5, {"bad": object()}).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_stem_of_the_file_name_is_the_id():
    document = document_of()
    document["images"][0]["file_name"] = "folder\\deep/a.b.tif"
    assert list(load(document).images) == ["a.b", "two"]


def document_of():
    labels = ellipses(np.random.default_rng(0), 20, 30, 4, 2, 5)
    images = {
        "one": image_predictions([labels == 1, labels == 2], [0.9, 0.4], (20, 30)),
        "two": ImagePredictions(8, 9),
    }
    return json.loads(json.dumps(to_document(Predictions(images, 0.5))))


def load(document):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return Predictions.load(path)


DELETE = object()
# Place in the document, new value, message.
BAD = {
    "no images": ("images", DELETE, "list 'images' is missing"),
    "no annotations": ("annotations", DELETE, "list 'annotations' is missing"),
    "images no list": ("images", {}, "list 'images' is missing"),
    "info no object": ("info", [1], "'info' is not an object"),
    "threshold no number": ("info.score_threshold", "high", "info.score_threshold is 'high'"),
    "threshold NaN": ("info.score_threshold", float("nan"), "info.score_threshold is nan"),
    "image no object": ("images.0", 3, r"images\[0\] is not an object"),
    "image without size": ("images.0.height", DELETE, r"images\[0\] has no height"),
    "size of zero": ("images.0.height", 0, "height and width"),
    "size of text": ("images.0.width", "30", "height and width"),
    "no file name": ("images.0.file_name", "", "file_name"),
    "file name no text": ("images.0.file_name", 5, "file_name"),
    "image id no id": ("images.0.id", [1], r"images\[0\].id"),
    "duplicate image id": ("images.1.id", 1, "image id 1 occurs twice"),
    "duplicate stem": ("images.1.file_name", "other/one.tif", "two images are called 'one'"),
    "duplicate annotation id": (
        "annotations.1.id",
        1,
        r"annotations\[1\].id is 1, which occurs twice",
    ),
    "annotation no object": ("annotations.0", None, r"annotations\[0\] is not an object"),
    "unknown image": ("annotations.0.image_id", 99, "image_id is 99, which is not among 'images'"),
    "image id a list": ("annotations.0.image_id", [1], "which is not among"),
    "no score": ("annotations.0.score", DELETE, "has no score: this looks like ground truth"),
    "score NaN": ("annotations.1.score", float("nan"), r"annotations\[1\].score is nan"),
    "score infinite": ("annotations.1.score", float("inf"), r"annotations\[1\].score is inf"),
    "score text": ("annotations.0.score", "0.9", "score is '0.9'"),
    "score true": ("annotations.0.score", True, "score is True"),
    "bbox short": ("annotations.0.bbox", [1, 2, 3], "four numbers"),
    "bbox NaN": ("annotations.0.bbox", [1, 2, 3, float("nan")], "four numbers"),
    "polygon": ("annotations.0.segmentation", [[1, 1, 5, 1, 5, 5]], "is a polygon"),
    "no segmentation": ("annotations.0.segmentation", DELETE, "has no segmentation"),
    "RLE without counts": (
        "annotations.0.segmentation.counts",
        DELETE,
        "segmentation has no counts",
    ),
    "RLE of another size": (
        "annotations.0.segmentation.size",
        [30, 20],
        r"size \[30, 20\], its image is \[20, 30\]",
    ),
    "RLE too short": ("annotations.0.segmentation.counts", "3", "covers 3 pixels"),
    "RLE garbage": (
        "annotations.0.segmentation.counts",
        "~~~",
        "image 'one': mask 0 is not compressed RLE",
    ),
    "RLE empty": ("annotations.0.segmentation.counts", "", "counts is neither"),
    "RLE counts of the wrong sum": (
        "annotations.0.segmentation.counts",
        [1, 2, 3],
        "do not add up to the 600",
    ),
    "RLE counts negative": ("annotations.0.segmentation.counts", [601, -1], "do not add up"),
    "a crowd": ("annotations.0.iscrowd", 1, r"annotations\[0\].iscrowd is 1"),
    "area no number": ("annotations.0.area", "large", "area is 'large', not a number"),
    "category unknown": (
        "annotations.1.category_id",
        7,
        r"annotations\[1\].category_id is 7, which is not among 'categories'",
    ),
    "category a list": ("annotations.1.category_id", [1], "category_id is \\[1\\]"),
    "no nucleus among categories": (
        "categories",
        [{"id": 1, "name": "cell"}, {"id": 2, "name": "debris"}],
        "'categories' are cell, debris: name the one that counts 'nucleus'",
    ),
    "categories no list": ("categories", 3, "'categories' is not a list"),
    "sides beyond reason": ("images.0.height", 2**31, "height and width"),
    "a number of 400 digits": ("annotations.0.score", 10**400, "scores are finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_document_has_one_clear_line(name):
    path, value, message = BAD[name]
    document = place = document_of()
    *steps, key = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in steps:
        place = place[step]
    place[key] = value
    if value is DELETE:
        del place[key]
    with pytest.raises(PredictionsError, match=message) as caught:
        load(document)
    assert "predictions.json: " in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "\x00", "[" * 100000])
def test_malformed_json(text):
    with pytest.raises(PredictionsError, match="not JSON"):
        load(text)


def test_other_json_and_missing_files(tmp_path):
    with pytest.raises(PredictionsError, match="bare list"):
        load([])
    with pytest.raises(PredictionsError, match="JSON object is expected"):
        load('"text"')
    with pytest.raises(UserError, match="No such file"):
        Predictions.load(tmp_path / "nowhere.json")
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(PredictionsError, match="not JSON"):
        Predictions.load(tmp_path / "latin.json")


def test_what_other_tools_leave_out_is_filled_in():
    document = document_of()
    mask = np.zeros((20, 30), np.uint8)
    mask[2:5, 3:9] = 1
    counts = [3 * 20 + 2, *([3, 17] * 5), 3, 20 * 30 - (8 * 20 + 5)]
    document["annotations"] = [
        {"image_id": 1, "score": 1, "segmentation": {"size": [20, 30], "counts": counts}}
    ]
    del document["info"], document["categories"]
    predictions = load(document)
    image = predictions.images["one"]
    assert image.boxes.tolist() == [[2, 3, 5, 9]] and predictions.score_threshold is None
    assert (image.label_image() == mask).all()


def test_two_categories_without_names_are_refused():
    document = document_of()
    del document["categories"]
    assert len(load(document).images["one"]) == 2
    document["annotations"][1]["category_id"] = 2
    with pytest.raises(PredictionsError, match="category_id is 1, 2, without 'categories'"):
        load(document)


def test_of_several_categories_the_nucleus_counts_and_a_line_says_so():
    document = document_of()
    document["categories"] = [{"id": 5, "name": "cell"}, {"id": 1, "name": "Nuclei"}]
    document["annotations"][0]["category_id"] = 5
    predictions = load(document)
    assert predictions.images["one"].scores.tolist() == [0.4]
    assert predictions.warnings == ["1 annotation of other categories than nucleus left out"]
    only = document_of()
    only["categories"] = [{"id": 9, "name": "cell"}]  # a single kind of object, whatever its name
    for item in only["annotations"]:
        item["category_id"] = 9
    assert len(load(only).images["one"]) == 2 and load(only).warnings == []


def test_an_area_that_is_not_the_masks_is_said():
    document, labels = document_of(), ellipses(np.random.default_rng(0), 20, 30, 4, 2, 5)
    for item, label in zip(document["annotations"], (1, 2)):
        item["area"] = float((labels == label).sum()) + 1.5  # a polygon's area is only close
    assert load(document).warnings == []
    document["annotations"][0]["area"] *= 4
    assert load(document).warnings == ["1 annotation with an 'area' that is not the mask's: the masks count"]  # fmt: skip
    dataset = FakeDataset({"one": labels, "two": np.zeros((8, 9), int)})
    assert any("'area'" in w for w in evaluate(dataset, load(document), progress=False).warnings)


def test_masks_are_decoded_once(case, monkeypatch, tmp_path):
    from nucleus_course.prediction import interchange

    calls = []
    decode = interchange.runs_from_rles
    monkeypatch.setattr(interchange, "runs_from_rles", lambda *a: calls.append(1) or decode(*a))
    dataset, predictions, _ = case
    predictions.save(tmp_path / "predictions.json")
    evaluate(dataset, tmp_path / "predictions.json", progress=False)
    assert len(calls) == len(predictions.images)


def test_predictions_made_in_python_are_checked_too():
    good = image_predictions([np.eye(4)], [0.5], (4, 4)).rles
    with pytest.raises(PredictionsError, match="score nan"):
        ImagePredictions(4, 4, good, [np.nan])
    with pytest.raises(PredictionsError, match="1 masks, 2 scores"):
        ImagePredictions(4, 4, good, [0.1, 0.2])
    wrong = Predictions({"a": ImagePredictions(5, 4, good, [0.5])}, 0.5)
    with pytest.raises(PredictionsError, match="image 'a': mask 0 has the size"):
        evaluate(FakeDataset({"a": np.zeros((5, 4), int)}), wrong, progress=False)
    with pytest.raises(PredictionsError, match="2 labels but 1 scores"):
        Predictions.from_label_images({"a": np.array([[1, 2]])}, {"a": [0.5]})
    with pytest.raises(PredictionsError, match="a.png: a label image is a 2-D array of integers"):
        Predictions.from_label_images({"a": np.zeros((3, 3))})


def test_data_set_and_predictions_that_do_not_fit(case):
    dataset, predictions, _ = case
    some = dict(list(predictions.images.items())[:-1])
    report = evaluate(
        dataset, Predictions({**some, "stranger": ImagePredictions(5, 5)}, 0.5), progress=False
    )
    assert any(
        "1 of 6 images have no predictions and count as images without detections: some-none" in w
        for w in report.warnings
    )
    assert any("not in the data set were left out: stranger" in w for w in report.warnings)
    # the same as if the last image had no detections
    whole = evaluate(dataset, predictions, progress=False)
    assert whole.metrics == report.metrics
    with pytest.raises(
        PredictionsError, match="the data set has 'image0', the predictions have 'stranger'"
    ):
        evaluate(dataset, Predictions({"stranger": ImagePredictions(5, 5)}), progress=False)
    with pytest.raises(PredictionsError, match="no image of the data set has predictions"):
        evaluate(dataset, Predictions(), progress=False)
    with pytest.raises(PredictionsError, match="has no images"):
        evaluate(FakeDataset({}), predictions, progress=False)
    with pytest.raises(PredictionsError, match="70 x 90 pixels, its predictions are for 90 x 70"):
        evaluate(dataset, Predictions({"image0": ImagePredictions(90, 70)}), progress=False)
    for bad in (float("nan"), "0.5", True):
        with pytest.raises(PredictionsError, match="score_threshold is"):
            evaluate(dataset, predictions, score_threshold=bad, progress=False)


def test_rules_that_are_warned_of(case):
    dataset, predictions, _ = case
    unnamed = evaluate(dataset, Predictions(predictions.images), progress=False)
    assert any("name no score threshold" in w for w in unnamed.warnings)
    assert unnamed.operating_point == {"score_threshold": 0.0, "min_area": 0, "source": "none"}
    empty = image_predictions([np.zeros((4, 4))], [0.9], (4, 4))
    report = evaluate(
        FakeDataset({"a": np.eye(4, dtype=int)}), Predictions({"a": empty}, 0.5), progress=False
    )
    assert any("1 empty mask among the detections" in w for w in report.warnings)
    assert report.counts["detections"] == 0 and report.counts["candidates"] == 1
