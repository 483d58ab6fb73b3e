"""The metrics of the protocol, each defined once.

Every metric but COCO's is a function of sums over images. So an image is reduced to one row of numbers
(:data:`COLUMNS`), from which :func:`values_from_sums` computes the metrics of an image, a type, the data
set or ten thousand bootstrap samples. docs/metrics.md states the definitions and the rules for empty images.
"""

from dataclasses import dataclass

import numpy as np

from nucleus_course.evaluation.matching import best_assignment, iou_from_overlap

# Exact decimals, not sums of 0.05: an IoU of 7/10 must not be above 0.7.
IOU_THRESHOLDS = np.arange(50, 100, 5) / 100

DEFINITIONS_VERSION = 1  # raise it when a metric in an old report would change


@dataclass(frozen=True)
class Metric:
    """A metric's key in reports, a short label for tables, and a description in one line."""

    key: str
    label: str
    about: str


METRICS = (
    Metric("coco_ap", "COCO AP", "mean over IoU 0.50:0.05:0.95"),
    Metric("coco_ap50", "COCO AP50", "at IoU 0.50"),
    Metric("coco_ap75", "COCO AP75", "at IoU 0.75"),
    Metric("coco_ap_maxdets100", "COCO AP, 100 dets", "at most 100 detections an image"),
    Metric("mean_mask_iou", "mean mask IoU", "over nuclei, paired one to one"),
    Metric("matched_mask_iou", "matched mask IoU", "over those pairs above 0.5"),
    Metric("foreground_iou", "foreground IoU", "all nuclei as one, mean over images"),
    Metric("dsb_score", "DSB score", "TP/(TP+FP+FN), IoU > 0.50 ... 0.95"),
    Metric("matterport_ap", "Matterport AP", "AP at IoU 0.50, mean over images"),
    Metric("f1_50", "F1 at 0.50", "IoU > 0.5, pooled"),
    Metric("f1_70", "F1 at 0.70", "IoU > 0.7, pooled"),
    Metric("pq", "PQ", "panoptic quality, pooled"),
    Metric("aji", "AJI", "aggregated Jaccard index, pooled"),
)
KEYS = tuple(m.key for m in METRICS)
COCO_KEYS = KEYS[:4]
POINT_KEYS = tuple(k for k in KEYS[4:] if k != "matterport_ap")  # those of the operating point

TP_COLUMNS = tuple(f"tp_{round(100 * t)}" for t in IOU_THRESHOLDS)
COLUMNS = (
    "images",
    "nuclei",
    "detections",  # at the operating point
    *TP_COLUMNS,
    "close_iou",  # sum of the IoUs above 0.5
    "paired_iou",  # sum of the IoUs of the best assignment
    "good_pairs",  # pairs of the best assignment above 0.5
    "good_iou",  # and the sum of their IoUs
    "foreground_iou",  # the image's own value, a fraction
    "dsb_score",  # the image's own value, a fraction
    "aji_shared",
    "aji_union",
    "matterport_ap",  # the image's own value, a fraction; 0 if undefined
    "matterport_images",  # 1 if it is defined
)
_AT = {name: i for i, name in enumerate(COLUMNS)}


def column(table, name):
    """The column ``name`` of an array (..., len(COLUMNS))."""
    return table[..., _AT[name]]


def ratio(part, whole):
    """part / whole; 0 / 0 is 1, because two empty sets agree.

    >>> ratio([1, 0, 0], [2, 3, 0])
    array([0.5, 0. , 1. ])
    """
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.ones(np.broadcast(part, whole).shape), where=whole > 0)


def _mean(total, count):
    """total / count; the mean of nothing is NaN."""
    total, count = np.asarray(total, np.float64), np.asarray(count, np.float64)
    return np.divide(
        total, count, out=np.full(np.broadcast(total, count).shape, np.nan), where=count > 0
    )


def aggregated_jaccard(overlap):
    """Shared pixels and union of the aggregated Jaccard index.

    Kumar et al. 2017, algorithm 1: every nucleus takes the detection with the largest IoU (among equals the one that
    shares most pixels, so that order does not count; a detection may be taken twice). Detections that are not taken add their area to the union, as do nuclei
    without a detection.

    Args:
        overlap: (D + 1, G + 1) from :func:`~nucleus_course.evaluation.matching.overlap_matrix`.

    Returns:
        (shared, union), pixels; the index is shared / union.

    >>> from nucleus_course.evaluation.matching import overlap_matrix
    >>> aggregated_jaccard(overlap_matrix(np.array([[1, 1, 2, 0]]), np.array([[1, 1, 1, 0]])))
    (2, 4)
    """
    iou = iou_from_overlap(overlap)
    detected, nuclei = overlap[1:].sum(1), overlap[:, 1:].sum(0)
    if not iou.size:
        return 0, int(detected.sum() + nuclei.sum())
    best = np.where(iou == iou.max(0), overlap[1:, 1:], -1).argmax(0)
    column_of = np.arange(iou.shape[1])
    met = iou[best, column_of] > 0
    shared = overlap[1:, 1:][best, column_of] * met
    union = nuclei + np.where(met, detected[best] - shared, 0)
    unused = np.ones(iou.shape[0], bool)
    unused[best[met]] = False
    return int(shared.sum()), int(union.sum() + detected[unused].sum())


