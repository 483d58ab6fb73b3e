"""Targets for the RPN, the box head and the mask head.

They are computed in the graph from boxes, ids and one int32 label map per image, with static shapes:
ground truth is padded to a fixed number of slots, and padding (id 0) is ignored. Label -1 marks nuclei
beyond the slots, which are neither objects nor background.
"""

import keras
from keras import ops

from nucleus_course.geometry.boxes import dilate, encode, iou_matrix
from nucleus_course.models.mask_rcnn.roi_align import sample_grid


def sample(mask, count, seed):
    """``count`` random True entries of each row, or all of them if there are fewer.

    Args:
        mask: (B, N) bool.
        count: how many, at most N.
        seed: a keras SeedGenerator.

    Returns:
        index (B, count) int32, chosen (B, count) bool: False if the row has no more.
    """
    noise = keras.random.uniform(ops.shape(mask), seed=seed)
    score, index = ops.top_k(ops.cast(mask, "float32") * (1.0 + noise), min(count, mask.shape[1]))
    return ops.cast(index, "int32"), score > 0.5


def _gather(values, index):
    """Rows of values (B, N, ...) at index (B, K) -> (B, K, ...)."""
    if len(values.shape) == 3:
        index = index[..., None]
    return ops.take_along_axis(values, index, axis=1)


def on_excluded(labels, boxes):
    """Whether a box's centre lies on a nucleus that is left out: labels (B, H, W), boxes (B, N, 4) -> (B, N)."""
    batch, height, width = labels.shape
    centre = ops.floor(0.5 * (boxes[..., :2] + boxes[..., 2:]))
    y = ops.cast(ops.clip(centre[..., 0], 0, height - 1), "int32")
    x = ops.cast(ops.clip(centre[..., 1], 0, width - 1), "int32")
    return ops.take_along_axis(ops.reshape(labels, (batch, -1)), y * width + x, axis=1) == -1


