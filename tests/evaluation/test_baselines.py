"""Otsu and watershed: polarity, separation, scores, and the search for its parameters."""

import json

import numpy as np
import pytest
from fakes import FakeDataset
from scipy import ndimage

from nucleus_course.evaluation import evaluate
from nucleus_course.evaluation.baselines import (
    GRID,
    OtsuConfig,
    contrast_scores,
    foreground,
    predict_otsu,
    search_otsu,
    segment_otsu,
)
from nucleus_course.evaluation.matching import best_assignment, iou_from_overlap, overlap_matrix
from nucleus_course.geometry.watershed import separate
from nucleus_course.prediction.interchange import Predictions
from nucleus_course.prediction.label_detections import LabelDetections


def two_discs(gap=-4, radius=14, bright=True):
    """Two discs whose centres are 2 * radius + gap apart; (labels, image), the seam at equal distances."""
    rows, columns = np.mgrid[:64, :96] + 0.5
    first = np.hypot(rows - 32, columns - 30)
    second = np.hypot(rows - 32, columns - 30 - 2 * radius - gap)
    labels = np.where(
        np.minimum(first, second) < radius, np.where(first <= second, 1, 2), 0
    ).astype(np.int32)
    grey = np.where(labels > 0, 190, 30) if bright else np.where(labels > 0, 60, 225)
    noise = np.random.default_rng(0).normal(0, 3, labels.shape)
    return labels, np.repeat(np.clip(grey + noise, 0, 255).astype(np.uint8)[..., None], 3, 2)


def ious(found, labels):
    """IoU of each nucleus with its partner."""
    iou = iou_from_overlap(overlap_matrix(found, labels))
    return iou[best_assignment(iou)]


@pytest.mark.parametrize("bright", [True, False])
def test_touching_discs_are_separated_on_dark_and_on_bright_ground(bright):
    labels, image = two_discs(bright=bright)
    found = segment_otsu(image)
    assert len(found) == 2
    assert (ious(found.labels, labels) > 0.9).all()


def test_every_piece_is_a_nucleus_however_thin():
    """Lines one and two pixels wide have no maximum of the distance a pixel above its surroundings."""
    mask = np.zeros((20, 20), bool)
    mask[2, 2:18] = mask[6:8, 2:18] = mask[11:18, 3:10] = True
    pieces, count = ndimage.label(mask)
    np.testing.assert_array_equal(separate(mask, 1.0) > 0, mask)
    assert count == len({(a, b) for a, b in zip(pieces[mask], separate(mask, 1.0)[mask])}) == 3


def test_depth_decides_whether_a_saddle_separates():
    labels, image = two_discs(gap=-6)
    assert len(segment_otsu(image, OtsuConfig(depth=1.0))) == 2
    assert len(segment_otsu(image, OtsuConfig(depth=12.0))) == 1


def test_grey_16_bit_images_are_taken():
    labels, image = two_discs()
    assert (ious(segment_otsu(image[..., 0].astype(np.uint16) * 257).labels, labels) > 0.9).all()


def test_polarity_follows_the_border():
    grey = np.full((40, 40), 20.0)
    grey[10:30, 10:30] = 200
    mask, threshold, bright = foreground(grey)
    assert bright and 20 <= threshold < 200 and (mask == (grey == 200)).all()
    mask, _, bright = foreground(255 - grey)
    assert not bright and (mask == (grey == 200)).all()


def test_images_without_contrast_have_no_nuclei():
    for image in (np.zeros((20, 30, 3), np.uint8), np.full((1, 1, 3), 7, np.uint8)):
        found = segment_otsu(image)
        assert len(found) == 0 and found.labels.shape == image.shape[:2]


def test_small_pieces_go_and_holes_are_filled():
    labels, image = two_discs(gap=10)
    image[5:8, 5:8] = 220  # 9 pixels
    image[30:34, 29:32] = 30  # a hole
    found = segment_otsu(image, OtsuConfig(sigma=0.0, min_area=20))
    assert len(found) == 2 and (ious(found.labels, labels) > 0.95).all()


