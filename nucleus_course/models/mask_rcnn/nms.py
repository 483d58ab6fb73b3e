"""Non-maximum suppression, exact and vectorised."""

from keras import ops

from nucleus_course.geometry.boxes import iou_matrix


def nms_keep(boxes, valid, iou_threshold):
    """Which boxes greedy non-maximum suppression keeps, boxes sorted by falling score.

    Greedy NMS keeps a box if no kept box before it overlaps it by more than the threshold. That is the
    only fixed point of ``keep[j] = valid[j] and not any(keep[i] and iou[i, j] > t for i < j)``, and
    iterating the rule from ``keep = valid`` reaches it: after round k the first k links of every chain of
    suppressions are final ("cluster NMS", Zheng et al. 2020). A single round is *not* NMS, because boxes
    that are suppressed themselves would still suppress others.

    Args:
        boxes: (..., K, 4) float32, sorted by falling score along K.
        valid: (..., K) bool, False for padding.
        iou_threshold: number; boxes that overlap a kept one by more than this are removed.

    Returns:
        (..., K) bool, without gradients.
    """
    boxes = ops.stop_gradient(boxes)
    count = boxes.shape[-2]
    order = ops.arange(count, dtype="int32")
    earlier = order[:, None] < order[None, :]
    suppresses = ops.cast(
        ops.logical_and(iou_matrix(boxes, boxes) > iou_threshold, earlier), "float32"
    )
    valid = ops.cast(valid, "float32")

    def changed(keep, before, turn):
        return ops.logical_and(turn < count + 1, ops.any(keep != before))

    def step(keep, before, turn):
        hit = ops.matmul(keep[..., None, :], suppresses)[..., 0, :]
        return ops.where(hit > 0.5, 0.0, valid), keep, turn + 1

    first = step(valid, valid, ops.zeros((), "int32"))
    keep, _, _ = ops.while_loop(changed, step, (first[0], valid, first[2]))
    return keep > 0.5