def matterport_average_precision(hits, nuclei):
    """AP of one image as Matterport's Mask_RCNN computes it (``mrcnn/utils.py``, ``compute_ap``).

    Area under the precision-recall steps, with precision made monotonic; matches at an IoU of 0.5 or more, detections in
    order of score, each nucleus matched once. (Early versions of that file could match a nucleus twice.)

    Args:
        hits: (D,) bool, detections in falling order of score.
        nuclei: how many the image holds.

    Returns:
        A fraction, or None without nuclei, where recall is undefined.

    >>> round(matterport_average_precision([True, False, True], nuclei=4), 3)
    0.417
    """
    if nuclei == 0:
        return None
    hits = np.asarray(hits, bool)
    precision = np.cumsum(hits) / np.arange(1, hits.size + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(envelope[hits].sum() / nuclei)


def image_sums(overlap, ap_hits=None, columns=None):
    """One image's row.

    Args:
        overlap: (D + 1, G + 1) pixels shared by the operating point's detections and the nuclei; labels without pixels
            do not count.
        ap_hits: (D',) bool, whether each detection, by falling score and without threshold, matched at IoU 0.5.
        columns: names of the columns needed; costly ones that are not among them stay 0.

    Returns:
        (len(COLUMNS),) float64.
    """
    overlap = _without_empty(np.asarray(overlap))
    wanted = set(COLUMNS if columns is None else columns)
    iou = iou_from_overlap(overlap)
    detections, nuclei = iou.shape
    row = np.zeros(len(COLUMNS))

    def put(name, value):
        row[_AT[name]] = value

    put("images", 1)
    put("nuclei", nuclei)
    put("detections", detections)
    close = iou[iou > 0.5]  # one to one: neither detections nor nuclei overlap among themselves
    true = (close[:, None] > IOU_THRESHOLDS).sum(0)
    row[_AT["tp_50"] : _AT["tp_95"] + 1] = true
    put("close_iou", close.sum())
    put("dsb_score", ratio(true, detections + nuclei - true).mean())
    shared = overlap[1:, 1:].sum()
    put("foreground_iou", ratio(shared, overlap.sum() - overlap[0, 0]))
    if wanted & {"paired_iou", "good_pairs", "good_iou"}:
        values = iou[best_assignment(iou)]
        put("paired_iou", values.sum())
        put("good_pairs", (values > 0.5).sum())
        put("good_iou", values[values > 0.5].sum())
    if wanted & {"aji_shared", "aji_union"}:
        part, whole = aggregated_jaccard(overlap)
        put("aji_shared", part)
        put("aji_union", whole)
    if ap_hits is not None:
        value = matterport_average_precision(ap_hits, nuclei)
        put("matterport_ap", value or 0.0)
        put("matterport_images", value is not None)
    return row


def _without_empty(overlap):
    rows, columns = overlap.sum(1) > 0, overlap.sum(0) > 0
    rows[0] = columns[0] = True
    return overlap if rows.all() and columns.all() else overlap[np.ix_(rows, columns)]


def values_from_sums(sums):
    """All metrics but COCO's, in percent, from sums of rows.

    Args:
        sums: (..., len(COLUMNS)), e.g. one row per image, their total, or one row per bootstrap sample.

    Returns:
        {key: (...,) float64}; NaN for the mean of nothing.

    >>> from nucleus_course.evaluation.matching import overlap_matrix
    >>> found, truth = np.array([[1, 1, 0, 2]]), np.array([[1, 1, 1, 0]])
    >>> values = values_from_sums(image_sums(overlap_matrix(found, truth)))
    >>> [(key, round(float(values[key]), 1)) for key in ("f1_50", "mean_mask_iou", "pq", "aji")]
    [('f1_50', 66.7), ('mean_mask_iou', 66.7), ('pq', 44.4), ('aji', 50.0)]
    """
    get = {name: column(sums, name) for name in COLUMNS}
    objects = get["detections"] + get["nuclei"]
    values = {
        "mean_mask_iou": _mean(get["paired_iou"], get["nuclei"]),
        "matched_mask_iou": _mean(get["good_iou"], get["good_pairs"]),
        "foreground_iou": _mean(get["foreground_iou"], get["images"]),
        "dsb_score": _mean(get["dsb_score"], get["images"]),
        "matterport_ap": _mean(get["matterport_ap"], get["matterport_images"]),
        "f1_50": ratio(2 * get["tp_50"], objects),
        "f1_70": ratio(2 * get["tp_70"], objects),
        "pq": ratio(2 * get["close_iou"], objects),
        "aji": ratio(get["aji_shared"], get["aji_union"]),
    }
    return {key: 100.0 * value for key, value in values.items()}
