"""Pictures of images: samples, annotations, detections, single errors and maps of errors."""

import numpy as np
from matplotlib.lines import Line2D

from nucleus_course._util.text import pluralize
from nucleus_course.data.labels import renumber
from nucleus_course.evaluation.errors.taxonomy import CLASSES
from nucleus_course.evaluation.matching import iou_from_overlap, overlap_matrix, pairs_above
from nucleus_course.figures import style

NEIGHBOUR = "#CCCCCC"
MOST_LETTERS = 60  # more would hide the image


def count_labels(labels):
    """The number of nuclei in a label image (H, W)."""
    return len(np.unique(labels)) - int((np.asarray(labels) == 0).any())


def _nuclei(number):
    return pluralize(number, "nucleus", "nuclei")


def draw_task(record):
    """An image, its foreground as connected pieces, and its single nuclei."""
    from skimage.measure import label

    pieces = label(record.labels > 0, connectivity=1)
    connected = pluralize(int(pieces.max()), "connected piece")
    figure, axes = style.panels(3, 3, side=4.2)
    style.picture(axes[0], style.stretch(record.image), "the image")
    style.picture(axes[1], style.filled(pieces), f"foreground: {connected}")
    style.picture(axes[2], style.filled(record.labels), f"instances: {_nuclei(record.count)}")
    return figure, (
        f"Left, a {record.type} image. Middle, its foreground: {connected}. "
        f"Right, its annotation: {_nuclei(record.count)}, white lines where two of them touch."
    )


def draw_samples(dataset, count=5):
    """After the paper's Figure 2: images, and below them their masks merged into one label image.

    Args:
        dataset: :class:`~nucleus_course.data.Dataset`, or a list of records, which are all shown.
        count: how many; image types alternate, each starting with the image nearest to its median count.
    """
    whole = hasattr(dataset, "types")
    records = [dataset[i] for i in _one_of_each(dataset, count)] if whole else dataset
    figure, axes = style.panels(2 * len(records), len(records), side=2.4, ratio=1.14)
    for above, below, record in zip(axes, axes[len(records) :], records):
        style.picture(
            above, style.stretch(record.image), f"{style.short(record.id)}\n{record.type}"
        )
        style.picture(below, style.filled(record.labels), _nuclei(record.count))
        below.set_xlabel(_size(record), fontsize=style.TEXT)
    listed = "; ".join(f"{style.short(r.id)}, {r.type}, {_nuclei(r.count)}" for r in records)
    caption = f"Top, images; below, their masks merged into one label image: {listed}."
    return style.signed(figure, caption, getattr(dataset, "synthetic", False))


def _size(record):
    return f"{record.labels.shape[1]} x {record.labels.shape[0]} pixels"


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


def draw_record(record, show="outlines"):
    """One image for the browser: ``show`` is image, outlines, masks or boxes."""
    figure, (axis,) = style.panels(1, 1, side=6.4)
    title = f"{record.type}, {record.height} x {record.width}, {_nuclei(record.count)}"
    style.picture(
        axis, style.filled(record.labels) if show == "masks" else style.stretch(record.image), title
    )
    if show == "outlines":
        style.outline(axis, record.labels, dashed=False)
    elif show == "boxes":
        style.draw_boxes(axis, record.boxes, style.TRUTH)
    area = f", median area {np.median(record.areas):.0f} pixels" if record.count else ""
    return figure, f"Image {style.short(record.id)}: {title}{area}. Shown: {show}."


def draw_augmentations(record, views):
    """The original and its augmented views with outlines; ``views`` is a list of (image, labels)."""
    figure, axes = style.panels(1 + len(views), 4, side=3.0)
    shown = [("original", record.image, record.labels)]
    shown += [(f"view {n}", *view) for n, view in enumerate(views, start=1)]
    for axis, (name, image, labels) in zip(axes, shown):
        style.picture(axis, style.stretch(image), f"{name}\n{_nuclei(count_labels(labels))}")
        style.outline(axis, labels, dashed=False)
    counts = ", ".join(str(count_labels(labels)) for _, labels in views)
    return figure, (
        f"One image and {len(views)} augmented views of it. The outlines move with the pixels; "
        f"cropping leaves {counts} of {_nuclei(record.count)} in view."
    )


