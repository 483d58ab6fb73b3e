"""Every figure returns a Figure with labelled axes and a caption, and draws the numbers it was given."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from fakes import random_case  # noqa: E402
from matplotlib.figure import Figure
from tiny import disc_dataset  # noqa: E402

from nucleus_course import figures  # noqa: E402
from nucleus_course._util.errors import UserError  # noqa: E402
from nucleus_course.evaluation import analyse_errors, choose_thresholds, evaluate  # noqa: E402
from nucleus_course.figures.base import ORANGE, VERMILION, rgb  # noqa: E402
from nucleus_course.figures.images import sort_out  # noqa: E402
from nucleus_course.prediction.interchange import Predictions  # noqa: E402


@pytest.fixture(scope="module")
def case():
    """(dataset, predictions, report, a stricter report, error analysis)."""
    dataset, predictions, _ = random_case(3, images=4)
    predictions.info["model"] = "fake"
    report = evaluate(dataset, predictions, bootstrap=20, progress=False)
    strict = evaluate(dataset, predictions, score_threshold=0.8, progress=False)
    strict.name = "strict"
    return SimpleNamespace(
        dataset=dataset, predictions=predictions, report=report, strict=strict,
        analysis=analyse_errors(dataset, predictions, progress=False),
    )  # fmt: skip


@pytest.fixture(scope="module")
def discs():
    return disc_dataset(images=6, types=("small fluorescent", "purple stain", "grey tissue"))


def rows(epochs=6):
    log = [{"epoch": i + 1, "stage": "heads" if i < 2 else "all", "rate": 1e-3 / (i + 1), "loss": 6 / (i + 1), "mask_loss": 1 / (i + 1)}
           for i in range(epochs)]  # fmt: skip
    log[2]["coco_ap"], log[5]["coco_ap"] = 40.0, 30.0
    return log


def check(drawn, ticks=True):
    """A (Figure, caption) pair whose visible axes are labelled; gives both."""
    figure, caption = drawn
    assert isinstance(figure, Figure)
    assert isinstance(caption, str) and len(caption) > 20 and caption.endswith(".")
    for axis in figure.axes:
        if axis.get_visible() and ticks and axis.lines + axis.patches:
            assert axis.get_xlabel(), "an x axis without a label"
    figure.canvas.draw()
    return figure, caption


def bar_heights(axis):
    return [
        bar.get_height()
        for container in axis.containers
        if hasattr(container, "patches")
        for bar in container.patches
    ]


def test_importing_and_drawing_leave_pyplot_alone(case):
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    figures.draw_f1_curve(case.report)
    assert plt.get_fignums() == before


def test_every_listed_figure_exists():
    for name in figures.__all__:
        assert getattr(figures, name) is not None
    with pytest.raises(AttributeError):
        figures.draw_nothing


def test_samples_show_each_type_once_with_its_id(discs):
    figure, caption = check(figures.draw_samples(discs, count=3))
    titles = [axis.get_title() for axis in figure.axes]
    for kind in set(discs.types.values()):
        assert sum(kind in title for title in titles) == 1
    assert titles[0].split("\n")[0] in discs.ids
    masks = figure.axes[3].images[0].get_array()
    shown = discs[titles[0].split("\n")[0]]
    assert ((np.asarray(masks) > 0).any(axis=2) == (shown.labels > 0)).all()


def test_synthetic_images_are_called_so(discs, case):
    figure, caption = figures.draw_samples(discs, count=2)
    assert caption.startswith("Synthetic") and "ynthetic" in figure.get_suptitle()
    figure, caption = figures.draw_f1_curve(case.report)
    assert "ynthetic" not in caption and not figure.get_suptitle()
    report = SimpleNamespace(**{**vars(case.report), "synthetic": True})
    assert figures.draw_pr_curves(report)[1].startswith("Synthetic")
    assert figures.draw_learning_curve(rows(), synthetic=True)[1].startswith("Synthetic")


def test_detections_are_sorted_by_whether_they_are_right(discs):
    record = discs[0]
    found = np.where(record.labels == 1, 0, record.labels)  # one missed
    found[:3, :3] = 90  # one invented
    matched, missed, right, wrong = sort_out(record.labels, found)
    assert missed.tolist() == [1] and len(matched) == record.count - 1
    assert wrong.tolist() == [record.count] and len(right) == record.count - 1
    figure, caption = check(figures.draw_detections(record, found))
    middle, last = (np.asarray(axis.images[0].get_array()) for axis in figure.axes[1:])
    inside = (middle == rgb(ORANGE)).all(axis=2)
    assert inside.any() and (record.labels[inside] == 1).all()
    assert (found[(last == rgb(VERMILION)).all(axis=2)] == 90).all()
    assert f"{record.count} nuclei, {record.count - 1} of them found" in caption


def test_detections_may_be_a_model_s(discs):
    record = discs[0]
    model = SimpleNamespace(label_image=lambda: record.labels)
    assert "0 of" in figures.draw_detections(record, model)[1]


def test_the_legend_of_precision_and_recall_hides_no_curve(case):
    for reports, panels in ((case.report, 1), ({"fake": case.report, "strict": case.strict}, 3)):
        figure, _ = check(figures.draw_pr_curves(reports))
        assert len(figure.axes) == panels
        figure.draw_without_rendering()  # which lays it out
        for axis in figure.axes:
            box = axis.get_legend().get_window_extent()
            assert not any(box.overlaps(other.bbox) for other in figure.axes)
            assert (
                figure.bbox.containsx(box.x0)
                and figure.bbox.containsx(box.x1)
                and figure.bbox.containsy(box.y0)
            )


def test_learning_curve_draws_the_log(tmp_path):
    log = rows()
    figure, caption = check(figures.draw_learning_curve(log))
    total = next(line for line in figure.axes[0].lines if line.get_label() == "total")
    assert total.get_xydata().tolist() == [[r["epoch"], r["loss"]] for r in log]
    assert figure.axes[1].lines[0].get_ydata().tolist() == [r["rate"] for r in log]
    validated = next(line for line in figure.axes[2].lines if line.get_label() == "coco_ap")
    assert validated.get_xydata().tolist() == [[3, 40.0], [6, 30.0]]
    ring = figure.axes[2].lines[-1]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (3, 40.0)  # the best weights, not the last
    assert "from 6.00 to 1.00" in caption


def test_learning_curve_reads_run_folders(tmp_path):
    log, run = rows(), tmp_path / "run"
    run.mkdir()
    run.joinpath("log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    columns = list(dict.fromkeys(key for row in log for key in row))
    with open(run / "log.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(log)
    drawn = [
        figures.draw_learning_curve(source)[1]
        for source in (tmp_path / "run", str(tmp_path / "run" / "log.csv"), rows())
    ]
    assert drawn[0] == drawn[1] == drawn[2]
    with pytest.raises(UserError, match="no training log"):
        figures.draw_learning_curve(tmp_path / "nothing")
    with pytest.raises(UserError, match="empty"):
        figures.draw_learning_curve([])


def test_pr_curves_draw_the_report_s_precision(case):
    figure, caption = check(figures.draw_pr_curves(case.report, thresholds=(0.5, 0.75)))
    for line, key in zip(figure.axes[0].lines, ("0.50", "0.75")):
        assert line.get_ydata() == pytest.approx(case.report.curves["precision"][key])
        assert line.get_xdata() == pytest.approx(np.linspace(0, 1, 101))
    assert f"{case.report.metrics['coco_ap50']:.1f} at IoU 0.50" in caption
    figure, _ = check(figures.draw_pr_curves([case.report, case.strict], thresholds=(0.5, 0.75)))
    assert len(figure.axes) == 2 and len(figure.axes[0].lines) == 2


def test_f1_curve_starts_at_f1_50(case):
    figure, caption = check(figures.draw_f1_curve({"a": case.report, "b": case.strict}))
    for line, report in zip(figure.axes[0].lines, (case.report, case.strict)):
        assert line.get_ydata()[0] == pytest.approx(report.metrics["f1_50"])
        assert line.get_ydata()[4] == pytest.approx(report.metrics["f1_70"])
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["a", "b"]


def test_cost_bars_are_the_costs(case):
    figure, caption = check(figures.draw_ap_costs(case.analysis))
    axis, classes = figure.axes[0], case.analysis.costs["classes"]
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    for container, key in zip(axis.containers, ("cost_ap", "cost_ap50")):
        assert [bar.get_width() for bar in container] == pytest.approx(
            [classes[name][key] for name in names]
        )
    assert set(names) == set(classes)
    assert names[0] == max(classes, key=lambda c: classes[c]["cost_ap"])


def test_reliability_draws_precision_and_counts(case):
    figure, caption = check(figures.draw_reliability(case.analysis))
    left, right = figure.axes
    bins = case.analysis.calibration["bins"]
    assert bar_heights(left) == pytest.approx([b["precision"] for b in bins if b["count"]])
    assert bar_heights(right) == pytest.approx([b["count"] for b in bins])
    assert f"{case.analysis.calibration['ece']:.3f}" in caption
    assert "no probabilities" in check(figures.draw_reliability(None), ticks=False)[1]


@pytest.mark.parametrize("by", ["size", "crowding", "type"])
def test_breakdown_bars_add_up_to_all_nuclei(case, by):
    figure, caption = check(figures.draw_size_breakdown(case.analysis, by))
    table = case.analysis.breakdown(by)["nuclei"]
    heights = np.array(
        [[bar.get_height() for bar in container] for container in figure.axes[0].containers]
    )
    totals = np.array([sum(row.values()) for row in table.values()])
    assert heights.sum(axis=0) == pytest.approx(np.where(totals > 0, 100.0, 0.0))
    first = next(group for group in table if sum(table[group].values()))
    place = list(table).index(first)
    assert heights[0, place] == pytest.approx(
        100 * table[first]["matched"] / totals[place]
    )  # matched is drawn first
    assert f"{first}: " in caption


def test_types_and_comparison_draw_the_metrics(case):
    figure, _ = check(figures.draw_type_breakdown(case.report, keys=("dsb_score", "f1_50")))
    kinds = sorted(case.report.types)
    expected = [case.report.types[kind][key] for key in ("dsb_score", "f1_50") for kind in kinds]
    assert bar_heights(figure.axes[0]) == pytest.approx(expected)
    figure, caption = check(
        figures.draw_comparison({"one": case.report, "two": case.strict}, keys=("coco_ap", "f1_50"))
    )
    assert bar_heights(figure.axes[0]) == pytest.approx(
        [r.metrics[k] for r in (case.report, case.strict) for k in ("coco_ap", "f1_50")]
    )
    assert "Whiskers" in caption  # the first has intervals
    figure, _ = check(figures.draw_type_breakdown([case.report, case.strict], keys=("dsb_score",)))
    assert len(figure.axes) == 1


def test_undefined_metrics_leave_a_gap_not_an_error(case):
    report = SimpleNamespace(
        **{
            **vars(case.report),
            "metrics": {**case.report.metrics, "coco_ap": None},
            "intervals": {},
        }
    )
    figure, caption = check(figures.draw_comparison({"x": report}, keys=("coco_ap", "f1_50")))
    assert "COCO AP -" in caption and bar_heights(figure.axes[0])[0] == 0


def test_error_map_counts_every_object_of_its_image(case):
    record = case.dataset["image1"]
    figure, caption = check(figures.draw_error_map(record, case.analysis, case.predictions))
    nuclei = sum(np.asarray(case.analysis.nuclei["image"]) == "image1")
    detections = sum(np.asarray(case.analysis.detections["image"]) == "image1")
    assert f"{nuclei} nuclei" in caption and f"{detections} detections" in caption
    letters = [t.get_text() for t in figure.axes[0].texts]
    wrong = (
        case.analysis.nuclei["class"][np.asarray(case.analysis.nuclei["image"]) == "image1"] != 0
    )
    assert len(letters) == wrong.sum()


def test_error_map_of_an_image_without_nuclei_or_detections(case):
    check(figures.draw_error_map(case.dataset["none-none"], case.analysis, case.predictions))
    check(figures.draw_error_map(case.dataset["some-none"], case.analysis, Predictions({})))


def test_threshold_curve_marks_the_choice(case):
    choice = choose_thresholds(case.dataset, case.predictions, metric="f1_50")
    figure, caption = check(figures.draw_threshold_curve(choice))
    curve = figure.axes[0].lines[0]
    assert curve.get_ydata() == pytest.approx([row["value"] for row in choice.tried])
    mark = figure.axes[0].lines[-1]
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (
        choice.thresholds.score,
        choice.thresholds.value,
    )
    assert np.nanmax(curve.get_ydata()) == pytest.approx(choice.thresholds.value)
    assert f"score {choice.thresholds.score:.2f}" in caption


def test_class_colours_stay_apart_without_colour_vision():
    """Classes that lie beside each other are told apart by more than hue: hatch and letter differ."""
    from nucleus_course.figures.style import CLASS_HATCHES, CLASS_LETTERS

    assert len(set(figures.CLASS_COLOURS.values())) == len(figures.CLASS_COLOURS)
    assert len(set(CLASS_HATCHES.values())) == len(CLASS_HATCHES) == len(figures.CLASS_COLOURS)
    assert len(set(CLASS_LETTERS.values())) == len(figures.CLASS_COLOURS) - 1
