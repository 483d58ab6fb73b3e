"""Change the score, NMS and mask thresholds and see counts, precision and recall, without the network."""

import dataclasses

import numpy as np

from nucleus_course.course.explorers.base import Control, Explorer
from nucleus_course.evaluation.matching import score_order_match
from nucleus_course.figures import draw_operating_point
from nucleus_course.geometry.boxes import greedy_nms

RESCORED, PLAIN = "rescored", "class probabilities"


def collect_candidates(model, image, limit: int = 400, min_score: float = 0.05):
    """The boxes with a score of at least ``min_score`` before the final NMS, each with its mask grid.

    Runs the network once. Returns :class:`nucleus_course.Detections` by falling score, with many
    overlapping boxes, from which the thresholds select. If the model has a rescorer, the scores here are
    class probabilities, and :class:`ThresholdExplorer` applies ``model.rescorer`` after NMS.
    """
    from nucleus_course.prediction.pipeline import assemble, prepare

    prepared = prepare(image, model.config)
    pyramid, boxes, scores = model.engine.candidates(prepared)
    boxes, scores = boxes[0], scores[0]  # of one view
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    good = np.flatnonzero((scores >= min_score) & (sides >= 1.0))[:limit]
    boxes, scores = boxes[good], scores[good]
    masks = model.engine.masks(pyramid, boxes, prepared)
    if model.rescorer is None:
        return assemble(model.config, prepared.shape, boxes, scores, masks, model.thresholds)
    keep = {"rescorer": lambda boxes, scores, masks: scores}  # rescored after NMS
    return assemble(model.config, prepared.shape, boxes, scores, masks, model.thresholds, **keep)


class ThresholdExplorer(Explorer):
    """One image, its candidates, three sliders, and with a rescorer a fourth control.

    Args:
        record: the image with its truth.
        candidates: from :func:`collect_candidates`.
        thresholds: the sliders' initial values (``model.thresholds``).
        rescorer: ``model.rescorer``, or None.
        upsample: network pixels per image pixel (``model.config.upsample``), for the rescorer.
    """

    title = "Threshold explorer"

    def __init__(self, record, candidates, thresholds, rescorer=None, upsample=1.0):
        self.record, self.candidates = record, candidates
        self.rescorer, self.upsample = rescorer, upsample
        self.sizes = np.bincount(record.labels.ravel(), minlength=record.count + 1)[1:]

        def near(value, step=0.05):
            return float(np.clip(round(round(value / step) * step, 2), 0.05, 0.95))

        self._kept, self._kept_for = None, None

        def slider(label, value, help):
            return Control("number", label, near(value), low=0.05, high=0.95, help=help)

        controls = {
            "score": slider("Score threshold", thresholds.score, "detections below it are dropped"),
            "nms": slider(
                "NMS IoU",
                thresholds.nms_iou,
                "of two boxes that overlap more than this the lower score goes",
            ),
            "mask": slider(
                "Mask threshold",
                thresholds.mask,
                "probability from which a pixel belongs to the mask",
            ),
        }
        if rescorer is not None:
            controls["rescoring"] = Control(
                "choice",
                "Scores",
                RESCORED,
                options=(RESCORED, PLAIN),
                help="with plain scores a copy of a nucleus may score as high as the best detection",
            )
        super().__init__(controls)

    def _after(self, nms: float, mask: float, rescoring: str = RESCORED):
        """(Detections, hits (D,) bool) after NMS and mask threshold; kept while only the score threshold changes."""
        if self._kept_for != (nms, mask, rescoring):
            boxes, scores = self.candidates.boxes, self.candidates.scores
            kept = self.candidates.take(greedy_nms(boxes, scores, nms))
            if self.rescorer is not None and rescoring == RESCORED:
                kept = self._rescored(kept)
            kept.thresholds = dataclasses.replace(kept.thresholds, mask=mask)
            instance, row, column = kept.pixels()
            nuclei = self.record.count
            pairs = np.bincount(
                instance * (nuclei + 1) + self.record.labels[row, column],
                minlength=len(kept) * (nuclei + 1),
            )
            shared = pairs.reshape(len(kept), nuclei + 1)
            areas = shared.sum(axis=1, keepdims=True)
            iou = shared[:, 1:] / np.maximum(areas + self.sizes[None] - shared[:, 1:], 1)
            hits = score_order_match(iou, 0.5)[0] >= 0
            self._kept, self._kept_for = (kept, hits), (nms, mask, rescoring)
        return self._kept

    def _rescored(self, found):
        found.scores = self.rescorer(found.boxes * self.upsample, found.scores, found.mask_probs)
        return found.take(np.argsort(-found.scores, kind="stable"))

    def _draw(self, score, nms, mask, rescoring=RESCORED):
        kept, hits = self._after(nms, mask, rescoring)
        matched = np.cumsum(hits)
        recall = matched / max(self.record.count, 1)
        precision = matched / np.arange(1, len(hits) + 1)
        found = int((kept.scores >= score).sum())
        right = int(matched[found - 1]) if found else 0
        point = (right / max(self.record.count, 1), right / found if found else 0.0)
        counts = {
            "found": found,
            "matched": right,
            "spurious": found - right,
            "missed": self.record.count - right,
            "nuclei": self.record.count,
        }
        settings = f"Score {score:.2f}, NMS IoU {nms:.2f}, mask {mask:.2f}"
        if self.rescorer is not None:
            settings += f", scores {rescoring}"
        labels = kept.label_image(score_threshold=score, min_area=0)
        return draw_operating_point(
            self.record.image,
            labels,
            self.record.labels,
            (recall, precision),
            point,
            settings,
            counts,
        )
