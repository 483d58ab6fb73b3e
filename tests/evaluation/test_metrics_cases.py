"""Cases small enough to work out by hand: empty images, exact thresholds, single pixels."""

import numpy as np
import pytest
from fakes import FakeDataset, image_predictions

from nucleus_course.evaluation import KEYS, evaluate
from nucleus_course.evaluation.metrics import aggregated_jaccard, matterport_average_precision
from nucleus_course.prediction.interchange import Predictions

BOX = np.zeros((10, 10), np.int32)
BOX[2:4, 2:7] = 1  # ten pixels
FULL = pytest.approx(100, abs=1e-9)  # COCO adds an epsilon to its denominators


def report_of(truth, found, threshold=0.5):
    """``found`` {id: list of (mask, score)}."""
    images = {
        k: image_predictions([m for m, _ in v], [s for _, s in v], truth[k].shape)
        for k, v in found.items()
    }
    return evaluate(FakeDataset(truth), Predictions(images, threshold), progress=False)


def values(row, *keys):
    return [row[k] for k in keys]


AVERAGES = KEYS[:6] + ("matterport_ap",)  # means over nuclei, pairs or recall
RATIOS = ("foreground_iou", "dsb_score", "f1_50", "f1_70", "pq", "aji")


def test_no_nuclei_and_no_detections():
    report = report_of({"a": np.zeros((5, 5), int)}, {"a": []})
    assert values(report.metrics, *AVERAGES) == [None] * 7
    assert values(report.metrics, *RATIOS) == [100.0] * 6
    assert any("no image has nuclei" in w for w in report.warnings)


def test_no_nuclei_but_detections():
    report = report_of({"a": np.zeros((10, 10), int)}, {"a": [(BOX > 0, 0.9)]})
    assert values(report.metrics, *AVERAGES) == [None] * 7
    assert values(report.metrics, *RATIOS) == [0.0] * 6


def test_nuclei_but_no_detections():
    report = report_of({"a": BOX}, {"a": []})
    zero = [k for k in KEYS if k != "matched_mask_iou"]
    assert values(report.metrics, *zero) == [0.0] * 12
    assert report.metrics["matched_mask_iou"] is None  # no pair to average


def test_an_empty_image_beside_a_perfect_one():
    truth = {"a": BOX, "b": np.zeros((10, 10), int)}
    silent = report_of(truth, {"a": [(BOX > 0, 0.9)], "b": []}).metrics
    assert all(value == FULL for value in silent.values())
    noisy = report_of(truth, {"a": [(BOX > 0, 0.9)], "b": [(BOX > 0, 0.8)]}).metrics
    assert noisy["dsb_score"] == noisy["foreground_iou"] == 50.0  # the mean of 100 and 0
    assert noisy["f1_50"] == pytest.approx(200 / 3)
    assert noisy["coco_ap"] == FULL  # a false positive after the last nucleus costs no AP
    assert noisy["matterport_ap"] == 100.0  # Matterport's ignores images without nuclei
    worse = report_of(truth, {"a": [(BOX > 0, 0.8)], "b": [(BOX > 0, 0.9)]}).metrics
    assert worse["coco_ap"] == pytest.approx(50)


@pytest.mark.parametrize("pixels, above", [(5, 0), (6, 2), (7, 4), (8, 6), (9, 8), (10, 10)])
def test_dsb_counts_an_iou_strictly_above_each_threshold(pixels, above):
    """IoU pixels/10: e.g. 7/10 is above 0.50, 0.55, 0.60 and 0.65 but not above 0.70."""
    part = np.zeros((10, 10), bool)
    rows, columns = np.nonzero(BOX)
    part[rows[:pixels], columns[:pixels]] = True
    report = report_of({"a": BOX}, {"a": [(part, 0.9)]}).metrics
    assert report["dsb_score"] == pytest.approx(10.0 * above)
    assert report["f1_50"] == (100.0 if pixels > 5 else 0.0)
    assert report["f1_70"] == (100.0 if pixels > 7 else 0.0)
    assert report["coco_ap50"] == FULL  # COCO and Matterport count an IoU equal to the threshold
    assert report["matterport_ap"] == 100.0
    assert report["mean_mask_iou"] == pytest.approx(10.0 * pixels)
    assert report["matched_mask_iou"] == (pytest.approx(10.0 * pixels) if pixels > 5 else None)


