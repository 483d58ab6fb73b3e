"""What the cap and the mask grid cost, against closed forms."""

import numpy as np
import pytest
from fakes import FakeDataset, random_case
from limits import cap_effect, mask_grid_effect

from nucleus_course.data.labels import boxes_from_labels
from nucleus_course.evaluation import evaluate
from nucleus_course.geometry.masks import round_trip
from nucleus_course.prediction.interchange import Predictions


def squares(count):
    labels = np.zeros((60, 60), int)
    for i in range(count):
        labels[4 * (i // 15) : 4 * (i // 15) + 3, 4 * (i % 15) : 4 * (i % 15) + 3] = i + 1
    return labels


def test_cap_in_closed_form():
    """150 of 200 nuclei can be found: recall 0.75, so 76 of the 101 recall points."""
    dataset = FakeDataset({"full": squares(150), "rest": squares(50)})
    effect = cap_effect(dataset, cap=100)
    assert effect == {
        "cap": 100, "images": 2, "images_over": 1, "nuclei": 200, "nuclei_beyond": 50,
        "recall": 75.0, "coco_ap": pytest.approx(100 * 76 / 101),
    }  # fmt: skip
    assert cap_effect(dataset, cap=1000)["coco_ap"] == pytest.approx(100)


def test_cap_is_what_evaluating_the_truth_gives():
    dataset = FakeDataset({"full": squares(170), "rest": squares(31)})
    truth = Predictions.from_label_images({i: dataset[i].labels for i in dataset.ids})
    report = evaluate(dataset, truth, progress=False)
    assert report.metrics["coco_ap_maxdets100"] == pytest.approx(cap_effect(dataset)["coco_ap"])
    assert report.metrics["coco_ap"] == pytest.approx(100)


def test_no_nuclei():
    nothing = FakeDataset({"a": np.zeros((5, 5), int)})
    assert cap_effect(nothing)["coco_ap"] is None
    assert mask_grid_effect(nothing)["mean_iou"] is None


def test_grid_effect_is_the_mean_of_the_round_trips():
    dataset, _, _ = random_case(52, images=2)
    ious = []
    for image_id in dataset.ids:
        labels = dataset[image_id].labels
        for label, box in zip(*boxes_from_labels(labels)):
            ious.append(round_trip(labels == label, box, 9).iou)
    effect = mask_grid_effect(dataset, 9)
    assert effect["nuclei"] == len(ious)
    assert effect["mean_iou"] == pytest.approx(100 * np.mean(ious), abs=1e-9)


def test_grid_effect_counts_every_nucleus_and_small_grids_cost_more():
    dataset, _, _ = random_case(51, images=3)
    fine, coarse = mask_grid_effect(dataset, 28), mask_grid_effect(dataset, 7)
    count = sum(dataset[i].labels.max() for i in dataset.ids)
    assert fine["nuclei"] == sum(g["nuclei"] for g in fine["by_diameter"].values()) == count
    assert fine["mean_iou"] > 99 > coarse["mean_iou"] > 80
    assert fine["metrics"]["coco_ap"] > coarse["metrics"]["coco_ap"]
    assert fine["metrics"]["pq"] == pytest.approx(fine["mean_iou"], abs=1)
