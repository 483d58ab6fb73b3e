"""Detections in every form: pasted masks, run lengths, label image."""

import dataclasses

import numpy as np
import pytest
from pycocotools import mask as coco
from tiny import random_boxes

from nucleus_course.config import Thresholds
from nucleus_course.geometry.masks import paste
from nucleus_course.prediction import detections as module
from nucleus_course.prediction.detections import Detections
from nucleus_course.prediction.label_detections import LabelDetections

HEIGHT, WIDTH, SIZE = 53, 71, 14


def slow_paste(probs, box, height, width, threshold):
    """One mask, pixel by pixel: centres inside the box sample the grid bilinearly; edge values repeat."""
    size = len(probs)
    y1, x1, y2, x2 = box.astype("float64")
    out = np.zeros((height, width), bool)
    for r in range(height):
        for c in range(width):
            y, x = r + 0.5, c + 0.5
            if not (y1 <= y < y2 and x1 <= x < x2):
                continue
            v = np.clip((y - y1) / (y2 - y1) * size - 0.5, 0, size - 1)
            u = np.clip((x - x1) / (x2 - x1) * size - 0.5, 0, size - 1)
            v0, u0 = min(int(v), size - 2), min(int(u), size - 2)
            b, a = v - v0, u - u0
            top = probs[v0, u0] * (1 - a) + probs[v0, u0 + 1] * a
            bottom = probs[v0 + 1, u0] * (1 - a) + probs[v0 + 1, u0 + 1] * a
            out[r, c] = top * (1 - b) + bottom * b >= threshold
    return out


def detections(count=12, seed=0, **thresholds):
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, count, HEIGHT, WIDTH, 3, 40)
    if count > 5:
        boxes[0] = [-7.3, -4.1, 12.8, 20.2]  # over the corner
        boxes[1] = [40.5, 60.5, 60.9, 90.1]  # over the other
        boxes[2] = [10, 20, 30, 40]  # whole pixels
        boxes[3] = [10.1, 10.2, 10.3, 10.4]  # between the centres
        boxes[4] = [-30, -30, -5, -5]  # beyond the image
    probs = rng.random((count, SIZE, SIZE)).astype("float32")
    scores = np.sort(rng.random(count).astype("float32"))[::-1]
    return Detections(boxes, scores, probs, boxes, HEIGHT, WIDTH, Thresholds(**thresholds))


def full(boxes, scores, **thresholds):
    """Detections that fill their boxes."""
    scores, probs = np.array(scores, "float32"), np.ones((len(boxes), SIZE, SIZE), "float32")
    return Detections(boxes, scores, probs, boxes, HEIGHT, WIDTH, Thresholds(**thresholds))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_paste_is_that_of_the_loop(threshold):
    found = detections(mask=threshold)
    for i, mask in enumerate(found.masks):
        np.testing.assert_array_equal(
            mask, slow_paste(found.mask_probs[i], found.boxes[i], HEIGHT, WIDTH, threshold), str(i)
        )


def test_a_full_mask_fills_its_box():
    box = np.array([[5, 9, 25, 40]], "float32")
    instance, row, column = paste(np.ones((1, 28, 28), "float32"), box, HEIGHT, WIDTH)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[row, column] = True
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[5:25, 9:40] = True
    np.testing.assert_array_equal(mask, expected)
    assert (np.diff(column * HEIGHT + row) > 0).all() and not instance.any(), "column by column"


def test_masks_span_the_mask_boxes():
    """Dilated presets: the grid extends beyond the box."""
    found = detections(1)
    grown = Detections(found.boxes, found.scores, np.ones((1, SIZE, SIZE), "float32"),
                       np.array([[10, 10, 22, 34]], "float32"), HEIGHT, WIDTH)  # fmt: skip
    assert grown.areas.tolist() == [12 * 24]


def test_run_lengths_are_pycocotools():
    found = detections()
    expected = coco.encode(np.asfortranarray(found.masks.transpose(1, 2, 0).astype("uint8")))
    rles = found.rles()
    assert [r["counts"] for r in rles] == [r["counts"].decode() for r in expected]
    assert all(r["size"] == [HEIGHT, WIDTH] and isinstance(r["counts"], str) for r in rles)
    np.testing.assert_array_equal(found.areas, coco.area(expected))
    np.testing.assert_array_equal(found.areas, found.masks.sum(axis=(1, 2)))


def test_run_lengths_of_the_first_and_the_last_pixel():
    last = [HEIGHT - 1, WIDTH - 1, HEIGHT, WIDTH]
    boxes = np.array([[0, 0, HEIGHT, WIDTH], [0, 0, 1, 1], last], "float32")
    found = full(boxes, [0.9, 0.8, 0.7])
    masks = coco.decode([{**r, "counts": r["counts"].encode()} for r in found.rles()])
    np.testing.assert_array_equal(masks.transpose(2, 0, 1), found.masks)
    assert found.areas.tolist() == [HEIGHT * WIDTH, 1, 1]


def test_in_the_label_image_the_highest_score_keeps_the_pixel():
    found = detections(score=0.0)
    masks = found.masks
    expected = np.zeros((HEIGHT, WIDTH), int)
    for r in range(HEIGHT):
        for c in range(WIDTH):
            on = np.flatnonzero(masks[:, r, c])
            expected[r, c] = on[0] + 1 if len(on) else 0
    left = [n for n in range(1, len(found) + 1) if (expected == n).any()]
    labels = found.label_image()
    assert labels.dtype == np.int32 and len(left) < len(found), "those without a pixel get no label"
    table = np.zeros(len(found) + 1, int)
    table[left] = np.arange(1, len(left) + 1)
    np.testing.assert_array_equal(labels, table[expected])


