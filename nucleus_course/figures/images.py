"""Images: samples with their masks, detections beside the truth, error maps."""

import numpy as np

from nucleus_course.data.labels import outlines
from nucleus_course.evaluation.errors.taxonomy import CLASSES
from nucleus_course.evaluation.matching import iou_from_overlap, overlap_matrix, pairs_above
from nucleus_course.evaluation.scoring import compact_labels
from nucleus_course.figures.base import filled, panels, picture, rgb, stretch
from nucleus_course.figures.style import (
    CLASS_COLOURS,
    CLASS_LETTERS,
    GREEN,
    GREY,
    ORANGE,
    VERMILION,
    signed,
)

MOST_LETTERS = 100  # more would hide the image


def short(image_id):
    """An image id that fits a title: BBBC038's have 64 characters."""
    return image_id if len(image_id) <= 16 else image_id[:8] + "…"


def draw_samples(dataset, count=5, ids=None):
    """After the paper's Figure 2: images above, below them their masks merged into one label image.

    Args:
        dataset: :class:`~nucleus_course.data.Dataset`, or a list of records.
        count: how many; image types take turns, each with its images of the most usual number of nuclei first.
        ids: which, instead of a choice.

    Returns:
        (Figure, caption).
    """
    if hasattr(dataset, "types"):
        records = [dataset[i] for i in (ids or _one_of_each(dataset, count))]
    else:
        records = [r for r in dataset if ids is None or r.id in ids][:count]
    figure, axes = panels(2 * len(records), len(records), side=2.0, ratio=1.14)
    for index, record in enumerate(records):
        picture(axes[index], stretch(record.image), f"{short(record.id)}\n{record.type}")
        picture(axes[len(records) + index], filled(record.labels), f"{record.count} nuclei")
        axes[len(records) + index].set_xlabel(
            f"{record.labels.shape[1]} x {record.labels.shape[0]} pixels", fontsize=8
        )
    listed = "; ".join(f"{short(r.id)}, {r.type}, {r.count} nuclei" for r in records)
    caption = f"Images (top) and their masks merged into one label image, a colour a nucleus (below): {listed}."
    return signed(figure, caption, getattr(dataset, "synthetic", False))


def _one_of_each(dataset, count):
    by_type = {}
    for image_id in dataset.ids:
        by_type.setdefault(dataset.types[image_id], []).append(image_id)
    for ids in by_type.values():
        usual = np.median([dataset.counts[i] for i in ids])
        ids.sort(key=lambda i: (abs(dataset.counts[i] - usual), i))
    chosen = []
    while len(chosen) < min(count, len(dataset)):
        for ids in by_type.values():
            if ids and len(chosen) < count:
                chosen.append(ids.pop(0))
    return chosen


def sort_out(truth, found):
    """Which nuclei and detections match at IoU above 0.5: (matched nuclei, missed, matched detections, spurious), label ids."""
    truth, found = compact_labels(truth), compact_labels(found)
    iou = iou_from_overlap(overlap_matrix(found, truth))
    detection, nucleus = pairs_above(iou, 0.5)
    return (
        nucleus + 1,
        np.setdiff1d(np.arange(1, truth.max(initial=0) + 1), nucleus + 1),
        detection + 1,
        np.setdiff1d(np.arange(1, found.max(initial=0) + 1), detection + 1),
    )


def draw_detections(record, detections, *, synthetic=False):
    """The image, the truth, and the detections coloured by whether they are right.

    Args:
        record: :class:`~nucleus_course.data.Record`.
        detections: a model's detections (at their operating point), or a label image (H, W).

    Returns:
        (Figure, caption): green outlines matched at IoU above 0.5, orange nuclei missed, vermilion detections spurious.
    """
    labels = (
        detections.label_image() if hasattr(detections, "label_image") else np.asarray(detections)
    )
    truth, labels = compact_labels(record.labels), compact_labels(labels)
    _, missed, right, wrong = sort_out(truth, labels)
    image = stretch(record.image)
    figure, axes = panels(3, 3, side=3.5, ratio=_ratio(record))
    picture(axes[0], image, f"{short(record.id)}: {record.type}")
    picture(axes[1], _painted(image, truth, {ORANGE: missed, GREEN: np.setdiff1d(np.unique(truth), missed)}),
            f"truth: {record.count} nuclei, {len(missed)} missed")  # fmt: skip
    picture(
        axes[2],
        _painted(image, labels, {GREEN: right, VERMILION: wrong}),
        f"found: {len(right) + len(wrong)}, {len(wrong)} spurious",
    )
    for axis in axes:
        axis.set_xlabel(f"{record.labels.shape[1]} x {record.labels.shape[0]} pixels", fontsize=8)
    _legend(
        figure,
        {
            "matched (IoU > 0.5)": (GREEN, "-"),
            "nucleus missed": (ORANGE, "-"),
            "detection spurious": (VERMILION, "-"),
        },
    )
    caption = (
        f"Image {short(record.id)} ({record.type}): {record.count} nuclei, {len(right)} of them found with an IoU above 0.5 (green), "
        f"{len(missed)} missed (orange, in the middle); {len(wrong)} of {len(right) + len(wrong)} detections match no nucleus (vermilion, right)."
    )
    return signed(figure, caption, synthetic)


