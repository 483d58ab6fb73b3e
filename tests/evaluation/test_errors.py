"""The error analysis: hand-drawn cases for every class, counts that add up, costs that end at 100."""

import json

import numpy as np
import pytest
from fakes import FakeDataset, image_predictions, random_case

from nucleus_course._util.errors import UserError
from nucleus_course.evaluation import CLASSES, analyse_errors, evaluate, reliability
from nucleus_course.evaluation.coco import PrecisionTable, average_precisions
from nucleus_course.evaluation.errors.analysis import BREAKDOWNS
from nucleus_course.evaluation.errors.costs import BOUNDARY, error_costs, fix
from nucleus_course.evaluation.errors.features import bin_of, object_features
from nucleus_course.prediction.interchange import Predictions

SIDE = 60


def box(top, left, bottom, right):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top:bottom, left:right] = True
    return mask


def analysis_of(nuclei, detections):
    """``detections`` are (mask, score)."""
    labels = np.zeros((SIDE, SIDE), int)
    for i, mask in enumerate(nuclei, start=1):
        labels[mask] = i
    masks, scores = zip(*detections) if detections else ((), ())
    found = image_predictions(list(masks), list(scores), labels.shape)
    return analyse_errors(
        FakeDataset({"a": labels}), Predictions({"a": found}, 0.5), progress=False
    )


