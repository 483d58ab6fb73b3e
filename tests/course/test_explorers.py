"""The explorers: set a control, see the figure change; and the numbers they show."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nucleus_course as nc
from nucleus_course.config import Thresholds
from nucleus_course.course.explorers import (
    AnchorExplorer,
    ErrorBrowser,
    ImageBrowser,
    ThresholdExplorer,
)
from nucleus_course.data.dataset import Record
from nucleus_course.prediction.detections import Detections

ROOT = Path(__file__).resolve().parents[2]


def record(boxes, size=80):
    """An image with one rectangular nucleus per box (y1, x1, y2, x2)."""
    labels = np.zeros((size, size), np.int32)
    for number, (y1, x1, y2, x2) in enumerate(boxes, start=1):
        labels[y1:y2, x1:x2] = number
    image = np.where(labels[..., None] > 0, 200, 20).astype(np.uint8).repeat(3, axis=2)
    return Record("squares", image, labels, "small fluorescent")


def candidates(boxes, scores, size=80):
    """Detections whose masks fill their boxes."""
    boxes = np.asarray(boxes, np.float32)
    return Detections(
        boxes,
        np.asarray(scores, np.float32),
        np.ones((len(boxes), 28, 28), np.float32),
        boxes,
        size,
        size,
    )


@pytest.fixture(scope="module")
def sample():
    return nc.load_dataset("sample", "all", progress=False)


@pytest.fixture
def thresholds():
    truth = [(5, 5, 25, 25), (40, 40, 60, 60), (5, 50, 20, 70)]
    # a duplicate of the first, and a false alarm
    found = [(5, 5, 25, 25), (6, 6, 26, 26), (40, 40, 60, 60), (60, 5, 75, 20)]
    return ThresholdExplorer(
        record(truth), candidates(found, [0.9, 0.8, 0.7, 0.3]), Thresholds(score=0.5, nms_iou=0.5)
    )


def shown(explorer):
    """Picture (bytes as text) and alternative text of a displayed widget."""
    html = explorer.picture.value
    return re.search(r'src="data:image/png;base64,([^"]+)"', html)[1], re.search(
        r'alt="([^"]*)"', html
    )[1]


def test_threshold_counts_are_right(thresholds):
    def counts(**values):
        text = thresholds.draw(**values)[1]
        return tuple(
            int(n)
            for n in re.search(
                r": (\d+) detections, (\d+) of them .* (\d+) not; (\d+) of", text
            ).groups()
        )

    assert counts(score=0.5, nms=0.5) == (2, 2, 0, 1)  # the duplicate is removed
    assert counts(score=0.5, nms=0.95) == (3, 2, 1, 1)  # the duplicate stays and counts as wrong
    assert counts(score=0.2, nms=0.5) == (3, 2, 1, 1)  # a false alarm appears
    assert counts(score=0.95, nms=0.5) == (0, 0, 0, 3)
    assert "Precision 0.67, recall 0.67" in thresholds.draw(score=0.5, nms=0.95)[1]


def test_mask_threshold_changes_the_masks():
    truth = record([(10, 10, 40, 40)])
    soft = candidates([(10, 10, 40, 40)], [0.9])
    ramp = np.linspace(0.98, 0.02, 28, dtype=np.float32)
    soft.mask_probs = np.broadcast_to(ramp, (1, 28, 28)).copy()
    explorer = ThresholdExplorer(truth, soft, Thresholds(score=0.5, nms_iou=0.5))
    assert "1 detection, 1 of them matched" in explorer.draw(mask=0.1)[1]
    assert "1 detection, 0 of them matched" in explorer.draw(mask=0.9)[1]


def test_the_scores_alone_do_not_redo_nms(thresholds, monkeypatch):
    thresholds.draw(score=0.5)
    monkeypatch.setattr(
        Detections, "pixels", lambda self: pytest.fail("masks were pasted for matching again")
    )
    thresholds._after(0.5, 0.5)


def test_image_browser_filters_by_type(sample):
    browser = ImageBrowser(sample)
    browser.widget()
    kinds = sorted(set(sample.types.values()))
    before = shown(browser)
    assert before[1].startswith(f"Image 1 of {len(sample)} of every type")
    browser.set(number=len(sample))
    assert shown(browser) != before and f"Image {len(sample)} of {len(sample)}" in shown(browser)[1]
    browser.set(type=kinds[0])
    of_kind = [i for i in sample.ids if sample.types[i] == kinds[0]]
    control = browser.controls["number"].widget
    assert (control.min, control.max) == (1, len(of_kind)) and control.value <= len(of_kind)
    assert kinds[0] in shown(browser)[1]


@pytest.mark.parametrize("view", ["outlines", "masks", "boxes", "nothing"])
def test_image_browser_views_differ(sample, view):
    from nucleus_course.figures import png

    browser = ImageBrowser(sample)
    other = "masks" if view != "masks" else "nothing"
    assert png(browser.draw(show=view)[0]) != png(browser.draw(show=other)[0])


def test_anchor_explorer_shows_levels_and_proposals():
    from nucleus_course.models.mask_rcnn.anchors import pyramid_anchors

    config = nc.get_preset("compact").model
    anchors = pyramid_anchors(64, 64, config.strides, config.anchor_sizes, config.anchor_ratios)
    truth = record([(8, 8, 24, 24)], size=64)
    scores = np.linspace(1, 0, len(anchors)).astype(np.float32)
    trace = {
        "image": truth.image, "input": np.zeros((64, 64, 3), np.float32), "window": np.array([64, 64]), "anchors": anchors,
        "rpn_scores": scores, "rpn_deltas": np.zeros((len(anchors), 4), np.float32),
        "proposals": truth.boxes, "proposal_scores": np.array([0.9], np.float32),
    }  # fmt: skip
    explorer = AnchorExplorer(trace, config, truth.boxes)
    assert f"{len(anchors)} anchors" in explorer.draw(kind="anchors with the best scores")[1]
    level = list(explorer.levels)[2]
    # P3: 16 x 16 cells
    assert "256 anchors" in explorer.draw(kind="anchors with the best scores", level=level)[1]
    caption = explorer.draw(kind="proposals after NMS")[1]
    assert "1 proposals" in caption and "cover 1 of 1" in caption
    assert "cover 0 of 1" in explorer.draw(kind="proposals after NMS", shown=0)[1]


@pytest.fixture(scope="module")
def browser_of_errors(sample):
    from nucleus_course.evaluation import analyse_errors
    from nucleus_course.prediction.interchange import Predictions

    few = sample.subset(list(sample.ids[:4]))
    moved = {
        one.id: np.where(np.roll(one.labels, 4, axis=1) % 5 == 0, 0, np.roll(one.labels, 4, axis=1))
        for one in few
    }
    predictions = Predictions.from_label_images(moved)
    return ErrorBrowser(few, predictions, analyse_errors(few, predictions, progress=False))


def test_error_browser_has_every_error(browser_of_errors):
    cases = browser_of_errors.cases
    totals = browser_of_errors.analysis.totals
    assert sum(len(rows) for side, rows in cases.values() if side == "nuclei") == totals["fn"]
    assert sum(len(rows) for side, rows in cases.values() if side == "detections") == totals["fp"]


def test_error_browser_steps_through_each_class(browser_of_errors):
    for kind, (side, rows) in browser_of_errors.cases.items():
        _, caption = browser_of_errors.draw(kind=kind, number=1)
        assert caption.startswith(f"Case 1 of {len(rows)}, {side}: ")
        assert browser_of_errors.draw(kind=kind, number=len(rows))[1].startswith(
            f"Case {len(rows)} of {len(rows)}, "
        )
        table = (
            browser_of_errors.analysis.nuclei
            if side == "nuclei"
            else browser_of_errors.analysis.detections
        )
        whole = int(table["area"][rows[0]])
        covers = re.search(r"annotation covers (\d+) pixels here, the detection (\d+)", caption)
        assert int(covers[1 if side == "nuclei" else 2]) == whole, caption


def test_controls_are_labelled_and_the_picture_has_a_text(sample, thresholds, browser_of_errors):
    for explorer in (ImageBrowser(sample), thresholds, browser_of_errors):
        box = explorer.widget()
        assert len(box.children) == len(explorer.controls) + 2
        for control in explorer.controls.values():
            assert control.widget.description and control.widget.tooltip
        picture, text = shown(explorer)
        assert len(text) > 40 and 'aria-live="polite"' in explorer.picture.value


def test_moving_a_slider_changes_the_picture(thresholds):
    thresholds.widget()
    seen = {shown(thresholds)}
    for name, value in (("score", 0.2), ("nms", 0.95), ("mask", 0.95)):
        thresholds.controls[name].widget.value = value
        assert thresholds.values[name] == value
        seen.add(shown(thresholds))
    assert len(seen) >= 3


def test_default_view_is_the_widget_s_first_view(thresholds):
    caption = thresholds.draw()[1]
    thresholds.widget()
    assert shown(thresholds)[1] == caption


@pytest.mark.slow
def test_candidates_hold_what_the_model_detects(sample):
    from nucleus_course.course.explorers import collect_candidates

    model = nc.MaskRCNN.from_preset("compact")
    image = sample[0].image
    found = collect_candidates(model, image, limit=30, min_score=0.0)
    assert 0 < len(found) <= 30 and (np.diff(found.scores) <= 0).all()
    assert found.mask_probs.shape[1:] == (28, 28) and (found.height, found.width) == image.shape[:2]


def test_a_rescorer_scores_what_nms_leaves():
    """Three boxes, two of one nucleus: the explorer hands over network pixels, and shows the new scores, sorted."""
    truth = record([])
    found = candidates(
        np.array([[2, 2, 12, 12], [3, 2, 13, 12], [20, 20, 30, 30]], "float32"), [0.9, 0.8, 0.7]
    )
    asked = []

    def rescorer(boxes, scores, probs):
        asked.append((boxes.tolist(), scores.tolist()))
        return 1.0 - scores

    explorer = ThresholdExplorer(truth, found, Thresholds(score=0.1, nms_iou=0.5), rescorer, 2.0)
    kept, _ = explorer._after(0.5, 0.5)
    assert [box for box, _ in asked][0] == [[4, 4, 24, 24], [40, 40, 60, 60]]
    np.testing.assert_allclose(asked[0][1], [0.9, 0.7], rtol=1e-6)
    np.testing.assert_allclose(kept.scores, [0.3, 0.1], rtol=1e-5)
    assert kept.boxes[0].tolist() == [20, 20, 30, 30] and found.scores[0] == np.float32(0.9)


def test_the_scores_can_be_switched_to_class_probabilities():
    """A rescorer with low scores for duplicates hides them; with class probabilities they cost precision."""
    truth = record([(10, 10, 40, 40)])
    found = candidates([(10, 10, 40, 40), (12, 10, 42, 40)], [0.9, 0.8])

    def rescorer(boxes, scores, probs):
        return np.where(np.arange(len(scores)) == 0, 0.9, 0.05)

    explorer = ThresholdExplorer(truth, found, Thresholds(score=0.5, nms_iou=0.5), rescorer)
    assert "Precision 1.00" in explorer.draw(nms=0.95)[1] and "rescored" in explorer.draw()[1]
    plain = explorer.draw(nms=0.95, rescoring="class probabilities")[1]
    assert "Precision 0.50" in plain and "class probabilities" in plain
    without = ThresholdExplorer(truth, found, Thresholds(score=0.5, nms_iou=0.5))
    assert "rescoring" not in without.controls


def test_nothing_found_has_no_precision(thresholds):
    assert "recision 1.00" not in thresholds.draw(score=0.95)[1]


def test_another_class_begins_with_its_first_case(browser_of_errors):
    kinds = sorted(browser_of_errors.cases, key=lambda kind: -len(browser_of_errors.cases[kind][1]))
    browser_of_errors.widget()
    browser_of_errors.set(kind=kinds[0])
    browser_of_errors.set(number=2)
    assert browser_of_errors.values["number"] == 2 and "Case 2 of" in shown(browser_of_errors)[1]
    browser_of_errors.set(kind=kinds[1])
    assert browser_of_errors.values["number"] == 1 and "Case 1 of" in shown(browser_of_errors)[1]


def test_the_default_case_has_an_annotation_and_a_detection(sample):
    from nucleus_course.evaluation import analyse_errors
    from nucleus_course.prediction.interchange import Predictions

    few = sample.subset(list(sample.ids[:2]))
    shifted = {one.id: np.roll(one.labels, 5, axis=1) for one in few}
    predictions = Predictions.from_label_images(shifted)
    browser = ErrorBrowser(few, predictions, analyse_errors(few, predictions, progress=False))
    assert "poor boundary" in browser.values["kind"]
    covers = re.search(
        r"annotation covers (\d+) pixels here, the detection (\d+)", browser.draw()[1]
    )
    assert int(covers[1]) > 0 and int(covers[2]) > 0


def test_importing_the_explorers_is_light():
    code = (
        "import sys, nucleus_course.course.explorers; "
        "print([m for m in ('ipywidgets', 'keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"
