"""Weighted values equal those with images repeated; intervals cover the value; paired ones are narrower."""

import numpy as np
import pytest
from fakes import FakeDataset, random_case
from oracles import pycocotools_ap

from nucleus_course._util.errors import UserError
from nucleus_course.evaluation import KEYS, compare, evaluate
from nucleus_course.evaluation.bootstrap import (
    bootstrap_intervals,
    draw_weights,
    percentile_interval,
    values_of,
)
from nucleus_course.prediction.interchange import Predictions


@pytest.fixture(scope="module")
def case():
    return random_case(31)


def repeated(dataset, predictions, weights):
    """The data set with image i repeated weights[i] times."""
    truth, found, types = {}, {}, {}
    for i, weight in zip(dataset.ids, weights):
        for copy in range(weight):
            key = f"{i}-{copy}"
            truth[key], found[key], types[key] = (
                dataset[i].labels,
                predictions.images[i],
                dataset[i].type,
            )
    return FakeDataset(truth, types), Predictions(found, 0.5)


def test_weights_are_repetitions_for_every_metric(case):
    dataset, predictions, _ = case
    scores = evaluate(dataset, predictions, progress=False).scores
    for weights in draw_weights(len(dataset), 5, seed=4):
        again = evaluate(*repeated(dataset, predictions, weights), progress=False)
        values = values_of(scores, weights[None])
        for key in KEYS:
            assert values[key][0] == pytest.approx(again.metrics[key], abs=1e-9), key
        assert values["coco_ap"][0] == pytest.approx(
            pycocotools_ap(*repeated(dataset, predictions, weights))[0], abs=1e-9
        )


def test_draws_are_reproducible_and_sum_to_the_images():
    weights = draw_weights(30, 400, seed=1)
    assert (weights.sum(1) == 30).all() and (weights == draw_weights(30, 400, seed=1)).all()
    assert (weights != draw_weights(30, 400, seed=2)).any()
    assert abs(weights.mean(0) - 1).max() < 0.25
    # as often as a binomial variable is zero
    assert np.mean(weights == 0) == pytest.approx((1 - 1 / 30) ** 30, abs=0.02)


def test_groups_are_drawn_whole():
    weights = draw_weights(5, 200, seed=0, groups=["a", "b", "a", "c", "b"])
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 1] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(1) == 3).all()


def test_interval_of_a_mean_is_that_of_the_plain_bootstrap(case):
    """dsb_score is a mean over images: draw image values with the same weights."""
    dataset, predictions, _ = case
    report = evaluate(dataset, predictions, bootstrap=300, seed=5, progress=False)
    values = np.array([row["dsb_score"] for row in report.images.values()])
    means = draw_weights(len(values), 300, seed=5) @ values / len(values)
    assert report.intervals["dsb_score"] == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert report.bootstrap == {"replicates": 300, "seed": 5, "level": 0.95, "grouped": False}
    for key, (low, high) in report.intervals.items():
        assert low < report.metrics[key] < high, key
    narrow = bootstrap_intervals(report.scores, 300, 5, level=0.5)
    assert all(
        report.intervals[k][0] <= narrow[k][0] <= narrow[k][1] <= report.intervals[k][1]
        for k in KEYS
    )


def test_undefined_values_have_no_interval():
    assert percentile_interval([np.nan, np.nan]) is None
    assert percentile_interval([np.nan, 3.0]) == (3.0, 3.0)
    nothing = FakeDataset({"a": np.zeros((4, 4), int)})
    report = evaluate(
        nothing,
        Predictions.from_label_images({"a": np.zeros((4, 4), int)}),
        bootstrap=5,
        progress=False,
    )
    assert report.intervals["coco_ap"] is None and report.intervals["pq"] == (100.0, 100.0)


def test_a_model_against_itself_differs_by_nothing(case):
    dataset, predictions, _ = case
    result = compare(dataset, predictions, predictions, replicates=50)
    for row in result.metrics.values():
        assert (row["difference"], row["low"], row["high"], row["share"]) == (0.0, 0.0, 0.0, 0.5)


def test_a_model_that_is_worse_everywhere_is_found_worse(case, tmp_path):
    dataset, predictions, _ = case
    worse = {
        k: type(v)(v.height, v.width, v.rles[::2], v.scores[::2])
        for k, v in predictions.images.items()
    }
    worse = Predictions(worse, 0.5, {"model": "half"})
    first = evaluate(dataset, worse, progress=False)
    result = compare(dataset, first, predictions, replicates=200, seed=3)
    row = result.metrics["f1_50"]
    assert (result.first, result.second) == ("half", "predictions")
    assert row["difference"] == pytest.approx(row["second"] - row["first"])
    assert 0 < row["low"] < row["difference"] < row["high"] and row["share"] == 1.0
    # paired: narrower than the two intervals suggest
    wide = [
        evaluate(dataset, p, bootstrap=200, progress=False).intervals["f1_50"]
        for p in (worse, predictions)
    ]
    assert row["high"] - row["low"] < sum(high - low for low, high in wide)
    result.save(tmp_path / "comparison.json")
    assert (tmp_path / "comparison.json").stat().st_size > 500


def test_what_cannot_be_compared(case, tmp_path):
    from nucleus_course.evaluation import Report

    dataset, predictions, _ = case
    report = evaluate(dataset, predictions, progress=False)
    report.save(tmp_path / "report.json")
    with pytest.raises(UserError, match="loaded from a file"):
        compare(dataset, Report.load(tmp_path / "report.json"), report)
    part = FakeDataset({i: dataset[i].labels for i in dataset.ids[:3]})
    with pytest.raises(UserError, match="different images"):
        compare(dataset, report, evaluate(part, predictions, progress=False))