def test_scores_are_the_contrast_beyond_the_threshold():
    grey = np.full((10, 20), 10.0)
    labels = np.zeros((10, 20), np.int32)
    grey[2:5, 2:5], labels[2:5, 2:5] = 110, 1
    grey[2:5, 10:13], labels[2:5, 10:13] = 60, 2
    assert contrast_scores(labels, grey, 10.0) == pytest.approx([1.0, 0.5])
    assert contrast_scores(labels, 255 - grey, 245.0, bright=False) == pytest.approx([1.0, 0.5])


def test_predictions_hold_every_nucleus_and_go_through_a_file(tmp_path):
    labels, image = two_discs()
    faint = image.copy()
    faint[labels == 2] -= 60
    dataset = FakeDataset(
        {"a": labels, "b": np.zeros((20, 20), np.int32)},
        images={"a": faint, "b": np.zeros((20, 20, 3), np.uint8)},
    )
    predictions = predict_otsu(dataset, progress=False)
    first = predictions.images["a"]
    assert len(first) == 2 and len(predictions.images["b"]) == 0
    better = first.rles[int(np.argmax(first.scores))]
    from pycocotools import mask

    assert (
        labels[mask.decode(better).astype(bool)] == 1
    ).mean() > 0.9  # the brighter one scores higher
    predictions.save(tmp_path / "otsu.json")
    again = evaluate(dataset, Predictions.load(tmp_path / "otsu.json"), progress=False)
    assert again.metrics == evaluate(dataset, predictions, progress=False).metrics
    assert again.metrics["f1_50"] == 100.0 and again.operating_point["score_threshold"] == 0.0
    assert json.loads((tmp_path / "otsu.json").read_text())["info"]["parameters"] == vars(
        OtsuConfig()
    )


def test_search_ranks_by_the_metric_and_matches_evaluate():
    cases = {f"i{k}": two_discs(gap=g) for k, g in enumerate((-6, -4, 6))}
    dataset = FakeDataset(
        {k: v[0] for k, v in cases.items()}, images={k: v[1] for k, v in cases.items()}
    )
    rows = search_otsu(dataset, {"depth": (1.0, 12.0)}, step=1, progress=False)
    assert [row["depth"] for row in rows] == [1.0, 12.0] and rows[0]["value"] > rows[1]["value"]
    for row in rows:
        report = evaluate(
            dataset,
            predict_otsu(dataset, OtsuConfig(depth=row["depth"]), progress=False),
            progress=False,
        )
        assert row["value"] == pytest.approx(report.metrics["dsb_score"])


def test_the_defaults_are_among_the_candidates():
    assert all(getattr(OtsuConfig(), name) in values for name, values in GRID.items())


def test_label_detections_order_threshold_and_renumber():
    labels = np.zeros((6, 12), int)
    labels[1:3, 1:3], labels[1:5, 5:8], labels[1, 10] = 4, 7, 9
    found = LabelDetections.from_labels(labels, [0.5, 0.9, 0.7])
    assert found.scores == pytest.approx([0.9, 0.7, 0.5])
    assert (
        (found.labels[labels == 7] == 1).all()
        and (found.labels[labels == 9] == 2).all()
        and (found.labels[labels == 4] == 3).all()
    )
    assert found.areas.tolist() == [12, 1, 4] and found.boxes[0].tolist() == [1, 5, 5, 8]
    assert (found.masks.sum(0) == (labels > 0)).all() and len(found.rles()) == 3
    assert len(found.confident(0.6)) == 2
    assert (
        found.label_image(0.0, min_area=2) == np.select([labels == 7, labels == 4], [1, 2])
    ).all()
    with pytest.raises(ValueError, match="3 labels but 2 scores"):
        LabelDetections.from_labels(labels, [0.5, 0.9])
