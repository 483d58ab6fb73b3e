"""Look at anchors and proposals, level by level."""

import numpy as np

from nucleus_course.course.explorers.base import Control, Explorer
from nucleus_course.figures import draw_proposals
from nucleus_course.geometry.boxes import decode

ALL = "all levels"
KINDS = ("anchors with the best scores", "anchors moved by the RPN", "proposals after NMS")


class AnchorExplorer(Explorer):
    """Anchors and proposals of one traced image.

    Args:
        trace: what ``model.trace(image)`` returned.
        config: the model's configuration (``model.config``).
        truth: (G, 4) boxes of the nuclei, image pixels.
    """

    title = "Anchor and proposal explorer"

    def __init__(self, trace, config, truth):
        from nucleus_course.models.mask_rcnn.anchors import level_shapes

        self.image, self.truth = trace["image"], np.asarray(truth)
        scale = 1.0 / config.upsample
        shapes = level_shapes(*trace["input"].shape[:2], config.strides)
        level = np.repeat(
            np.arange(len(shapes)), [r * c * len(config.anchor_ratios) for r, c in shapes]
        )
        anchors = trace["anchors"]
        decoded = decode(trace["rpn_deltas"], anchors, config.box_stds)
        centre = 0.5 * (anchors[:, :2] + anchors[:, 2:])
        real = (centre < np.asarray(trace["window"])).all(axis=1)
        names = [
            f"P{2 + n}, stride {s}, anchors of {a:g}"
            for n, (s, a) in enumerate(zip(config.strides, config.anchor_sizes))
        ]
        self.sets = {
            KINDS[0]: self._sorted(anchors[real] * scale, trace["rpn_scores"][real], level[real]),
            KINDS[1]: self._sorted(decoded[real] * scale, trace["rpn_scores"][real], level[real]),
            KINDS[2]: self._sorted(
                trace["proposals"] * scale,
                trace["proposal_scores"],
                np.full(len(trace["proposals"]), -1),
            ),
        }
        self.levels = {ALL: None, **{name: number for number, name in enumerate(names)}}
        super().__init__(
            {
                "kind": Control("choice", "Boxes", KINDS[1], options=KINDS),
                "level": Control("choice", "Pyramid level", ALL, options=tuple(self.levels)),
                "shown": Control("whole", "Boxes shown", 100, low=0, high=400, step=20),
            }
        )

    @staticmethod
    def _sorted(boxes, scores, level):
        order = np.argsort(-scores, kind="stable")
        return boxes[order], scores[order], level[order]

    def _draw(self, kind, level, shown):
        boxes, scores, levels = self.sets[kind]
        number = self.levels[level]
        if number is not None and kind != KINDS[2]:
            here = levels == number
            boxes, scores = boxes[here], scores[here]
        name = level.split(",")[0] if kind != KINDS[2] else ALL
        return draw_proposals(
            self.image,
            boxes,
            scores,
            self.truth,
            level=name,
            shown=shown,
            what=kind.split(" with")[0],
        )
