"""Fitting scores: matches against a loop, AP against the report's, and a fit to made-up detections."""

import dataclasses

import numpy as np
import pytest
from tiny import disc_dataset, tiny_config

from nucleus_course._util.errors import UserError
from nucleus_course.config import Thresholds
from nucleus_course.evaluation import evaluate
from nucleus_course.evaluation.rescoring import (
    MatchedDetections,
    average_precision,
    fit_rescorer,
    match_detections,
    matched_iou,
    mean_score_and_iou,
)
from nucleus_course.prediction.datasets import predict_dataset
from nucleus_course.prediction.rescorer import FEATURES
from nucleus_course.prediction.segmenter import build


def test_matched_iou_by_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(20):
        iou, scores = rng.random((12, 7)), rng.random(12)
        free, expected = set(range(7)), np.zeros(12)
        for d in np.argsort(-scores):
            options = [g for g in free if iou[d, g] >= 0.5]
            if options:
                g = max(options, key=lambda g: iou[d, g])
                expected[d] = iou[d, g]
                free.remove(g)
        np.testing.assert_allclose(matched_iou(iou, scores), expected, rtol=1e-6)
    assert matched_iou(np.zeros((0, 3)), np.zeros(0)).shape == (0,)
    assert matched_iou(np.zeros((2, 0)), np.ones(2)).tolist() == [0, 0]


def made_up(images=30, each=20, seed=0):
    """Detections whose IoU depends on two features, but their scores on only one of them."""
    rng, seen = np.random.default_rng(seed), []
    for _ in range(images):
        features = rng.normal(size=(each, len(FEATURES))).astype("float32")
        quality = 1 / (1 + np.exp(-2 * (features[:, 0] + 2 * features[:, 9])))
        seen.append(
            MatchedDetections(features, 1 / (1 + np.exp(-features[:, 0])), np.diag(quality))
        )
    return seen


def test_the_fit_finds_what_tells_quality():
    rescorer = fit_rescorer(made_up(100), progress=False, info={"split": "train"})
    new = made_up(seed=1)
    told = np.concatenate([rescorer.scores(s.features) for s in new])
    truth = np.concatenate([np.where(np.diag(s.iou) >= 0.5, np.diag(s.iou), 0) for s in new])
    assert np.corrcoef(told, truth)[0, 1] > 0.9
    assert abs(told.mean() - truth.mean()) < 0.03  # scores have the IoU's scale, not only its order
    perfect = [dataclasses.replace(s, scores=np.diag(s.iou)) for s in new]
    before, after, best = (
        average_precision(new),
        average_precision(new, rescorer),
        average_precision(perfect),
    )
    assert before < best - 5 and best - 1 < after <= best + 1e-9
    assert rescorer.info == {"split": "train"}
    mean_told, mean_true = mean_score_and_iou(new, rescorer)
    sure = told >= 0.5
    assert mean_told == pytest.approx(told[sure].mean(), rel=1e-6) and mean_true == pytest.approx(
        truth[sure].mean(), rel=1e-6
    )
    assert np.isnan(mean_score_and_iou([], rescorer)).all()


def test_the_same_seed_fits_the_same_scores():
    seen = made_up()
    first, second, other = (
        fit_rescorer(seen, networks=2, epochs=2, seed=s, progress=False) for s in (4, 4, 5)
    )
    np.testing.assert_array_equal(first.hidden_kernel, second.hidden_kernel)
    assert not np.allclose(first.hidden_kernel, other.hidden_kernel)
    assert not np.allclose(first.hidden_kernel[0], first.hidden_kernel[1])


@pytest.mark.parametrize(
    "seen",
    [
        [],
        made_up(images=3),
        [dataclasses.replace(s, iou=0 * s.iou) for s in made_up()],
        [dataclasses.replace(s, iou=np.eye(len(s.iou))) for s in made_up()],
    ],
    ids=["none", "few", "none right", "none wrong"],
)
def test_too_little_to_learn_from_is_a_clear_error(seen):
    with pytest.raises(UserError, match="too few to fit scores"):
        fit_rescorer(seen, progress=False)


@pytest.mark.parametrize(("flips", "scoring"), [(1, True), (4, True), (1, False)])
def test_what_is_collected_is_what_the_model_predicts(flips, scoring):
    model = build(tiny_config(mask_scoring=scoring), Thresholds(flips=flips))
    dataset = disc_dataset(3)
    seen = match_detections(model, dataset, progress=False)
    predictions = predict_dataset(model, dataset, progress=False)
    assert [len(s.scores) for s in seen] == [len(predictions.images[i]) for i in dataset.ids]
    for one, image_id in zip(seen, dataset.ids):
        np.testing.assert_allclose(
            np.sort(one.scores)[::-1], predictions.images[image_id].scores, rtol=1e-5
        )
        assert one.features.shape == (len(one.scores), len(FEATURES)) and one.iou.shape == (
            len(one.scores),
            6,
        )
    expected = evaluate(dataset, predictions, progress=False).metrics["coco_ap"]
    assert average_precision(seen) == pytest.approx(expected, abs=1e-6)
