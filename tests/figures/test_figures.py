"""Every figure returns a Figure with labelled axes and a caption, and draws the numbers it was given."""

import dataclasses
import json
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from fakes import random_case
from matplotlib.figure import Figure
from tiny import disc_dataset

import nucleus_course as nc
from nucleus_course import figures
from nucleus_course._util.errors import UserError
from nucleus_course.data.labels import renumber
from nucleus_course.evaluation import analyse_errors, choose_thresholds, evaluate
from nucleus_course.figures import style
from nucleus_course.figures.images import sort_out
from nucleus_course.geometry.masks import round_trip
from nucleus_course.prediction.interchange import Predictions


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
    if epochs == 6:
        log[2]["coco_ap"], log[5]["coco_ap"] = 40.0, 30.0
    return log


def check(drawn, ticks=True):
    """Check that the visible axes of a (Figure, caption) pair are labelled, and return the pair."""
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


def lines_of(axis, colour):
    """The segments of the outlines of one colour, (S, 2, 2)."""
    found = [np.stack(c.get_segments()) for c in axis.collections
             if matplotlib.colors.to_hex(c.get_color()[0]).upper() == colour and len(c.get_segments())]  # fmt: skip
    return np.concatenate(found) if found else np.zeros((0, 2, 2))


def test_detections_are_sorted_by_whether_they_are_right(discs):
    record = discs[0]
    found = np.where(record.labels == 1, 0, record.labels)  # one missed
    found[:3, :3] = record.count + 1  # one invented
    compact = renumber(found)
    matched, missed, right, wrong = sort_out(record.labels, compact)
    assert missed.tolist() == [1] and len(matched) == record.count - 1
    assert wrong.tolist() == [record.count] and len(right) == record.count - 1
    figure, caption = check(figures.draw_detections(record, found, mark=True))
    _, hidden, middle, last = figure.axes
    assert not hidden.get_visible()
    for axis, colour, labels, ids in (
        (middle, style.TRUTH, record.labels, missed),
        (last, style.VERMILION, compact, wrong),
    ):
        expected = style.outline_segments(labels, ids, dashed=True)
        assert len(expected) and np.array_equal(lines_of(axis, colour), expected)
    assert f"{record.count} nuclei, {record.count - 1} of them found" in caption
    plain = check(figures.draw_detections(record, found))
    assert not len(lines_of(plain[0].axes[3], style.VERMILION)) and "missed" not in plain[1]


def test_detections_may_be_a_model_s(discs):
    record = discs[0]
    model = SimpleNamespace(label_image=lambda: record.labels)
    assert "0 of" in figures.draw_detections(record, model, mark=True)[1]


def test_the_legend_of_precision_and_recall_hides_no_curve(case):
    figure, _ = check(figures.draw_pr_curves(case.report))
    figure.draw_without_rendering()  # which also lays it out
    (axis,) = figure.axes
    box = axis.get_legend().get_window_extent()
    assert not box.overlaps(axis.bbox)
    assert figure.bbox.containsx(box.x0) and figure.bbox.containsx(box.x1)
    assert figure.bbox.containsy(box.y0)


def test_learning_curve_draws_the_log(tmp_path):
    log = rows()
    figure, caption = check(figures.draw_learning_curve(log))
    total = next(line for line in figure.axes[0].lines if line.get_label() == "total")
    assert total.get_xydata().tolist() == [[r["epoch"], r["loss"]] for r in log]
    assert figure.axes[1].lines[0].get_ydata().tolist() == [r["rate"] for r in log]
    validated = next(line for line in figure.axes[2].lines if line.get_label() == "coco_ap")
    assert validated.get_xydata().tolist() == [[3, 40.0], [6, 30.0]]
    ring = next(
        line
        for line in figure.axes[2].lines
        if line.get_marker() == "o" and len(line.get_xdata()) == 1
    )
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (3, 40.0)  # the best weights, not the last
    assert "from 6.00 to 1.00" in caption


