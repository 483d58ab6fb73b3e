"""The real validation split: the protocol's limits there, and the scores of imperfect detections."""

import numpy as np
import pytest
from fakes import image_predictions, noisy_detections
from limits import cap_effect, mask_grid_effect
from oracles import pycocotools_ap

from nucleus_course import load_dataset
from nucleus_course.evaluation import analyse_errors
from nucleus_course.prediction.interchange import Predictions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def validation(stage1_zip):
    return load_dataset(stage1_zip, "validation", progress=False)


def test_what_cap_and_mask_grid_cost(validation):
    effect = cap_effect(validation)
    assert (effect["images"], effect["images_over"], effect["nuclei"]) == (67, 7, 2839)
    assert effect["coco_ap"] == pytest.approx(88.12, abs=0.01)
    assert mask_grid_effect(validation)["mean_iou"] > 99


def test_perturbed_truth(validation):
    rng = np.random.default_rng(0)
    found = {}
    for record in validation:
        masks, scores = noisy_detections(rng, record.labels, extra=6)
        found[record.id] = image_predictions(masks, scores, record.labels.shape)
    predictions = Predictions(found, 0.5)
    analysis = analyse_errors(validation, predictions, progress=False)
    metrics = analysis.report.metrics
    assert [metrics[k] for k in ("coco_ap", "coco_ap50", "coco_ap75")] == pytest.approx(
        pycocotools_ap(validation, predictions)
    )
    assert analysis.totals == {k: analysis.report.counts[k] for k in ("tp", "fp", "fn")}
    assert 20 < metrics["dsb_score"] < 40 and 60 < metrics["f1_50"] < 85
