"""Slow versions of the metrics from boolean masks, written from their definitions; and pycocotools itself."""

import contextlib
import io
from fractions import Fraction

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.optimize import linear_sum_assignment


def exact_iou(a, b):
    """IoU of two bool masks as a fraction, so that comparisons with a threshold are exact."""
    union = int(np.logical_or(a, b).sum())
    return Fraction(int(np.logical_and(a, b).sum()), union) if union else Fraction(0)


def nuclei_of(labels):
    return [labels == i for i in np.unique(labels) if i]


def pycocotools_ap(dataset, predictions, max_detections=1000):
    """(ap, ap50, ap75) in percent from COCO, loadRes, evaluate and accumulate."""
    images, annotations, results = [], [], []
    for number, key in enumerate(dataset.ids, start=1):
        labels = dataset[key].labels
        images.append({"id": number, "height": labels.shape[0], "width": labels.shape[1]})
        for mask in nuclei_of(labels):
            rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0,
                                "segmentation": rle, "area": int(mask.sum())})  # fmt: skip
        found = predictions.images.get(key)
        if found is not None:
            for rle, score in zip(found.rles, found.scores):
                results.append(
                    {
                        "image_id": number,
                        "category_id": 1,
                        "segmentation": rle,
                        "score": float(score),
                    }
                )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": images,
            "categories": [{"id": 1}],
            "annotations": annotations,
        }
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "segm")
        evaluator.params.maxDets = [1, 10, max_detections]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, 0, 0, 2]  # (10, 101); 0: all areas
    return 100 * precision.mean(), 100 * precision[0].mean(), 100 * precision[5].mean()


def painted(masks, scores, shape, threshold, min_area=0):
    """The operating point as a list of disjoint masks, pixel by pixel."""
    kept = [(s, m) for m, s in zip(masks, scores) if s >= threshold]
    owner = np.full(shape, -1)
    for row in range(shape[0]):
        for column in range(shape[1]):
            best = None
            for i, (score, mask) in enumerate(kept):
                if mask[row, column] and (best is None or score > best):
                    best = score
                    owner[row, column] = i
    pieces = [owner == i for i in range(len(kept))]
    return [p for p in pieces if p.sum() >= max(1, min_area)]


def matterport_ap(masks, scores, nuclei):
    """compute_ap of Matterport's utils.py at IoU 0.5, step by step; None without nuclei."""
    if not nuclei:
        return None
    order = sorted(range(len(masks)), key=lambda i: -scores[i])
    taken, hits = set(), []
    for i in order:
        options = sorted(((exact_iou(masks[i], n), j) for j, n in enumerate(nuclei)), reverse=True)
        hit = False
        for value, j in options:
            if value < Fraction(1, 2):
                break
            if j not in taken:
                taken.add(j)
                hit = True
                break
        hits.append(hit)
    precision = [0.0] + [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))] + [0.0]
    recall = [0.0] + [sum(hits[: k + 1]) / len(nuclei) for k in range(len(hits))] + [1.0]
    for k in range(len(precision) - 2, -1, -1):
        precision[k] = max(precision[k], precision[k + 1])
    return sum(
        (recall[k] - recall[k - 1]) * precision[k]
        for k in range(1, len(recall))
        if recall[k] != recall[k - 1]
    )


def operating_point_metrics(truth, pieces):
    """Metrics at the operating point from {id: nuclei masks} and {id: disjoint detection masks}, in percent."""
    thresholds = [Fraction(t, 100) for t in range(50, 100, 5)]
    dsb, foreground, paired, good = [], [], [], []
    nuclei_count = tp50 = fp50 = fn50 = tp70 = fp70 = fn70 = 0
    close = 0.0
    shared_total = union_total = 0
    for key, nuclei in truth.items():
        found = pieces[key]
        iou = [[exact_iou(d, n) for n in nuclei] for d in found]
        nuclei_count += len(nuclei)

        def true_positives(t):
            matched = [
                (i, j) for i in range(len(found)) for j in range(len(nuclei)) if iou[i][j] > t
            ]
            assert len({i for i, _ in matched}) == len({j for _, j in matched}) == len(matched)
            return len(matched)

        values = []
        for t in thresholds:
            tp = true_positives(t)
            total = len(found) + len(nuclei) - tp
            values.append(tp / total if total else 1.0)
        dsb.append(np.mean(values))
        a = true_positives(Fraction(1, 2))
        tp50, fp50, fn50 = tp50 + a, fp50 + len(found) - a, fn50 + len(nuclei) - a
        a = true_positives(Fraction(7, 10))
        tp70, fp70, fn70 = tp70 + a, fp70 + len(found) - a, fn70 + len(nuclei) - a
        close += sum(float(v) for row in iou for v in row if v > Fraction(1, 2))

        shape = (found + nuclei)[0].shape if found + nuclei else (1, 1)
        everything = [np.any(m, axis=0) if m else np.zeros(shape, bool) for m in (found, nuclei)]
        union = np.logical_or(*everything).sum()
        foreground.append(np.logical_and(*everything).sum() / union if union else 1.0)

        if found and nuclei:
            table = np.array([[float(v) for v in row] for row in iou])
            for i, j in zip(*linear_sum_assignment(-table)):
                paired.append(table[i, j])
                if table[i, j] > 0.5:
                    good.append(table[i, j])

        used = set()
        for j, nucleus in enumerate(nuclei):  # Kumar et al. 2017, algorithm 1
            best = max(range(len(found)), key=lambda i: iou[i][j]) if found else None
            if best is None or iou[best][j] == 0:
                union_total += nucleus.sum()
                continue
            shared_total += np.logical_and(found[best], nucleus).sum()
            union_total += np.logical_or(found[best], nucleus).sum()
            used.add(best)
        union_total += sum(found[i].sum() for i in range(len(found)) if i not in used)
    return {
        "mean_mask_iou": 100 * sum(paired) / nuclei_count,
        "matched_mask_iou": 100 * np.mean(good),
        "foreground_iou": 100 * np.mean(foreground),
        "dsb_score": 100 * np.mean(dsb),
        "f1_50": 100 * tp50 / (tp50 + 0.5 * fp50 + 0.5 * fn50),
        "f1_70": 100 * tp70 / (tp70 + 0.5 * fp70 + 0.5 * fn70),
        "pq": 100 * close / (tp50 + 0.5 * fp50 + 0.5 * fn50),
        "aji": 100 * shared_total / union_total,
    }
