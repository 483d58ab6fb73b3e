"""What the cap and the mask grid cost, against closed forms."""

import numpy as np
import pytest
from fakes import FakeDataset, ellipses, random_case

from nucleus_course.evaluation import cap_effect, evaluate, mask_grid_effect
from nucleus_course.evaluation.limits import grid_round_trip
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


def test_a_mask_of_the_grids_size_comes_back_unchanged():
    mask = np.random.default_rng(0).uniform(size=(28, 28)) < 0.5
    assert (grid_round_trip(mask, 28) == mask).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (28, 56), (84, 5), (200, 200)])
def test_a_full_box_comes_back_full(shape):
    assert grid_round_trip(np.ones(shape, bool), 28).all()


def test_round_trip_against_a_loop():
    """The definition, one sample at a time."""
    mask = ellipses(np.random.default_rng(3), 41, 23, 1, 9, 20) > 0
    rows, columns = np.nonzero(mask)
    mask = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    height, width = mask.shape
    size = 9

    def read(values, y, x, outside):
        """Bilinear at (y, x), positions of pixel centres at i + 0.5."""
        total = 0.0
        for r in (int(np.floor(y - 0.5)), int(np.floor(y - 0.5)) + 1):
            for c in (int(np.floor(x - 0.5)), int(np.floor(x - 0.5)) + 1):
                weight = (1 - abs(y - 0.5 - r)) * (1 - abs(x - 0.5 - c))
                inside = 0 <= r < values.shape[0] and 0 <= c < values.shape[1]
                if inside or outside == "repeat":
                    r2, c2 = (
                        min(max(r, 0), values.shape[0] - 1),
                        min(max(c, 0), values.shape[1] - 1),
                    )
                    total += weight * values[r2, c2]
        return total

    grid = np.array(
        [
            [
                read(mask, (i + 0.5) * height / size, (j + 0.5) * width / size, 0) >= 0.5 - 1e-12
                for j in range(size)
            ]
            for i in range(size)
        ]
    )
    back = np.array(
        [
            [
                read(grid, (r + 0.5) * size / height, (c + 0.5) * size / width, "repeat") >= 0.5
                for c in range(width)
            ]
            for r in range(height)
        ]
    )
    assert (
        grid_round_trip(mask, size) == back
    ).mean() > 0.995  # the rest: sums that are 0.5 but for rounding


def test_ellipses_survive_the_grid():
    """The bar for masks: a mean IoU of at least 0.975 for ellipses of 13 to 200 pixels across."""
    rng = np.random.default_rng(0)
    ious = []
    for diameter in (13, 20, 31, 47, 80, 140, 200):
        for _ in range(10):
            a, b, angle = diameter / 2, diameter / 2 * rng.uniform(0.6, 1), rng.uniform(0, np.pi)
            rows, columns = (
                np.mgrid[: diameter + 8, : diameter + 8]
                + 0.5
                - diameter / 2
                - 4
                - rng.uniform(-0.5, 0.5, (2, 1, 1))
            )
            u, v = (
                rows * np.cos(angle) + columns * np.sin(angle),
                columns * np.cos(angle) - rows * np.sin(angle),
            )
            mask = (u / a) ** 2 + (v / b) ** 2 < 1
            y, x = np.nonzero(mask)
            mask = mask[y.min() : y.max() + 1, x.min() : x.max() + 1]
            back = grid_round_trip(mask)
            ious.append((mask & back).sum() / (mask | back).sum())
    assert np.mean(ious) >= 0.975 and np.min(ious) >= 0.965


def test_grid_effect_counts_every_nucleus_and_small_grids_cost_more():
    dataset, _, _ = random_case(51, images=3)
    fine, coarse = mask_grid_effect(dataset, 28), mask_grid_effect(dataset, 7)
    count = sum(dataset[i].labels.max() for i in dataset.ids)
    assert fine["nuclei"] == sum(g["nuclei"] for g in fine["by_diameter"].values()) == count
    assert fine["mean_iou"] > 99 > coarse["mean_iou"] > 80
    assert fine["metrics"]["coco_ap"] > coarse["metrics"]["coco_ap"]
    assert fine["metrics"]["pq"] == pytest.approx(fine["mean_iou"], abs=1)