NUCLEUS = box(10, 10, 20, 20)
CASES = {
    # name: (nuclei, detections, classes of the nuclei, classes of the detections)
    "matched": ([NUCLEUS], [(box(10, 10, 20, 19), 0.9)], ["matched"], ["matched"]),
    "missed": ([NUCLEUS], [], ["missed"], []),
    "spurious": ([], [(NUCLEUS, 0.9)], [], ["spurious"]),
    "far apart": ([NUCLEUS], [(box(40, 40, 50, 50), 0.9)], ["missed"], ["spurious"]),
    "poor boundary": ([NUCLEUS], [(box(10, 15, 20, 25), 0.9)], ["poor boundary"], ["poor boundary"]),
    "exactly one half is no match": ([NUCLEUS], [(box(10, 10, 20, 15), 0.9)], ["poor boundary"], ["poor boundary"]),
    "barely touching": ([NUCLEUS], [(box(10, 19, 20, 29), 0.9)], ["missed"], ["spurious"]),
    "duplicate": ([NUCLEUS], [(NUCLEUS, 0.9), (box(10, 10, 20, 22), 0.8)], ["matched"], ["matched", "duplicate"]),
    "duplicate within a detection": ([NUCLEUS], [(NUCLEUS, 0.9), (box(12, 12, 21, 16), 0.8)],
                                     ["matched"], ["matched", "duplicate"]),
    "split in two": ([NUCLEUS], [(box(10, 10, 20, 15), 0.9), (box(10, 15, 20, 20), 0.8)], ["split"], ["split", "split"]),
    "split, one part good": ([NUCLEUS], [(box(10, 10, 20, 17), 0.9), (box(10, 17, 20, 20), 0.8)],
                             ["matched"], ["matched", "split"]),
    "merged": ([NUCLEUS, box(10, 21, 20, 31)], [(box(10, 10, 20, 31), 0.9)], ["merged", "merged"], ["merged"]),
    "merged, one swallowed": ([NUCLEUS, box(10, 20, 20, 23)], [(box(10, 10, 20, 23), 0.9)],
                              ["matched", "merged"], ["matched"]),
    "cut by the edge": ([box(0, 10, 6, 20)], [(box(0, 16, 6, 26), 0.9)], ["cut by the edge"], ["cut by the edge"]),
    "missed at the edge": ([box(50, 10, 60, 20)], [], ["cut by the edge"], []),
    "matched at the edge": ([box(50, 50, 60, 60)], [(box(50, 50, 60, 60), 0.9)], ["matched"], ["matched"]),
    "below the threshold": ([NUCLEUS], [(NUCLEUS, 0.4)], ["missed"], []),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_classes_by_hand(name):
    nuclei, detections, nucleus_classes, detection_classes = CASES[name]
    analysis = analysis_of(nuclei, detections)
    assert [CLASSES[c] for c in analysis.nuclei["class"]] == nucleus_classes
    assert [CLASSES[c] for c in analysis.detections["class"]] == detection_classes


def test_every_class_is_drawn():
    seen = {c for case in CASES.values() for c in case[2] + case[3]}
    assert seen == set(CLASSES)


@pytest.mark.parametrize("seed, threshold, min_area", [(61, 0.5, 0), (62, 0.3, 40), (63, 0.0, 0)])
def test_counts_reconcile_with_the_report(seed, threshold, min_area):
    dataset, predictions, _ = random_case(seed, count=25)
    analysis = analyse_errors(
        dataset, predictions, score_threshold=threshold, min_area=min_area, progress=False
    )
    report = evaluate(
        dataset, predictions, score_threshold=threshold, min_area=min_area, progress=False
    )
    assert analysis.report.to_dict() == report.to_dict()
    assert analysis.totals == {k: report.counts[k] for k in ("tp", "fp", "fn")}
    counts = analysis.counts
    assert counts["matched"]["nuclei"] == counts["matched"]["detections"] == report.counts["tp"]
    assert sum(row["detections"] for row in counts.values()) == report.counts["detections"]
    assert sum(row["nuclei"] for row in counts.values()) == report.counts["nuclei"]
    assert (
        counts["missed"]["detections"]
        == counts["spurious"]["nuclei"]
        == counts["duplicate"]["nuclei"]
        == 0
    )
    above = sum(int((image.scores >= threshold).sum()) for image in predictions.images.values())
    assert report.counts["detections"] + analysis.suppressed == above
    for image_id, row in report.counts["per_image"].items():
        for kind, wrong in (("detections", "fp"), ("nuclei", "fn")):
            classes = getattr(analysis, kind)["class"][getattr(analysis, kind)["image"] == image_id]
            assert (classes != 0).sum() == row[wrong]


@pytest.mark.parametrize("by", BREAKDOWNS)
def test_breakdowns_add_up_to_the_counts(by):
    dataset, predictions, _ = random_case(64, count=25)
    analysis = analyse_errors(dataset, predictions, progress=False)
    for kind, rows in analysis.breakdown(by).items():
        for name in CLASSES:
            assert sum(row[name] for row in rows.values()) == analysis.counts[name][kind]


def test_iou_and_score_of_pairs():
    analysis = analysis_of([NUCLEUS], [(box(10, 10, 20, 18), 0.7), (box(40, 40, 45, 45), 0.9)])
    assert analysis.nuclei["iou"].tolist() == [0.8] and analysis.nuclei["score"].tolist() == [0.7]
    assert analysis.detections["iou"].tolist() == [0.8, 0.0]
    assert analysis.detections["label"].tolist() == [1, 2]


def test_the_worst_come_first_with_windows_inside_the_image():
    small, large = box(2, 2, 5, 5), box(30, 30, 55, 59)
    analysis = analysis_of(
        [small, large, NUCLEUS],
        [(NUCLEUS, 0.9), (box(30, 5, 40, 15), 0.6), (box(45, 5, 50, 9), 0.8)],
    )
    rows = analysis.worst_nuclei()
    assert [row["area"] for row in rows] == [25 * 29, 9]
    assert rows[0]["window"] == (14, 14, 60, 60) and rows[1]["window"] == (0, 0, 21, 21)
    mistakes = analysis.surest_mistakes(1)
    assert [(row["score"], row["class"]) for row in mistakes] == [(0.8, "spurious")]
    assert analysis.worst_images() == [
        {
            "image": "a",
            "type": "small fluorescent",
            "value": pytest.approx(20),
            "tp": 1,
            "fp": 2,
            "fn": 2,
        }
    ]


def test_what_is_saved_is_json(tmp_path):
    dataset, predictions, _ = random_case(65)
    analysis = analyse_errors(dataset, predictions, progress=False)
    analysis.save(tmp_path / "errors.json")
    document = json.loads((tmp_path / "errors.json").read_text())
    assert document["totals"] == analysis.totals and set(document["breakdowns"]) == set(BREAKDOWNS)


def test_scores_that_are_no_probabilities_have_no_calibration():
    dataset, predictions, _ = random_case(66, images=2)
    for image in predictions.images.values():
        image.scores = 10 * image.scores
    analysis = analyse_errors(dataset, predictions, progress=False)
    assert analysis.calibration is None
    with pytest.raises(UserError, match="not probabilities"):
        reliability(analysis.report.scores)


# costs


def test_costs_start_at_ap_and_end_at_100():
    dataset, predictions, _ = random_case(67, count=25)
    analysis = analyse_errors(dataset, predictions, progress=False)
    assert analysis.costs["coco_ap"] == pytest.approx(analysis.report.metrics["coco_ap"])
    assert analysis.costs["coco_ap50"] == pytest.approx(analysis.report.metrics["coco_ap50"])
    everything = [*CLASSES[1:], BOUNDARY]
    table = PrecisionTable([fix(image, everything) for image in analysis.classified])
    assert average_precisions(table.precision()) == pytest.approx((1, 1, 1))
    for name, row in analysis.costs["classes"].items():
        assert row["cost_ap50"] >= -1e-9, name
        assert row["coco_ap"] - row["cost_ap"] == pytest.approx(analysis.costs["coco_ap"])
    assert analysis.costs["classes"][BOUNDARY]["cost_ap50"] == pytest.approx(0)
    assert analysis.costs["classes"][BOUNDARY]["cost_ap"] > 10


def test_costs_in_closed_form():
    """Two nuclei; the better score is spurious, the second right, the other nucleus missed."""
    analysis = analysis_of(
        [NUCLEUS, box(40, 40, 50, 50)], [(box(30, 5, 40, 15), 0.9), (NUCLEUS, 0.8)]
    )
    half, points = 0.5, 51 / 101  # precision 1/2 at recall up to 1/2
    classes = analysis.costs["classes"]
    assert analysis.costs["coco_ap50"] == pytest.approx(100 * half * points)
    assert classes["spurious"]["coco_ap50"] == pytest.approx(100 * points)
    assert classes["missed"]["coco_ap50"] == pytest.approx(100 * half)
    assert classes["split"]["cost_ap50"] == 0


def test_fixing_gives_each_nucleus_to_the_best_detection_of_its_class():
    analysis = analysis_of([NUCLEUS], [(box(10, 10, 20, 15), 0.9), (box(10, 15, 20, 20), 0.8)])
    # COCO: an IoU of exactly 0.5 matches at 0.5
    assert analysis.costs["coco_ap50"] == pytest.approx(100)
    analysis = analysis_of([NUCLEUS], [(box(10, 10, 20, 14), 0.9), (box(10, 15, 20, 19), 0.8)])
    assert analysis.costs["coco_ap50"] == 0
    assert analysis.costs["classes"]["split"]["coco_ap"] == pytest.approx(100)
    assert analysis.costs["classes"]["poor boundary"]["coco_ap"] == 0


def test_costs_without_nuclei_or_detections():
    assert analysis_of([], [(NUCLEUS, 0.9)]).costs["classes"]["spurious"]["cost_ap"] is None
    nothing = analysis_of([NUCLEUS], [])
    assert nothing.costs["coco_ap"] == 0 and nothing.calibration["ece"] is None
    assert error_costs([])["coco_ap"] is None


# features, calibration


def test_features_by_hand():
    labels = np.zeros((40, 40), np.int32)
    labels[0:4, 0:5], labels[10:20, 10:20], labels[10:20, 20:25], labels[10:12, 30:33] = 1, 2, 3, 7
    image = np.full((40, 40, 3), 50, np.uint8)
    image[labels == 2] = 101
    found = object_features(labels, image)
    assert found["label"].tolist() == [1, 2, 3, 7]
    assert found["area"].tolist() == [20, 100, 50, 6]
    assert found["box"][1].tolist() == [10, 10, 20, 20]
    assert found["edge"].tolist() == [0, 10, 10, 7]
    assert found["crowding"][1:].tolist() == [0, 0, 5]  # touching; five columns between 25 and 30
    assert found["crowding"][0] == pytest.approx(np.hypot(7, 6) - 1)
    assert found["contrast"][1] == pytest.approx(51 / 255) and found["contrast"][0] == 0
    assert np.isnan(object_features(labels)["contrast"]).all()
    assert len(object_features(np.zeros((4, 4), np.int32), image[:4, :4])["label"]) == 0


def test_bins_hold_their_lower_edge():
    assert bin_of("size", [9.9, 10, 30]).tolist() == [
        "under 10 px",
        "10 to 15 px",
        "30 px and over",
    ]
    assert bin_of("crowding", [0, 0.5, 1, 9.9, np.inf]).tolist() == ["touching"] * 2 + [
        "within 10 px"
    ] * 2 + ["alone"]
    assert bin_of("edge", [0, 1, 10]).tolist() == ["at the edge", "within 10 px", "inside"]
    assert bin_of("contrast", [np.nan]).tolist() == ["unknown"]


def test_calibration_by_hand():
    """Scores 0.9 (right), 0.9 (wrong), 1.0 (right), 0.05 (wrong)."""
    far = [box(40, 40, 50, 50), box(40, 10, 50, 20)]
    analysis = analysis_of([NUCLEUS, box(10, 40, 20, 50)], [
        (NUCLEUS, 0.9), (far[0], 0.9), (box(10, 40, 20, 50), 1.0), (far[1], 0.05)
    ])  # fmt: skip
    found = analysis.calibration
    last = found["bins"][-1]
    assert (last["count"], last["score"], last["precision"]) == (
        3,
        pytest.approx(2.8 / 3),
        pytest.approx(2 / 3),
    )
    assert found["bins"][0]["precision"] == 0 and found["bins"][5]["score"] is None
    assert found["ece"] == pytest.approx((3 * (2.8 / 3 - 2 / 3) + 0.05) / 4)
    assert found["brier"] == pytest.approx((0.1**2 + 0.9**2 + 0 + 0.05**2) / 4)
    assert sum(row["count"] for row in found["bins"]) == found["detections"] == 4