def draw_found(images, labels):
    """Images (uint8 RGB, by name) with the outlines of what was detected in each."""
    figure, axes = style.panels(len(images), min(2, len(images)), side=5.2)
    for axis, (name, image) in zip(axes, images.items()):
        found = pluralize(count_labels(labels[name]), "detection")
        style.picture(axis, image, f"{name}: {found}")
        style.outline(axis, labels[name], style.FOUND)
    listed = ", ".join(f"{count_labels(labels[name])} in {name!r}" for name in images)
    return figure, f"Detections outlined in light blue: {listed}."


def sort_out(truth, found):
    """Which nuclei and detections match at IoU above 0.5.

    Args:
        truth, found: (H, W) label images with labels 1..n.

    Returns:
        (matched nuclei, missed nuclei, matched detections, spurious detections), arrays of labels.
    """
    iou = iou_from_overlap(overlap_matrix(found, truth))
    detection, nucleus = pairs_above(iou, 0.5)
    rest = [
        np.setdiff1d(np.arange(n) + 1, match + 1)
        for n, match in zip(iou.shape, (detection, nucleus))
    ]
    return nucleus + 1, rest[1], detection + 1, rest[0]


def draw_detections(record, detections, *, mark=False, what="detections", synthetic=False):
    """The image; below it the annotation and the detections side by side.

    Args:
        record: :class:`~nucleus_course.data.Record`.
        detections: a model's detections (at their operating point), or a label image (H, W).
        mark: show by colour which nuclei and detections match at IoU above 0.5.
        what: name of the detections.
    """
    if hasattr(detections, "label_image"):
        detections = detections.label_image()
    truth, labels = renumber(record.labels), renumber(detections)
    matched, missed, right, wrong = sort_out(truth, labels)
    found = len(right) + len(wrong)
    figure, axes = style.panels(4, 2, side=5.2, ratio=_ratio(record))
    axes.pop(1).set_visible(False)  # so that annotation and detections are in one row
    words = (f"{style.short(record.id)}: {record.type}", f"annotation: {_nuclei(record.count)}", f"{what}: {found}")  # fmt: skip
    for axis, title in zip(axes, words):
        style.picture(axis, style.stretch(record.image), title)
    axes[0].set_xlabel(_size(record), fontsize=style.TEXT)
    if not mark:
        style.outline(axes[1], truth, style.TRUTH)
        style.outline(axes[2], labels, style.FOUND)
        return style.signed(figure, (
            f"Image {style.short(record.id)} ({record.type}) with {_nuclei(record.count)} in the annotation (dashed orange outlines, "
            f"lower left) and {found} {what} (light blue outlines, lower right)."
        ), synthetic)  # fmt: skip
    axes[1].set_xlabel(f"{len(missed)} missed", fontsize=style.TEXT)
    axes[2].set_xlabel(f"{len(wrong)} spurious", fontsize=style.TEXT)
    for axis, image, good, bad, colour in (
        (axes[1], truth, matched, missed, style.TRUTH),
        (axes[2], labels, right, wrong, style.VERMILION),
    ):
        style.outline(axis, image, style.GREEN, good)
        style.outline(axis, image, colour, bad, dashed=True)
    looks = {"matched (IoU > 0.5)": (style.GREEN, "-"), "nucleus missed": (style.TRUTH, "--"), "detection spurious": (style.VERMILION, "--")}  # fmt: skip
    _legend(figure, looks)
    caption = (
        f"Image {style.short(record.id)} ({record.type}): {_nuclei(record.count)}, {len(right)} of them found with an IoU above 0.5 (green), "
        f"{len(missed)} missed (dashed orange, lower left); {len(wrong)} of {found} {what} match no nucleus (dashed vermilion, lower right)."
    )
    return style.signed(figure, caption, synthetic)