def rpn_targets(anchors, boxes, ids, labels, config, seed):
    """The sampled anchors that train the RPN, and their targets (Ren et al. 2015, section 3.1.2).

    An anchor is positive if it overlaps a nucleus by ``rpn_positive_iou``, or more than any other anchor
    does (so that every nucleus has one); negative if it overlaps all by less than ``rpn_negative_iou``.
    Up to half of ``rpn_anchors_per_image`` are positives, the rest negatives.

    Args:
        anchors: (A, 4) float32 constant.
        boxes: (B, G, 4) float32; ids: (B, G) int32, 0 for padding.
        labels: (B, H, W) int32.
        config: :class:`~nucleus_course.config.ModelConfig`.
        seed: a keras SeedGenerator.

    Returns:
        dict: ``index`` (B, n) int32 into the anchors, ``label`` (B, n) 1 or 0, ``weight`` (B, n) 0 for
        padding, ``deltas`` (B, n, 4), ``weight_box`` (B, n) 1 for positives.
    """
    anchors = ops.convert_to_tensor(anchors)
    iou = iou_matrix(anchors[None], boxes)  # (B, A, G); padding has empty boxes, so 0
    best = ops.max(iou, axis=2)
    match = ops.cast(ops.argmax(iou, axis=2), "int32")
    best_of_nucleus = ops.where(ids > 0, ops.max(iou, axis=1), 2.0)  # no IoU reaches 2
    forced = ops.any(iou >= ops.maximum(best_of_nucleus, 1e-3)[:, None, :], axis=2)
    positive = ops.logical_or(best >= config.rpn_positive_iou, forced)
    negative = ops.logical_and(best < config.rpn_negative_iou, ops.logical_not(positive))
    everywhere = ops.broadcast_to(anchors[None], (boxes.shape[0],) + tuple(anchors.shape))
    negative = ops.logical_and(negative, ops.logical_not(on_excluded(labels, everywhere)))

    total = config.rpn_anchors_per_image
    index_pos, is_pos = sample(positive, total // 2, seed)
    index_neg, is_neg = sample(negative, total, seed)
    room = total - ops.sum(ops.cast(is_pos, "int32"), axis=1, keepdims=True)
    is_neg = ops.logical_and(is_neg, ops.arange(index_neg.shape[1])[None] < room)

    index = ops.concatenate([index_pos, index_neg], axis=1)
    weight_box = ops.concatenate(
        [ops.cast(is_pos, "float32"), ops.zeros_like(index_neg, dtype="float32")], axis=1
    )
    target = _gather(boxes, _gather(match, index_pos))
    deltas = encode(target, ops.take(anchors, index_pos, axis=0), config.box_stds)
    deltas = ops.concatenate([deltas, ops.zeros(index_neg.shape + (4,), "float32")], axis=1)
    return {
        "index": index,
        "label": weight_box,
        "weight": weight_box + ops.concatenate([ops.zeros_like(index_pos, dtype="float32"), ops.cast(is_neg, "float32")], axis=1),
        "deltas": deltas,
        "weight_box": weight_box,
    }  # fmt: skip


def roi_targets(proposals, valid, boxes, ids, labels, config, seed):
    """The sampled RoIs that train the heads, and their targets (Mask R-CNN, section 3.1).

    Ground-truth boxes are added to the proposals, so that the heads see good boxes from the first step.
    RoIs at ``roi_positive_iou`` or more are positive, up to ``positive_rois`` of them; the rest of
    ``rois_per_image`` are negatives, also in images without nuclei.

    Args:
        proposals: (B, P, 4) float32; valid: (B, P) bool.
        boxes, ids, labels, config, seed: as in :func:`rpn_targets`.

    Returns:
        dict: ``boxes`` (B, R, 4), positives in the first ``positive_rois`` places; ``label`` (B, R) 1 or 0;
        ``weight`` (B, R) 0 for padding; ``deltas`` (B, R, 4); ``ids`` (B, R) int32 of the matched nucleus, 0
        for negatives and padding.
    """
    candidates = ops.stop_gradient(ops.concatenate([proposals, boxes], axis=1))
    valid = ops.concatenate([valid, ids > 0], axis=1)
    iou = iou_matrix(candidates, boxes)  # (B, P + G, G)
    best = ops.max(iou, axis=2)
    match = ops.cast(ops.argmax(iou, axis=2), "int32")
    positive = ops.logical_and(valid, best >= config.roi_positive_iou)
    negative = ops.logical_and(valid, best < config.roi_positive_iou)
    negative = ops.logical_and(negative, ops.logical_not(on_excluded(labels, candidates)))

    index_pos, is_pos = sample(positive, config.positive_rois, seed)
    index_neg, is_neg = sample(negative, config.rois_per_image, seed)
    room = config.rois_per_image - ops.sum(ops.cast(is_pos, "int32"), axis=1, keepdims=True)
    is_neg = ops.logical_and(is_neg, ops.arange(index_neg.shape[1])[None] < room)

    # Positives first, then negatives up to rois_per_image.
    index = ops.concatenate([index_pos, index_neg], axis=1)
    weight = ops.cast(ops.concatenate([is_pos, is_neg], axis=1), "float32")
    label = ops.concatenate([ops.cast(is_pos, "int32"), ops.zeros_like(index_neg)], axis=1)
    places = index.shape[1]
    _, order = ops.top_k(
        weight * ops.arange(places, 0, -1, dtype="float32"), min(config.rois_per_image, places)
    )
    index, weight, label = (_gather(v, order) for v in (index, weight, label))

    rois = _gather(candidates, index)
    match = _gather(match, index)
    deltas = encode(_gather(boxes, match), rois, config.box_stds)
    return {
        "boxes": ops.where(weight[..., None] > 0, rois, 0.0),
        "label": label,
        "weight": weight,
        "deltas": ops.where(label[..., None] > 0, deltas, 0.0),
        "ids": ops.where(label > 0, _gather(ids, match), 0),
    }


def pack_masks(rois, config, seed):
    """The whole batch's positive RoIs in a fixed number of slots, so that the mask head runs on few empty ones.

    Args:
        rois: the dict from :func:`roi_targets`.

    Returns:
        boxes (S, 4), batch_index (S,) int32, ids (S,) int32 with 0 for empty slots; S is
        ``mask_slots_per_image * B``, or ``positive_rois * B`` if that is 0.
    """
    places = config.positive_rois
    batch = rois["ids"].shape[0]
    slots = batch * min(config.mask_slots_per_image or places, places)
    ids = ops.reshape(rois["ids"][:, :places], (1, -1))
    boxes = ops.reshape(rois["boxes"][:, :places], (-1, 4))
    index, chosen = sample(ids > 0, slots, seed)
    index, chosen = index[0], chosen[0]
    ids = ops.where(chosen, ops.take(ids[0], index, axis=0), 0)
    return ops.take(boxes, index, axis=0), index // min(places, rois["ids"].shape[1]), ids


def mask_targets(labels, boxes, batch_index, ids, config):
    """Mask targets from the label map: the share of each mask cell that the nucleus covers.

    Each cell of the ``mask_size`` grid over the (dilated) box reads ``mask_samples`` squared pixels and
    counts those with the nucleus's id; points beyond the image do not count.

    Args:
        labels: (B, H, W) int32; boxes: (S, 4); batch_index, ids: (S,) int32.

    Returns:
        (S, mask_size, mask_size) float32 in [0, 1].
    """
    _, height, width = labels.shape
    size, samples = config.mask_size, config.mask_samples
    y, x = sample_grid(dilate(boxes, config.mask_roi_scale), size * samples)

    def cells(position, extent):
        inside = ops.logical_and(position >= 0, position < extent)
        return ops.cast(ops.clip(ops.floor(position), 0, extent - 1), "int32"), inside

    (y, y_in), (x, x_in) = cells(y, height), cells(x, width)
    index = (batch_index[:, None] * height + y)[:, :, None] * width + x[:, None, :]
    hit = ops.take(ops.reshape(labels, (-1,)), index, axis=0) == ids[:, None, None]
    hit = ops.logical_and(hit, ops.logical_and(y_in[:, :, None], x_in[:, None, :]))
    target = ops.reshape(ops.cast(hit, "float32"), (-1, size, samples, size, samples))
    return ops.mean(target, axis=(2, 4))