def draw_error_map(record, analysis, predictions):
    """One image with every error in the colour of its class.

    Args:
        record: :class:`~nucleus_course.data.Record` of the image.
        analysis: :class:`~nucleus_course.evaluation.ErrorAnalysis` that covers it.
        predictions: the :class:`~nucleus_course.evaluation.Predictions` that were analysed.

    Returns:
        (Figure, caption): on the left the nuclei, on the right the detections at the operating point, outlined; each error has its
        class' colour and, unless there are too many to read, its letter.
    """
    point, image = analysis.report.operating_point, stretch(record.image)
    truth = compact_labels(record.labels)
    found = np.zeros_like(truth)
    if record.id in predictions.images:
        found = predictions.images[record.id].label_image(
            point["score_threshold"], point["min_area"]
        )
    figure, axes = panels(2, 2, side=4.4, ratio=_ratio(record))
    colours = dict(CLASS_COLOURS)
    if np.median(image) > 128:  # light grey would not show
        colours["matched"] = GREY
    seen, said = [], []
    for axis, labels, table, what in (
        (axes[0], truth, analysis.nuclei, "nuclei"),
        (axes[1], found, analysis.detections, "detections"),
    ):
        here = np.flatnonzero(np.asarray(table["image"]) == record.id)
        kinds = {
            name: table["label"][here[table["class"][here] == number]]
            for number, name in enumerate(CLASSES)
        }
        picture(
            axis,
            _painted(image, labels, {colours[name]: ids for name, ids in kinds.items()}),
            f"{len(here)} {what}",
        )
        wrong = [i for i in here if CLASSES[table["class"][i]] in CLASS_LETTERS]
        axis.set_xlabel(f"{record.labels.shape[1]} x {record.labels.shape[0]} pixels", fontsize=8)
        for i in wrong if len(wrong) <= MOST_LETTERS else []:
            name = CLASSES[table["class"][i]]
            top, left, bottom, right = table["box"][i]
            axis.text((left + right - 1) / 2, (top + bottom - 1) / 2, CLASS_LETTERS[name], color="black", fontsize=6, ha="center",
                      va="center", bbox={"boxstyle": "round,pad=0.12", "fc": colours[name], "ec": "none", "alpha": 0.85})  # fmt: skip
        counts = {name: len(ids) for name, ids in kinds.items() if len(ids)}
        seen += [name for name in counts if name not in seen]
        said.append(
            f"{len(here)} {what}: "
            + (", ".join(f"{n} {name}" for name, n in counts.items()) or "none")
        )
    entries = {}
    for name in (n for n in CLASSES if n in seen):
        entries[f"{CLASS_LETTERS[name]}  {name}" if name in CLASS_LETTERS else name] = (
            colours[name],
            "-",
        )
    _legend(figure, entries or {"nothing there": (GREY, "-")})
    values = analysis.report.images.get(record.id, {})
    score = values.get("dsb_score")
    caption = f"Errors on {short(record.id)} ({record.type})" + (
        f", dsb_score {score:.1f}" if score is not None else ""
    )
    return signed(
        figure, f"{caption}. Left, {said[0]}. Right, {said[1]}.", analysis.report.synthetic
    )


def _ratio(record):
    """Height of a panel over its width, with room for titles and legend."""
    height, width = record.labels.shape
    return min(2.0, height / width + 0.2)


def _painted(image, labels, colours):
    """The image with the outlines of labels in given colours: {colour: label ids}."""
    size = int(labels.max(initial=0)) + 1
    table = np.zeros((size, 3), np.uint8)
    chosen = np.zeros(size, bool)
    for colour, ids in colours.items():
        ids = np.asarray(ids, int)
        ids = ids[(ids > 0) & (ids < size)]
        table[ids], chosen[ids] = rgb(colour), True
    out = np.array(image)
    edge = outlines(labels)
    if min(labels.shape) >= 400:  # one pixel of a large image is thinner than the screen's
        edge = edge | (np.pad(edge, 1)[:-2, 1:-1] | np.pad(edge, 1)[1:-1, :-2]) & (labels > 0)
    edge &= chosen[labels]
    out[edge] = table[labels[edge]]
    return out


def _legend(figure, entries):
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, linestyle=style, linewidth=3, label=name)
        for name, (colour, style) in entries.items()
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=min(4, len(handles)),
        fontsize=8,
        frameon=False,
    )