def draw_error_map(record, analysis, predictions):
    """One image with every error in the colour of its class.

    Args:
        record: :class:`~nucleus_course.data.Record` of the image.
        analysis: :class:`~nucleus_course.evaluation.ErrorAnalysis` that covers it.
        predictions: the :class:`~nucleus_course.prediction.interchange.Predictions` that were analysed.

    Returns:
        (Figure, caption): left the nuclei, right the detections at the operating point. Each error has its
        class's colour and, unless there are too many to read, its letter.
    """
    point, image = analysis.report.operating_point, style.stretch(record.image)
    truth = renumber(record.labels)
    found = np.zeros_like(truth)
    if record.id in predictions.images:
        detected = predictions.images[record.id]
        found = detected.label_image(point["score_threshold"], point["min_area"])
    figure, axes = style.panels(2, 2, side=5.2, ratio=_ratio(record))
    seen, said = [], []
    for axis, labels, table, what in (
        (axes[0], truth, analysis.nuclei, "nuclei"),
        (axes[1], found, analysis.detections, "detections"),
    ):
        here = np.flatnonzero(np.asarray(table["image"]) == record.id)
        style.picture(axis, image, f"{len(here)} {what}")
        rows = {n: here[table["class"][here] == i] for i, n in enumerate(CLASSES)}
        rows = {name: own for name, own in rows.items() if len(own)}
        for name, own in rows.items():
            style.outline(
                axis, labels, style.CLASS_COLOURS[name], table["label"][own], dashed=False
            )
        wrong = {name: own for name, own in rows.items() if name in style.CLASS_LETTERS}
        if sum(map(len, wrong.values())) <= MOST_LETTERS:
            _letters(axis, table["box"], wrong)
        axis.set_xlabel(_size(record), fontsize=style.TEXT)
        seen += [name for name in rows if name not in seen]
        listed = ", ".join(f"{len(own)} {name}" for name, own in rows.items()) or "none"
        said.append(f"{len(here)} {what}: {listed}")
    entries = {f"{style.CLASS_LETTERS.get(n, '')}  {n}".strip(): (style.CLASS_COLOURS[n], "-") for n in CLASSES if n in seen}  # fmt: skip
    _legend(figure, entries or {"nothing there": (style.GREY, "-")})
    score = analysis.report.images.get(record.id, {}).get("dsb_score")
    scored = f", dsb_score {score:.1f}" if score is not None else ""
    caption = f"Errors on {style.short(record.id)} ({record.type}){scored}. Left, {said[0]}. Right, {said[1]}."
    return style.signed(figure, caption, analysis.report.synthetic)


def _letters(axis, boxes, rows):
    for name, own in rows.items():
        look = {
            "boxstyle": "round,pad=0.1",
            "fc": style.CLASS_COLOURS[name],
            "ec": "black",
            "lw": 0.5,
        }
        for top, left, bottom, right in boxes[own]:
            place = ((left + right - 1) / 2, (top + bottom - 1) / 2)
            axis.text(*place, style.CLASS_LETTERS[name], fontsize=style.TEXT, ha="center", va="center", bbox=look)  # fmt: skip


def draw_case(image, truth, found, box, title, margin=14, around=None):
    """One error close up: image, annotation, detection, and the difference of the two.

    Args:
        image: (H, W, 3) uint8.
        truth, found: (H, W) bool masks of the nucleus and the detection concerned; either may be empty.
        box: (y1, x1, y2, x2), the centre of the crop, pixels.
        around: label images (H, W) of all nuclei and all detections, to outline neighbours.
    """
    height, width = truth.shape
    y1, x1, y2, x2 = (int(round(float(v))) for v in box)
    rows = slice(max(y1 - margin, 0), min(y2 + margin, height))
    columns = slice(max(x1 - margin, 0), min(x2 + margin, width))
    crop = style.stretch(image[rows, columns])
    truth, found = truth[rows, columns], found[rows, columns]
    figure, axes = style.panels(4, 4, side=3.2, ratio=1.1)
    for axis, name in zip(axes, ("the image", "annotation", "detection")):
        style.picture(axis, crop, name)
    for axis, labels in zip(axes[1:], around or ()):
        style.outline(axis, labels[rows, columns], NEIGHBOUR)
    style.outline(axes[1], truth.astype(int), style.TRUTH)
    style.outline(axes[2], found.astype(int), style.FOUND)
    style.picture(
        axes[3],
        style.difference(truth, found),
        "white: both, striped: missed\nlight blue: too much",
    )
    shared, either = int((truth & found).sum()), int((truth | found).sum())
    return figure, (
        f"{title}. The annotation covers {pluralize(int(truth.sum()), 'pixel')} here, the detection {found.sum()}, "
        f"{shared} of them shared: IoU {shared / max(either, 1):.2f}."
    )


def _ratio(record):
    """Height of a panel over its width, with room for titles and legend."""
    height, width = record.labels.shape
    return min(2.0, height / width + 0.2)


def _legend(figure, entries):
    handles = [
        Line2D([], [], color=colour, linestyle=style, linewidth=3, label=name)
        for name, (colour, style) in entries.items()
    ]
    place = {"loc": "outside lower center", "ncols": min(4, len(handles))}
    figure.legend(handles=handles, fontsize=style.TEXT, frameon=False, **place)
