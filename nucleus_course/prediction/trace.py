"""Every intermediate of one prediction, by name."""

import numpy as np
from keras import ops

from nucleus_course.data.preprocess import see
from nucleus_course.data.read import to_rgb8
from nucleus_course.data.rescaled import resized
from nucleus_course.geometry.boxes import dilate, greedy_nms, pyramid_level
from nucleus_course.prediction.pipeline import MIN_SCORE, assemble, prepare_picture
from nucleus_course.prediction.scale import at_size, look_at_scale


class Trace(dict):
    """Intermediates by name, in the order they were made; printing it lists their shapes."""

    def __repr__(self):
        return "\n".join(f"{name:<18} {_describe(value)}" for name, value in self.items())

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _describe(value):
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_describe(v) for v in value) + "]"
    return repr(value)


def trace_image(model, image, *, polarity="auto", input=None, diameter="auto"):
    """Every intermediate of one prediction, by name, as NumPy arrays without the batch axis.

    The plain network runs, in one view, so the numbers are those of the teaching code. Boxes are float32
    (y1, x1, y2, x2) in network pixels; ``detections`` are in image pixels. The image was resized by the
    factor ``scale`` (``diameter`` as for ``predict``).

    Returns:
        :class:`Trace` with ``image``, ``canonical`` (what was decided about polarity, stain and range;
        None if the input is colour), ``input``, ``window``, ``scale``, ``stages`` (C2..C5), ``pyramid`` (P2..P6),
        ``anchors`` (A, 4), ``rpn_logits`` (A, 2), ``rpn_scores`` (A,), ``rpn_deltas`` (A, 4), ``proposals``
        (P, 4), ``proposal_scores`` (P,), ``proposal_levels`` (P,), ``pooled`` (P, 7, 7, C),
        ``class_logits`` (P, 2) and ``box_deltas`` (P, 4) of the box head's first pass, ``class_scores`` (P,)
        and ``boxes`` (P, 4) of its last, ``kept`` (D,) indices that the final NMS keeps, ``mask_boxes``
        (D, 4), ``mask_pooled`` (D, 14, 14, C), ``mask_logits`` (D, 28, 28), ``detections``.
    """
    seen, image, traces = see(image, model.config, polarity, input), to_rgb8(image), {}

    def look(factor):
        traces[factor] = _traced(model, image, seen, factor)
        return traces[factor].detections

    return traces[look_at_scale(look, diameter, model.thresholds).scale]


def _traced(model, image, seen, factor):
    """The trace of an image uint8 (H, W, 3) that is resized by ``factor`` first."""
    network, config, thresholds = model.network, model.config, model.thresholds
    prepared = prepare_picture(resized(seen.pixels, factor), config)
    window = ops.convert_to_tensor(prepared.windows)
    height, width = prepared.input.shape[1:3]
    stages = network.backbone(prepared.input, training=False)
    pyramid = network.pyramid(stages, training=False)
    logits, deltas = network.rpn_outputs(pyramid)
    proposals, scores, valid = network.proposals(logits, deltas, height, width, window)
    real = ops.convert_to_numpy(valid)[0]
    proposals = ops.convert_to_tensor(ops.convert_to_numpy(proposals)[:, real])
    index = ops.zeros(proposals.shape[1], "int32")
    pooled = network.pool(pyramid, proposals[0], index, config.box_pool, samples=2)
    class_logits, box_deltas = network.box_head(pooled)
    boxes, class_scores = (v[0] for v in network.refine(pyramid, proposals, window)[-1])

    probability = ops.convert_to_numpy(class_scores)
    order = np.argsort(-probability, kind="stable")
    ranked = np.where(probability >= MIN_SCORE, probability, -1)[order]
    all_boxes = ops.convert_to_numpy(boxes)
    kept = order[greedy_nms(all_boxes[order], ranked, thresholds.nms_iou, config.max_detections)]
    rows = all_boxes[kept] if len(kept) else np.zeros((1, 4), "float32")  # no empty convolution
    index = ops.zeros(len(rows), "int32")
    mask_boxes = dilate(rows, config.mask_roi_scale)
    mask_pooled = network.pool(pyramid, ops.convert_to_tensor(mask_boxes), index, config.mask_pool)
    mask_logits = network.mask_logits(pyramid, ops.convert_to_tensor(rows), index)
    made = mask_boxes, mask_pooled, mask_logits
    mask_boxes, mask_pooled, mask_logits = (value[: len(kept)] for value in made)
    masks = ops.convert_to_numpy(ops.sigmoid(mask_logits))
    found = all_boxes[kept], probability[kept], masks
    found = assemble(config, prepared.shape, *found, thresholds, model.rescorer)
    found = at_size(found, image.shape[:2])

    def plain(value):
        if isinstance(value, (list, tuple)):
            return [plain(v)[0] for v in value]
        return ops.convert_to_numpy(value)

    return Trace(
        image=image, canonical=seen.canonical, input=prepared.input[0], window=prepared.window, scale=factor, stages=plain(stages), pyramid=plain(pyramid),
        anchors=network.anchors(height, width), rpn_logits=plain(logits)[0],
        rpn_scores=plain(ops.softmax(logits))[0, :, 1], rpn_deltas=plain(deltas)[0],
        proposals=plain(proposals)[0], proposal_scores=plain(ops.sigmoid(scores))[0][real],
        proposal_levels=plain(pyramid_level(proposals[0], config.canonical_size)), pooled=plain(pooled),
        class_logits=plain(class_logits), class_scores=plain(class_scores), box_deltas=plain(box_deltas[:, 1]),
        boxes=plain(boxes), kept=kept, mask_boxes=plain(mask_boxes), mask_pooled=plain(mask_pooled),
        mask_logits=plain(mask_logits), detections=found,
    )  # fmt: skip