def test_learning_curve_reads_run_folders(tmp_path):
    log, run = rows(), tmp_path / "run"
    run.mkdir()
    run.joinpath("log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    drawn = [figures.draw_learning_curve(source)[1] for source in (run, str(run), log)]
    assert drawn[0] == drawn[1] == drawn[2]
    with pytest.raises(UserError, match="give a run folder"):
        figures.draw_learning_curve(tmp_path / "nothing")
    with pytest.raises(UserError, match="empty"):
        figures.draw_learning_curve([])


def test_pr_curves_draw_the_report_s_precision(case):
    figure, caption = check(figures.draw_pr_curves(case.report, thresholds=(0.5, 0.75)))
    for line, key in zip(figure.axes[0].lines, ("0.50", "0.75")):
        assert line.get_ydata() == pytest.approx(case.report.curves["precision"][key])
        assert line.get_xdata() == pytest.approx(np.linspace(0, 1, 101))
    assert f"{case.report.metrics['coco_ap50']:.1f} at IoU 0.50" in caption


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
    analysis = dataclasses.replace(case.analysis, calibration=None)
    assert "not probabilities" in check(figures.draw_reliability(analysis), ticks=False)[1]


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
    # matched is drawn first
    assert heights[0, place] == pytest.approx(100 * table[first]["matched"] / totals[place])
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


def test_epochs_are_whole_numbers():
    for figure, _ in (
        figures.draw_learning_curve(rows(2)),
        figures.draw_fine_tuning({"one": np.array([[0.1, 0.2, np.nan], [0.3, 0.2, 1.0]])}),
    ):
        assert all(tick == int(tick) for axis in figure.axes for tick in axis.get_xticks())


# ---------------------------------------------------------------- every figure


@pytest.fixture(scope="module")
def sample():
    return nc.load_dataset("sample", "all", progress=False)


def every_figure(sample, discs, case):
    """Every figure that needs no network, by name."""
    one, kinds = sample[0], sorted(set(sample.types.values()))
    trip = round_trip(one.labels == 1, one.boxes[0])
    grid = np.linspace(0, 1, 101)
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]], np.float32)
    counts = {"found": 3, "nuclei": 4, "matched": 2, "spurious": 1, "missed": 2}
    labels = np.roll(one.labels, 3, axis=0)
    curve = (np.array([0.2, 0.5]), np.array([1, 0.6]))
    stages = {n: nc.get_preset(n).training.stages for n in ("compact", "paper-resnet50")}
    choice = choose_thresholds(case.dataset, case.predictions, metric="f1_50")
    two = {"fake": case.report, "strict": case.strict}
    calls = {
        "task": (one,), "samples": (discs,), "record": (one, "boxes"), "augmentations": (one, [(one.image, one.labels)] * 3),
        "detections": (one, labels), "found": ({"a": one.image}, {"a": one.labels}),
        "case": (one.image, one.labels == 1, one.labels == 2, one.boxes[0], "a case"),
        "error_map": (case.dataset["image1"], case.analysis, case.predictions),
        "sizes": ({k: [3, 9, 30] for k in kinds}, {k: [50, 90, 400] for k in kinds}),
        "crowding": (dict.fromkeys(kinds, (20.0, 10.0)),), "scores": (np.array([0.1, 0.6, 0.9]), 0.5),
        "round_trip": (one.labels == 1, trip.grid >= 0.5, trip.pasted, [10, 20], [0.99, trip.iou]),
        "anchor_coverage": (np.array([10.0, 20.0]), {"a": np.array([0.4, 0.8])}),
        "measurements": (np.array([5.0, 9.0]), np.array([0.2, 0.9])),
        "scales": ((0.5, 1.0), [(one.image, one.labels), (one.image, np.zeros_like(one.labels))]),
        "roi_align": (np.arange(25.0).reshape(5, 5), (0, 0, 2, 2), 2, np.ones((4, 2)), np.arange(4.0)),
        "nms_steps": (one.image, boxes, np.array([0.9, 0.8, 0.7]), 0.3),
        "levels": (np.array([2, 2, 3]), np.array([10.0, 12.0, 60.0]), 112.0),
        "schedules": (stages,), "moving": ({"a": {"heads": (1, 4), "all": (4, 4)}},), "learning_curve": (rows(),),
        "shifted_discs": (20, (0, 1, 4)), "precision_recall": (np.array([1, 0.5]), np.array([0.5, 0.5]), grid, grid, 0.5),
        "operating_point": (one.image, labels, one.labels, curve, (0.5, 0.6), "Score 0.50", counts),
        "pr_curves": (case.report,), "f1_curve": (two,), "reliability": (case.analysis,), "threshold_curve": (choice,),
        "comparison": (two,), "type_breakdown": ({"fake": case.report},), "intervals": (case.report, ("coco_ap", "f1_50")),
        "paired_test": (np.array([1.0, -1.0, 2.0]), (-0.5, 1.5), "points"),
        "error_counts": (case.analysis,), "ap_costs": (case.analysis,), "size_breakdown": (case.analysis,),
    }  # fmt: skip
    for name, arguments in calls.items():
        yield name, getattr(figures, f"draw_{name}")(*arguments)
    proposals = figures.draw_proposals(one.image, boxes, [0.9, 0.8, 0.7], one.boxes, level="P2", shown=2, what="boxes")  # fmt: skip
    yield "proposals", proposals