def test_the_label_image_obeys_the_operating_point():
    boxes = np.array([[0, 0, 10, 10], [0, 20, 10, 30], [20, 0, 22, 2], [20, 20, 40, 40]], "float32")
    found = full(boxes, [0.9, 0.6, 0.55, 0.3], score=0.5, min_area=5)
    areas = lambda labels: np.bincount(labels.ravel())[1:].tolist()  # noqa: E731
    assert areas(found.label_image()) == [100, 100]
    assert areas(found.label_image(min_area=0)) == [100, 100, 4]
    assert areas(found.label_image(score_threshold=0.7)) == [100]
    assert areas(found.label_image(score_threshold=0.2)) == [100, 100, 400]
    assert len(found.confident()) == 3 and len(found.confident(0.6)) == 2, "at least the threshold"


def test_what_overlaps_leave_is_what_min_area_counts():
    boxes = np.array([[0, 0, 10, 10], [0, 2, 10, 12]], "float32")
    found = full(boxes, [0.9, 0.8])
    assert np.bincount(found.label_image(min_area=20).ravel())[1:].tolist() == [100, 20]
    assert np.bincount(found.label_image(min_area=21).ravel())[1:].tolist() == [100]


def test_no_detections():
    found = full(np.zeros((0, 4), "float32"), [])
    assert len(found) == 0 and found.masks.shape == (0, HEIGHT, WIDTH) and found.masks.dtype == bool
    assert found.rles() == [] and found.areas.shape == (0,)
    labels = found.label_image()
    assert labels.shape == (HEIGHT, WIDTH) and labels.dtype == np.int32 and not labels.any()
    assert len(found.confident()) == 0 and "0 with a score" in repr(found)


def test_take_keeps_rows_together():
    found = detections()
    some = found.take(found.scores > np.median(found.scores))
    assert len(some) == 6
    np.testing.assert_array_equal(some.masks, found.masks[:6])
    assert repr(found).startswith("Detections(12 on 53x71, ")


def test_masks_are_pasted_once(monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(arguments[-1])
        return paste(*arguments)

    monkeypatch.setattr(module, "paste", counted)
    found = detections(score=0.4)
    expected = [detections(score=0.4).label_image(), detections().rles(), detections().masks]
    calls.clear()
    assert found.rles() == expected[1]
    np.testing.assert_array_equal(found.label_image(), expected[0])
    np.testing.assert_array_equal(found.masks, expected[2])
    np.testing.assert_array_equal(found.areas, expected[2].sum(axis=(1, 2)))
    found.confident(0.5).take(slice(1, 3)).rles()
    assert calls == [0.5]
    # Another threshold gives another mask, whichever way it is set.
    found.thresholds = dataclasses.replace(found.thresholds, mask=0.7)
    np.testing.assert_array_equal(found.masks, detections(mask=0.7).masks)
    other = dataclasses.replace(found, thresholds=Thresholds(mask=0.3))
    np.testing.assert_array_equal(other.masks, detections(mask=0.3).masks)
    assert calls == [0.5, 0.7, 0.7, 0.3, 0.3]


@pytest.mark.parametrize(
    "index",
    [[5, 0, 11], [4, 3], [], slice(2, 9), slice(None, None, -1), np.arange(12) % 3 == 0, [-1, 7]],
    ids=str,
)
def test_taken_pixels_are_those_pasted_anew(index):
    """Before pasting and after it, in any order, and also for detections without a pixel."""
    index = index if isinstance(index, slice) else np.array(index, None if len(index) else int)
    fresh, found = detections().take(index), detections()
    found.pixels()
    for a, b in zip(found.take(index).pixels(), fresh.pixels(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype == np.int64


def test_quality_by_hand():
    """The share of the pixels above 0.3 that are also above 0.7."""
    found = full(
        np.array([[0, 0, 10, 10], [20, 20, 30, 30], [0, 40, 9, 49]], "float32"), [0.9, 0.8, 0.7]
    )
    found.mask_probs[1, :7], found.mask_probs[1, 7:12], found.mask_probs[1, 12:] = 0.9, 0.5, 0.1
    found.mask_probs[2] = 0.6
    np.testing.assert_allclose(found.quality, [1, 7 / 12, 0])
    labels, kept = found.labelled(0.75)
    assert labels.max() == 2 and kept.quality.tolist() == found.quality[:2].tolist()
    loose, strict = (
        Detections(*(getattr(found, n) for n in ("boxes", "scores", "mask_probs", "mask_boxes")),
                   HEIGHT, WIDTH, Thresholds(mask=cut)).areas for cut in (0.3, 0.7)
    )  # fmt: skip
    assert np.abs(strict / loose - found.quality).max() < 0.1  # coarser in whole pixels


def test_scores_follow_their_labels():
    """The second of three masks is hidden by the first: its label is dropped, and its score with it."""
    boxes = np.array([[0, 0, 10, 10], [2, 2, 8, 8], [20, 20, 30, 30]], "float32")
    scores = np.array([0.9, 0.8, 0.7], "float32")
    found = full(boxes, scores)
    labels, kept = found.labels_and_scores(0.5)
    assert labels.max() == 2 and labels[25, 25] == 2 and kept.tolist() == scores[[0, 2]].tolist()
    assert (found.label_image(0.5) == labels).all()
    painted = np.zeros((HEIGHT, WIDTH), "int32")
    painted[0:10, 0:10], painted[2:4, 2:4], painted[20:30, 20:30] = 1, 2, 3
    flat = LabelDetections.from_labels(painted, scores)
    assert flat.labels_and_scores(0.5, 5)[1].tolist() == kept.tolist()
    assert len(flat.labels_and_scores(0.95)[1]) == 0
