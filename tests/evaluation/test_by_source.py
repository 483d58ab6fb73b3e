"""The table by source: each source's own metrics, means that count each once, paired intervals."""

import json

import numpy as np
import pytest
from fakes import FakeDataset, random_case

from nucleus_course._util.errors import UserError
from nucleus_course.evaluation import evaluate
from nucleus_course.evaluation.bootstrap import draw_weights, values_of
from nucleus_course.evaluation.by_source import SHOWN, by_source
from nucleus_course.prediction.interchange import Predictions


@pytest.fixture(scope="module")
def case():
    dataset, predictions, _ = random_case(12)
    names = {
        image_id: ("a", "b", "b", "c")[number % 4] for number, image_id in enumerate(dataset.ids)
    }
    return dataset, predictions, names


def part(dataset, predictions, names, source):
    """The images of one source as a data set."""
    ids = [i for i in dataset.ids if names.get(i) == source]
    whole = FakeDataset({i: dataset[i].labels for i in ids}, {i: dataset[i].type for i in ids})
    return whole, Predictions({i: predictions.images[i] for i in ids}, predictions.score_threshold)


def test_rows_are_reports_of_their_own_and_means_count_each_once(case):
    dataset, predictions, names = case
    table = by_source(evaluate(dataset, predictions, progress=False), names, {"a"}, replicates=0)
    own = {
        name: evaluate(*part(dataset, predictions, names, name), progress=False).metrics
        for name in "abc"
    }
    for name, row in table.sources.items():
        assert row["met"] == (name == "a") and row["images"] == sum(
            v == name for v in names.values()
        )
        assert (
            row["first"] == pytest.approx({key: own[name][key] for key in SHOWN})
            and row["second"] is None
        )
    for kind, members in (("all", "abc"), ("unseen", "bc"), ("seen", "a")):
        for key in SHOWN:
            assert table.means[kind][key]["first"] == pytest.approx(
                np.mean([own[m][key] for m in members])
            )
            assert table.means[kind][key]["low"] is None


def test_intervals_come_from_draws_within_each_source_and_are_paired(case):
    dataset, predictions, names = case
    worse = Predictions(dict(predictions.images.items()), 0.9)
    first, second = (evaluate(dataset, p, progress=False) for p in (predictions, worse))
    table = by_source(first, names, (), other=second, replicates=60, seed=3)
    draws = []
    for number, name in enumerate("abc"):
        places = [k for k, s in enumerate(first.scores) if names[s.image_id] == name]
        weights = draw_weights(len(places), 60, (3, number))
        a, b = (
            values_of([r.scores[k] for k in places], weights)["dsb_score"] for r in (first, second)
        )
        draws.append(a - b)
    low, high = np.percentile(np.mean(draws, axis=0), (2.5, 97.5))
    found = table.means["unseen"]["dsb_score"]
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert (
        found["difference"] == pytest.approx(found["first"] - found["second"])
        and "seen" not in table.means
    )
    # AP does not depend on the threshold
    assert table.means["all"]["coco_ap"]["difference"] == 0 == table.means["all"]["coco_ap"]["low"]


def test_saved_and_printed(case, tmp_path):
    from rich.console import Console

    dataset, predictions, names = case
    table = by_source(
        evaluate(dataset, predictions, progress=False), names, {"a", "b"}, replicates=20
    )
    table.save(tmp_path / "t.json")
    assert (
        json.loads((tmp_path / "t.json").read_text())["means"]["unseen"]["coco_ap"]["first"]
        == table.means["unseen"]["coco_ap"]["first"]
    )
    console = Console(width=80, record=True, file=open(tmp_path / "out", "w"))
    console.print(table.table())
    text = console.export_text()
    assert "mean, unseen" in text and f"{table.sources['c']['first']['coco_ap']:.1f}" in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_cannot_be_compared(case, tmp_path):
    dataset, predictions, names = case
    report = evaluate(dataset, predictions, progress=False)
    with pytest.raises(UserError, match="known source"):
        by_source(report, {"elsewhere": "a"})
    report.save(tmp_path / "r.json")
    with pytest.raises(UserError, match="no matches"):
        by_source(type(report).load(tmp_path / "r.json"), names)
    half = evaluate(*part(dataset, predictions, names, "b"), progress=False)
    with pytest.raises(UserError, match="different images"):
        by_source(report, names, other=half)
