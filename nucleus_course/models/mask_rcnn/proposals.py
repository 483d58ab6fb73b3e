"""The region proposal network (Ren et al. 2015), and proposals from its output."""

import keras
from keras import layers, ops

from nucleus_course.geometry.boxes import clip, decode
from nucleus_course.models.mask_rcnn.nms import nms_keep
from nucleus_course.models.mask_rcnn.pyramid import dtype_of


def build_rpn(config, dtype="float32"):
    """One pyramid level (B, h, w, C) -> logits (B, h * w * ratios, 2), deltas (B, h * w * ratios, 4).

    The same weights serve every level. Logits are (background, object). Both outputs are float32 even
    under a mixed policy: half precision is too coarse for coordinates.
    """
    ratios = len(config.anchor_ratios)
    feature = keras.Input((None, None, config.pyramid_channels), dtype=dtype_of(dtype))
    shared = layers.Conv2D(
        config.rpn_channels,
        3,
        padding="same",
        activation="relu",
        name="rpn_conv_shared",
        dtype=dtype,
    )(feature)
    logits = layers.Conv2D(2 * ratios, 1, name="rpn_class_raw", dtype="float32")(shared)
    deltas = layers.Conv2D(4 * ratios, 1, name="rpn_bbox_pred", dtype="float32")(shared)
    return keras.Model(feature, [logits, deltas], name="rpn_model")


def merge_levels(levels):
    """[(logits, deltas) of a level, …] with any inner axes -> logits (B, A, 2), deltas (B, A, 4)."""
    return tuple(
        ops.concatenate([ops.reshape(x, (x.shape[0], -1, last)) for x in part], axis=1)
        for part, last in zip(zip(*levels), (2, 4))
    )


def level_budget(anchors, limit):
    """How many of a level's anchors go into NMS: a sixteenth of them, at least 200, at most ``limit``.

    ``limit`` is ``pre_nms`` of :class:`~nucleus_course.config.ModelConfig`. The cost of NMS is quadratic in
    this number, and few of a large level's anchors are near a nucleus.
    """
    return min(anchors, limit, max(200, anchors // 16))


def propose(scores, deltas, anchors, level_sizes, window, *, stds, pre_nms, post_nms, nms_iou):
    """From scored and moved anchors to the proposals for the heads.

    On each level the best :func:`level_budget` boxes, at most ``pre_nms``, go through exact NMS; the survivors of
    all levels compete for ``post_nms`` places (as in the FPN paper; NMS over all levels at once is far more costly).

    Args:
        scores: (B, A) float32, objectness (logit difference).
        deltas: (B, A, 4) float32.
        anchors: (A, 4) float32, network pixels.
        level_sizes: anchors of each level, summing to A.
        window: (B, 2) float32, height and width of the image without padding.
        stds, pre_nms, post_nms, nms_iou: see :class:`~nucleus_course.config.ModelConfig`.

    Returns:
        boxes (B, P, 4) float32 sorted by falling score, scores (B, P), valid (B, P) bool; without gradients.
    """
    scores, deltas = ops.stop_gradient(scores), ops.stop_gradient(deltas)
    kept_boxes, kept_scores = [], []
    start = 0
    for size in level_sizes:
        level = slice(start, start + size)
        start += size
        best, index = ops.top_k(scores[:, level], level_budget(size, pre_nms))  # (B, K)
        chosen = ops.take_along_axis(deltas[:, level], index[..., None], axis=1)
        own = ops.take(ops.convert_to_tensor(anchors[level]), index, axis=0)  # (B, K, 4)
        boxes = decode(chosen, own, stds)
        centre = 0.5 * (own[..., :2] + own[..., 2:])
        real = ops.all(centre < window[:, None], axis=-1)
        boxes = clip(boxes, window[:, 0:1], window[:, 1:2])
        big = ops.all(boxes[..., 2:] - boxes[..., :2] >= 1.0, axis=-1)
        keep = nms_keep(boxes, ops.logical_and(real, big), nms_iou)
        kept_boxes.append(boxes)
        kept_scores.append(ops.where(keep, best, -1e9))
    boxes = ops.concatenate(kept_boxes, axis=1)
    scores = ops.concatenate(kept_scores, axis=1)
    scores, index = ops.top_k(scores, min(post_nms, scores.shape[1]))
    boxes = ops.take_along_axis(boxes, index[..., None], axis=1)
    valid = scores > -1e8
    return ops.where(valid[..., None], boxes, 0.0), scores, valid
