"""Reports: what is stored, what tables show, and their speed, width and imports."""

import json
import subprocess
import sys

import numpy as np
import pytest
from fakes import random_case
from rich.console import Console

from nucleus_course._util.errors import UserError
from nucleus_course.benchmark.scoring import benchmark_evaluate
from nucleus_course.evaluation import (
    KEYS,
    Report,
    analyse_errors,
    compare,
    comparison_table,
    evaluate,
)
from nucleus_course.evaluation.errors.analysis import BREAKDOWNS
from nucleus_course.prediction.interchange import Predictions


@pytest.fixture(scope="module")
def case():
    dataset, predictions, _ = random_case(71)
    return dataset, predictions, evaluate(dataset, predictions, bootstrap=20, progress=False)


def test_report_json_holds_the_contract_and_comes_back(case, tmp_path):
    _, _, report = case
    report.save(tmp_path / "report.json")
    document = json.loads((tmp_path / "report.json").read_text())
    assert list(document["metrics"]) == list(KEYS)
    assert list(document["images"]) == [f"image{i}" for i in range(6)] + [
        "none-none",
        "none-some",
        "some-none",
    ]
    for values in [*document["images"].values(), *document["types"].values()]:
        assert list(values) == list(KEYS)
    assert set(document["types"]) == {"small fluorescent", "purple stain"}
    assert document["operating_point"] == {
        "score_threshold": 0.5,
        "min_area": 0,
        "source": "predictions",
    }
    assert (
        document["counts"]["images"] == 9
        and document["split"] == "validation"
        and document["definitions"] == 1
    )
    assert np.shape(document["curves"]["precision"]["0.75"]) == (101,)
    assert 100 * np.mean(document["curves"]["precision"]["0.75"]) == pytest.approx(
        document["metrics"]["coco_ap75"]
    )
    assert 100 * document["curves"]["f1"]["0.70"] == pytest.approx(document["metrics"]["f1_70"])
    back = Report.load(tmp_path / "report.json")
    assert back.to_dict() == report.to_dict() and back.scores is None


def test_files_that_are_no_report(tmp_path):
    for name, text in (
        ("a.json", "{"),
        ("b.json", "[]"),
        ("c.json", '{"metrics": {}}'),
        ("d.json", '{"metrics": 1, "images": {}, "types": {}}'),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=name):
            Report.load(tmp_path / name)
    with pytest.raises(UserError, match="cannot be read"):
        Report.load(tmp_path / "none.json")


def test_every_table_fits_eighty_columns(case):
    dataset, predictions, report = case
    named = Predictions(predictions.images, 0.4, {"model": "a model with a rather long name [1]"})
    other = evaluate(dataset, named, progress=False)
    analysis = analyse_errors(dataset, named, progress=False)
    tables = [
        report.table(), other.table(), report.types_table(), comparison_table([report, other, report]),
        comparison_table([report, other], ["x", "y"]), compare(dataset, report, other, replicates=10).table(),
        analysis.table(), *[analysis.breakdown_table(by) for by in BREAKDOWNS],
    ]  # fmt: skip
    for table in tables:
        console = Console(width=80, record=True, file=open("/dev/null", "w"))
        console.print(table)
        text = console.export_text()
        assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(report.table())
    text = console.export_text()
    assert all(key in text for key in KEYS) and "…" not in text
    assert f"{report.metrics['coco_ap']:.2f}" in text and "95% interval" in text


def test_the_evaluation_room_loads_no_backend():
    code = (
        "import sys, nucleus_course.evaluation as e\n"
        "for name in e.__all__: getattr(e, name)\n"
        "bad = {'keras', 'tensorflow', 'jax', 'torch', 'matplotlib'} & set(sys.modules)\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_benchmark_makes_what_it_is_asked_for():
    result = benchmark_evaluate(images=3, detections=50, nuclei=10, side=64)
    assert (result["images"], result["detections"], result["nuclei"]) == (3, 50, 30)
    assert result["seconds"] > 0