def test_every_figure_can_be_read(sample, discs, case):
    """A picture and a sentence; text of nine points or more as shown; no legend on a bar; pyplot left alone."""
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    for name, (figure, caption) in every_figure(sample, discs, case):
        assert isinstance(figure, Figure) and caption.endswith(".") and len(caption) > 15, name
        drawn = figures.png(figure)
        # a notebook shows this width without shrinking it
        wide = int.from_bytes(drawn[16:20], "big")
        assert len(drawn) > 1000 and style.DPI == 96 and wide <= 1024, (name, wide)
        for text in figure.findobj(matplotlib.text.Text):
            assert not text.get_text().strip() or text.get_fontsize() >= 9, (name, text)
        for axis in figure.axes:
            legend = axis.get_legend()
            for patch in axis.patches if legend else []:
                extents = patch.get_window_extent(), legend.get_window_extent()
                assert not patch.get_height() or not extents[0].overlaps(extents[1]), name
    assert plt.get_fignums() == before, "no global figure is left open"


def test_numbers_in_cells_are_not_crossed_by_lines():
    """RoIAlign's figure: no bin's edge and no cross runs through a number."""
    grid = np.arange(25.0).reshape(5, 5)
    points = np.array([[1.25, 1.75], [1.25, 3.25], [3.25, 1.75], [3.25, 3.25]])
    figure, _ = figures.draw_roi_align(grid, (0.5, 1.0, 4.0, 4.0), 2, points, np.arange(4.0))
    figure.canvas.draw()
    left = figure.axes[0]
    below = max(line.get_zorder() for line in left.lines)
    numbers = [t for t in left.texts if t.get_text()]
    assert len(numbers) == 25
    assert all(t.get_zorder() > below and t.get_bbox_patch() is not None for t in numbers)


def test_captions_hold_the_numbers(sample):
    one = sample[0]
    assert f"{one.count} nuclei" in figures.draw_task(one)[1]
    drawn = figures.draw_paired_test(np.array([1.0, -1.0, 2.0]), (-0.5, 1.5), "points")
    assert "+0.67 on average over 3 images" in drawn[1]
    moving = figures.draw_moving({"a": {"heads": (1_000_000, 4_000_000)}})
    assert "1.0 of 4.0 million" in moving[1]
    assert figures.draw_measurements(np.zeros(0), np.zeros(0))[1] == "No nuclei to measure."
    nothing = {"found": 0, "nuclei": 4, "matched": 0, "spurious": 0, "missed": 4}
    none = np.zeros_like(one.labels)
    drawn = figures.draw_operating_point(
        one.image, none, one.labels, ([], []), (0, 1), "x", nothing
    )
    assert "precision undefined without detections" in drawn[1]
