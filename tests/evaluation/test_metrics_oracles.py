"""All metrics against independent oracles on fixed random cases."""

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeDataset, image_predictions, random_case
from oracles import matterport_ap, nuclei_of, operating_point_metrics, painted, pycocotools_ap
from pycocotools import mask as coco_mask

from nucleus_course.evaluation import KEYS, evaluate
from nucleus_course.prediction.interchange import Predictions

HERE = Path(__file__).parent / "fixed_case"


def oracle_metrics(dataset, predictions, masks, threshold, min_area):
    """Every metric against its oracle, and Matterport's AP of each image."""
    truth = {key: nuclei_of(dataset[key].labels) for key in dataset.ids}
    pieces = {
        key: painted(*masks[key], dataset[key].labels.shape, threshold, min_area)
        for key in dataset.ids
    }
    expected = operating_point_metrics(truth, pieces)
    expected["coco_ap"], expected["coco_ap50"], expected["coco_ap75"] = pycocotools_ap(
        dataset, predictions
    )
    expected["coco_ap_maxdets100"] = pycocotools_ap(dataset, predictions, 100)[0]
    per_image = {key: matterport_ap(*masks[key], truth[key]) for key in dataset.ids}
    expected["matterport_ap"] = 100 * np.mean([v for v in per_image.values() if v is not None])
    return expected, per_image


@pytest.mark.parametrize("seed, threshold, min_area", [(2018, 0.5, 0), (7, 0.62, 30)])
def test_every_metric_agrees_with_its_oracle(seed, threshold, min_area):
    dataset, predictions, masks = random_case(seed)
    report = evaluate(
        dataset, predictions, score_threshold=threshold, min_area=min_area, progress=False
    )
    expected, per_image = oracle_metrics(dataset, predictions, masks, threshold, min_area)
    assert tuple(report.metrics) == KEYS and set(expected) == set(KEYS)
    for key in KEYS:
        assert report.metrics[key] == pytest.approx(expected[key], abs=1e-6), key
        assert 0 < report.metrics[key] < 100  # the case is neither empty nor perfect
    for key, value in per_image.items():
        assert report.images[key]["matterport_ap"] == (
            None if value is None else pytest.approx(100 * value, abs=1e-6)
        )


def test_the_committed_case_agrees_with_the_oracles_and_with_the_numbers_beside_it():
    """Random masks and boxes in files (written by ``make_fixed_case.py``); their metrics must never change."""
    truth = Predictions.load(HERE / "truth.json")
    dataset = FakeDataset(
        {key: image.label_image() for key, image in truth.images.items()}, truth.info["types"]
    )
    predictions = Predictions.load(HERE / "predictions.json")
    masks = {}
    for key, image in predictions.images.items():
        decoded = coco_mask.decode(image.rles).transpose(2, 0, 1).astype(bool) if len(image) else []
        masks[key] = list(decoded), image.scores.tolist()
    report = evaluate(dataset, HERE / "predictions.json", progress=False)
    expected, _ = oracle_metrics(dataset, predictions, masks, predictions.score_threshold, 0)
    stored = json.loads((HERE / "expected.json").read_text())
    assert set(stored) == set(expected) == set(KEYS)
    for key in KEYS:
        assert report.metrics[key] == pytest.approx(expected[key], abs=1e-6), key
        assert report.metrics[key] == pytest.approx(stored[key], abs=1e-6), key


def test_values_of_an_image_and_a_type_are_those_of_a_data_set_of_them():
    dataset, predictions, _ = random_case(3)
    whole = evaluate(dataset, predictions, progress=False)
    for kind, values in whole.types.items():
        ids = [i for i in dataset.ids if dataset[i].type == kind]
        part = FakeDataset({i: dataset[i].labels for i in ids}, dict.fromkeys(ids, kind))
        own = Predictions({i: predictions.images[i] for i in ids}, 0.5)
        assert evaluate(part, own, progress=False).metrics == pytest.approx(values, abs=1e-9)
    for i in dataset.ids:
        own = Predictions({i: predictions.images[i]}, 0.5)
        alone = evaluate(FakeDataset({i: dataset[i].labels}), own, progress=False)
        assert alone.metrics == pytest.approx(whole.images[i], abs=1e-9)


def test_ap_beyond_both_caps_agrees_with_pycocotools():
    """1,100 detections in one image, 130 in another; scores with ties."""
    rng = np.random.default_rng(5)
    truth, found = {}, {}
    for key, count in (("many", 1100), ("some", 130), ("few", 8)):
        labels = np.zeros((48, 48), np.int32)
        for i in range(36):
            labels[8 * (i // 6) + 1 : 8 * (i // 6) + 7, 8 * (i % 6) + 1 : 8 * (i % 6) + 7] = i + 1
        masks = [
            np.roll(labels == rng.integers(1, 37), rng.integers(-1, 2, 2), (0, 1))
            for _ in range(count)
        ]
        truth[key], found[key] = (
            labels,
            image_predictions(masks, rng.integers(1, 60, count) / 60, labels.shape),
        )
    dataset, predictions = FakeDataset(truth), Predictions(found, 0.9)
    report = evaluate(dataset, predictions, progress=False)
    expected = pycocotools_ap(dataset, predictions)
    assert [report.metrics[k] for k in KEYS[:3]] == pytest.approx(expected, abs=1e-9)
    assert report.metrics["coco_ap_maxdets100"] == pytest.approx(
        pycocotools_ap(dataset, predictions, 100)[0], abs=1e-9
    )
    assert report.metrics["coco_ap"] != report.metrics["coco_ap_maxdets100"]
    assert any("1 image with more: many" in w for w in report.warnings)
    assert any(
        "maxdets100 bites: more detections than that in 2 images" in w for w in report.warnings
    )


def test_label_images_and_rle_give_identical_reports(tmp_path):
    dataset, predictions, _ = random_case(11)
    labels, scores = {}, {}
    for key, image in predictions.images.items():
        kept = image.label_image(0.5)
        labels[key] = kept
        scores[key] = image.scores[np.unique(kept[kept > 0]) - 1]
    from_labels = Predictions.from_label_images(labels, scores, score_threshold=0.5)
    from_labels.save(tmp_path / "predictions.json")
    from_rle = Predictions.load(tmp_path / "predictions.json")
    a, b = (
        evaluate(dataset, p, bootstrap=20, progress=False).to_dict()
        for p in (from_labels, from_rle)
    )
    assert a == b


def test_label_folder_gives_the_report_of_its_rles(tmp_path):
    import tifffile
    from PIL import Image

    dataset, predictions, _ = random_case(12)
    same = {}
    for number, (key, image) in enumerate(predictions.images.items()):
        labels = image.label_image(0.5)
        same[key] = labels
        if number % 3 == 0:
            Image.fromarray(labels.astype(np.uint8)).save(tmp_path / f"{key}.png")
        else:
            tifffile.imwrite(
                tmp_path / f"{key}.tif", labels.astype(np.uint16 if number % 3 == 1 else np.uint32)
            )
    Predictions.from_label_images(same).save(tmp_path / "other" / "predictions.json")
    a = evaluate(dataset, tmp_path, progress=False)
    b = evaluate(dataset, tmp_path / "other", progress=False)
    for key, value in a.to_dict().items():
        if key != "name":
            assert b.to_dict()[key] == value, key
    assert any("all scores are equal" in w for w in a.warnings)
