"""The fast search agrees with evaluating at every threshold, and takes the best."""

import json

import numpy as np
import pytest
from fakes import FakeDataset, image_predictions, random_case

from nucleus_course._util.errors import UserError
from nucleus_course.config import Thresholds
from nucleus_course.evaluation import KEYS, OperatingPoints, choose_thresholds, evaluate
from nucleus_course.evaluation.metrics import POINT_KEYS
from nucleus_course.prediction.interchange import Predictions


@pytest.fixture(scope="module")
def case():
    return random_case(41)


@pytest.mark.parametrize("metric", POINT_KEYS)
def test_every_operating_point_equals_its_evaluation(case, metric):
    dataset, predictions, _ = case
    some = predictions.images["image1"].scores[2]
    scores, areas = [0.1, some, 0.55, 0.99], (0, 25, 90)
    values = OperatingPoints(dataset, predictions).values(metric, scores, areas)
    for t, score in enumerate(scores):
        for a, area in enumerate(areas):
            expected = evaluate(
                dataset, predictions, score_threshold=score, min_area=area, progress=False
            ).metrics[metric]
            assert values[t, a] == pytest.approx(
                np.nan if expected is None else expected, abs=1e-9, nan_ok=True
            )


def test_the_best_is_found_and_stored(case, tmp_path):
    dataset, predictions, _ = case
    choice = choose_thresholds(dataset, predictions, metric="f1_50", min_areas=(0, 20, 60))
    best = choice.thresholds
    reached = evaluate(
        dataset, predictions, score_threshold=best.score, min_area=best.min_area, progress=False
    )
    assert reached.metrics["f1_50"] == pytest.approx(best.value)
    assert best.value == pytest.approx(max(row["value"] for row in choice.tried))
    for score in (0.05, 0.3, 0.7):
        assert (
            best.value
            >= evaluate(dataset, predictions, score_threshold=score, progress=False).metrics[
                "f1_50"
            ]
            - 1e-9
        )
    assert (best.metric, best.split, best.dataset) == ("f1_50", "validation", "fake")
    choice.save(tmp_path)
    assert Thresholds(**json.loads((tmp_path / "thresholds.json").read_text())) == best


def test_the_middle_of_equal_thresholds_is_taken():
    labels = np.zeros((20, 20), int)
    labels[2:8, 2:8], labels[12:18, 12:18] = 1, 2
    found = image_predictions([labels == 1, labels == 2, np.eye(20)], [0.9, 0.8, 0.4], (20, 20))
    best = choose_thresholds(FakeDataset({"a": labels}), Predictions({"a": found})).thresholds
    assert best.value == 100.0 and best.score == pytest.approx(0.6) and best.min_area == 0


def test_nms_and_mask_thresholds_are_searched_by_predicting(case):
    """A made-up model whose quality peaks at NMS 0.4 and mask 0.6."""
    dataset, _, _ = case
    calls = []

    def predict(nms_iou, mask):
        calls.append((nms_iou, mask))
        keep = 1 - abs(nms_iou - 0.4) - abs(mask - 0.6)
        truth = {i: dataset[i].labels for i in dataset.ids}
        return Predictions.from_label_images(
            {i: t * (t <= keep * t.max()) for i, t in truth.items()}
        )

    start = Thresholds(nms_iou=0.3, mask=0.5)
    choice = choose_thresholds(
        dataset,
        predict=predict,
        nms_ious=(0.2, 0.3, 0.4, 0.5),
        masks=(0.4, 0.5, 0.6, 0.7),
        start=start,
        metric="mean_mask_iou",
    )
    assert (choice.thresholds.nms_iou, choice.thresholds.mask) == (0.4, 0.6)
    assert len(calls) == len(set(calls)) == 7  # nothing is predicted twice
    assert {row["nms_iou"] for row in choice.tried} == {0.2, 0.3, 0.4, 0.5}


def test_what_cannot_be_searched(case):
    dataset, predictions, _ = case
    for metric in set(KEYS) - set(POINT_KEYS) | {"nonsense"}:
        with pytest.raises(UserError, match="no operating point"):
            choose_thresholds(dataset, predictions, metric=metric)
    with pytest.raises(UserError, match="give predictions"):
        choose_thresholds(dataset)
    with pytest.raises(UserError, match="give predictions"):
        choose_thresholds(dataset, predictions, masks=(0.4,))
    with pytest.raises(
        UserError, match="no operating point reaches mean_mask_iou of 101 and pq of 3"
    ):
        choose_thresholds(dataset, predictions, at_least={"mean_mask_iou": 101, "pq": 3})
