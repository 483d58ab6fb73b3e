"""The targets of one training step for one image, as NumPy arrays: for notebook 2."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepTargets:
    """Boxes are in network pixels, (y1, x1, y2, x2) float32.

    Attributes:
        anchors: (n, 4), those sampled for this step; anchor_labels: (n,) bool, True for positive.
        rois: (m, 4), those sampled for this step; roi_labels: (m,) bool.
        masks: (k, S, S) float32 in [0, 1], the mask targets of the positive RoIs.
    """

    anchors: np.ndarray
    anchor_labels: np.ndarray
    rois: np.ndarray
    roi_labels: np.ndarray
    masks: np.ndarray


def step_targets(trace, record, config, seed: int = 2018) -> StepTargets:
    """The library's own targets for a traced image: :class:`StepTargets`.

    Args:
        trace: from :meth:`nucleus_course.MaskRCNN.trace`; record: the image's, with labels.
        config: the model's; seed: for the sampling.

    Example:
        >>> targets = step_targets(model.trace(record.image), record, model.config)  # doctest: +SKIP
    """
    import keras
    from keras import ops

    from nucleus_course.models.mask_rcnn.targets import mask_targets, roi_targets, rpn_targets

    scale = int(config.upsample)
    labels = np.zeros((1, *trace.input.shape[:2]), "int32")
    larger = record.labels.repeat(scale, 0).repeat(scale, 1)
    labels[0, : larger.shape[0], : larger.shape[1]] = larger
    boxes = ops.convert_to_tensor(record.boxes[None].astype("float32") * scale)
    ids = ops.convert_to_tensor(np.arange(1, record.count + 1, dtype="int32")[None])
    draw = keras.random.SeedGenerator(seed)
    asked = rpn_targets(trace.anchors, boxes, ids, labels, config, draw)
    asked = {name: ops.convert_to_numpy(value)[0] for name, value in asked.items()}
    valid = np.ones((1, len(trace.proposals)), bool)
    rois = roi_targets(trace.proposals[None], valid, boxes, ids, labels, config, draw)
    rois = {name: ops.convert_to_numpy(value)[0] for name, value in rois.items()}
    used, real = asked["weight"] > 0, rois["weight"] > 0
    positive = rois["ids"] > 0
    masks = mask_targets(
        ops.convert_to_tensor(labels),
        ops.convert_to_tensor(rois["boxes"][positive]),
        ops.zeros(int(positive.sum()), "int32"),
        ops.convert_to_tensor(rois["ids"][positive]),
        config,
    )
    return StepTargets(
        trace.anchors[asked["index"][used]],
        asked["label"][used] > 0,
        rois["boxes"][real],
        rois["label"][real] > 0,
        ops.convert_to_numpy(masks),
    )