def test_the_higher_score_keeps_the_pixel():
    left, right = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    left[:, :6], right[:, 4:] = True, True
    truth = {"a": np.where(np.arange(10) < 6, 1, 2)[None].repeat(10, 0)}
    report = report_of(truth, {"a": [(left, 0.9), (right, 0.8)]}).metrics
    assert report["pq"] == 100.0  # left keeps the two shared columns, as in the truth
    report = report_of(truth, {"a": [(left, 0.8), (right, 0.9)]}).metrics
    assert report["pq"] == pytest.approx(100 * (40 / 60 + 40 / 60) / 2)


def test_best_assignment_may_differ_from_the_greedy_one():
    """Detection A overlaps nuclei 1 and 2, B only 1: A must leave 1 to B for the largest total."""
    truth = np.zeros((1, 40), int)
    truth[0, 0:10], truth[0, 10:20] = 1, 2
    a, b = np.zeros((1, 40), bool), np.zeros((1, 40), bool)
    a[0, 4:14], b[0, 0:4] = True, True
    report = report_of({"a": truth}, {"a": [(a, 0.9), (b, 0.8)]}).metrics
    # pairs: A-1 6/14, A-2 4/16, B-1 4/10; best total is A-2 + B-1 = 0.25 + 0.4, more than A-1 alone
    assert report["mean_mask_iou"] == pytest.approx(100 * (0.25 + 0.4) / 2)


def test_aggregated_jaccard_by_hand():
    # nucleus 1 (10 px) meets detections 1 (6 shared of 8) and 2 (2 of 12); nucleus 2 (5 px) meets none
    overlap = np.array([[50, 2, 5], [2, 6, 0], [10, 2, 0]])
    assert aggregated_jaccard(overlap) == (6, (10 + 8 - 6) + 5 + 12)
    # a detection over two nuclei counts for both
    overlap = np.array([[50, 1, 1], [2, 6, 4]])
    assert aggregated_jaccard(overlap) == (10, (7 + 12 - 6) + (5 + 12 - 4))


def test_matterport_ap_by_hand():
    assert matterport_average_precision([True, False, True], 4) == pytest.approx((1 + 2 / 3) / 4)
    assert matterport_average_precision([False, True, True], 2) == pytest.approx(2 / 3)
    assert matterport_average_precision([], 3) == 0.0
    assert matterport_average_precision([True], 0) is None


def test_detections_at_the_threshold_count_and_small_ones_go():
    report = report_of({"a": BOX}, {"a": [(BOX > 0, 0.5)]})
    assert report.counts["detections"] == 1
    images = {"a": image_predictions([BOX > 0], [0.5], (10, 10))}
    dataset = FakeDataset({"a": BOX})
    for min_area, left in ((10, 1), (11, 0)):
        point = evaluate(dataset, Predictions(images, 0.5), min_area=min_area, progress=False)
        assert point.counts["detections"] == left
        assert point.metrics["coco_ap"] == FULL  # AP depends on neither threshold
    stored = evaluate(dataset, Predictions(images, 0.5, {"min_area": 11}), progress=False)
    assert stored.counts["detections"] == 0 and stored.operating_point["source"] == "predictions"


def test_labels_of_the_truth_need_not_be_consecutive():
    odd = np.where(BOX == 1, 70000, 0)
    odd[8, 8] = 3
    plain = np.where(odd == 70000, 2, (odd == 3).astype(int))
    found = {"a": [(BOX > 0, 0.9)]}
    assert report_of({"a": odd}, found).to_dict() == report_of({"a": plain}, found).to_dict()
