"""Image in, :class:`~nucleus_course.prediction.detections.Detections` out."""

import dataclasses

import numpy as np
from keras import ops

from nucleus_course.data.preprocess import stretch, to_network
from nucleus_course.data.read import to_rgb8
from nucleus_course.geometry.boxes import dilate, pyramid_level
from nucleus_course.models.mask_rcnn.proposals import run_rpn
from nucleus_course.prediction import flips as tta
from nucleus_course.prediction.detections import Detections
from nucleus_course.prediction.engines.compiled import compiled, needs_fixed_shapes
from nucleus_course.prediction.rescorer import own_scores

# Detections below this score say nothing; AP on whole splits does not change without them.
MIN_SCORE = 0.02
# Where every length is compiled anew, the mask head runs on one of few, and on real detections alone elsewhere.
MASK_BUCKETS = (16, 48, 128, 256, 400)


def prepare(image, config, views=tta.VIEWS[:1]):
    """Any image to the network's input.

    Args:
        image: (H, W), (H, W, 3) or (H, W, 4); uint8, uint16 or float.
        config: :class:`~nucleus_course.config.ModelConfig`.
        views: flips to stack along the batch axis, see :mod:`nucleus_course.prediction.flips`.

    Returns:
        input (V, H', W', 3) float32, padded with zeros to one of few sizes; window (V, 2) float32, the
        height and width before padding, in network pixels.
    """
    network = to_network(stretch(to_rgb8(image), config), config)
    height, width = network.shape[:2]
    padded = np.zeros((len(views), _bucket(height, config), _bucket(width, config), 3), "float32")
    for row, view in zip(padded, views):
        row[:height, :width] = tta.flip_image(network, view)
    return padded, np.tile(np.array([[height, width]], "float32"), (len(views), 1))


def _bucket(side, config):
    """The side rounded up: to multiples of 64 up to 512 pixels, of 128 beyond, at least ``pad_multiple``."""
    step = max(64 if side <= 512 else 128, config.pad_multiple)
    return -(-side // step) * step


def bucket_count(count, limit):
    """Rows that the mask head runs on for ``count`` detections where its input must have one of few lengths."""
    for size in MASK_BUCKETS:
        if count <= size:
            return min(size, max(limit, count))
    return -(-count // 200) * 200


class Predictor:
    """The compiled pieces of prediction for one model; made once, kept on the model."""

    def __init__(self, model):
        self.model = model
        self._candidates = compiled(
            lambda image, window: model.candidates(image, window, fast=True), model
        )
        self._masks = compiled(self._mask_probs, model, free=2)

    @classmethod
    def of(cls, model):
        """The model's own predictor."""
        if getattr(model, "_predictor", None) is None:
            object.__setattr__(model, "_predictor", cls(model))
        return model._predictor

    def _mask_probs(self, boxes, index, *pyramid):
        return ops.sigmoid(self.model.mask_logits(list(pyramid), boxes, index, fast=True))

    def candidates(self, image, views=tta.VIEWS[:1]):
        """Proposals after the box head, before the final NMS, in each view of an image.

        Returns:
            pyramid [(V, h, w, C), …], boxes (V, P, 4) network pixels in the image's own orientation,
            scores (V, P), window (height, width).
        """
        prepared, window = prepare(image, self.model.config, views)
        # One view after the other: a batch of them is no faster on a CPU and takes their sum in memory.
        pyramids, boxes, scores = zip(
            *[self._candidates(prepared[i : i + 1], window[i : i + 1]) for i in range(len(views))]
        )
        boxes = np.stack(
            [
                tta.flip_boxes(ops.convert_to_numpy(b)[0], v, *window[0])
                for b, v in zip(boxes, views)
            ]
        )
        scores = np.concatenate([ops.convert_to_numpy(s) for s in scores])
        pyramid = (
            pyramids[0]
            if len(views) == 1
            else [ops.concatenate(level, axis=0) for level in zip(*pyramids)]
        )
        return pyramid, boxes, scores, window[0]

    def masks(self, pyramid, boxes, window, views=tta.VIEWS[:1]):
        """Mask probabilities (M, S, S) for boxes (M, 4) in network pixels, the views' mean."""
        count, size = len(boxes), self.model.config.mask_size
        if count == 0:
            return np.zeros((0, size, size), "float32")
        rows = np.concatenate([tta.flip_boxes(boxes, v, *window) for v in views])
        length = (
            bucket_count(len(rows), self.model.config.max_detections)
            if needs_fixed_shapes()
            else len(rows)
        )
        padded = np.zeros((length, 4), "float32")
        index = np.zeros(len(padded), "int32")
        padded[: len(rows)] = rows
        index[: len(rows)] = np.repeat(np.arange(len(views)), count)
        probs = ops.convert_to_numpy(self._masks(padded, index, *pyramid[:4]))[: len(rows)]
        probs = probs.reshape(len(views), count, size, size)
        return np.mean([tta.flip_masks(p, v) for p, v in zip(probs, views)], axis=0)


def greedy_nms(boxes, scores, iou_threshold, limit):
    """Indices that greedy NMS keeps, at most ``limit``; boxes (P, 4) sorted by falling score (NumPy).

    Boxes less than a pixel wide or high and scores below 0 take no part.
    """
    import cv2

    alive = np.flatnonzero(
        (scores >= 0) & ((boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.inf) >= 1.0)
    )
    if len(alive) == 0:
        return alive
    corner_and_size = boxes[alive].astype("float64")
    corner_and_size[:, 2:] -= corner_and_size[:, :2]
    ranks = np.linspace(
        1.0, 0.5, len(alive), dtype="float32"
    )  # they are sorted; OpenCV wants scores above 0
    kept = cv2.dnn.NMSBoxes(corner_and_size, ranks, 0.0, float(iou_threshold))
    return alive[np.asarray(kept, int).reshape(-1)[:limit]]


def predict_image(
    model,
    image,
    *,
    score_threshold=None,
    max_detections=None,
    nms_iou=None,
    mask_threshold=None,
    flips=None,
):
    """Detections on one image, at its own size.

    Args:
        model: :class:`~nucleus_course.models.MaskRCNN`.
        image: (H, W), (H, W, 3|4) or (3|4, H, W); uint8, uint16 or float.
        score_threshold: drop detections below it here; those whose score the mask can only lower before the mask
            head has seen them. By default all above 0.02 come, as AP needs them; ``label_image`` and
            ``confident`` apply the model's operating point.
        max_detections: most detections; by default the preset's (400).
        nms_iou, mask_threshold, flips: override the model's thresholds; ``flips`` is how many of the four
            flips of the image are looked at (1: the image alone).

    Raises:
        UserError: the array is no image.
    """
    changes = {"nms_iou": nms_iou, "mask": mask_threshold, "flips": flips}
    thresholds = dataclasses.replace(
        model.thresholds, **{k: v for k, v in changes.items() if v is not None}
    )
    limit = max_detections or model.config.max_detections
    views = tta.VIEWS[: thresholds.flips]
    image = to_rgb8(image)
    predictor = Predictor.of(model)
    pyramid, boxes, scores, window = predictor.candidates(image, views)
    boxes, scores = select(boxes, scores, thresholds.nms_iou, limit)
    if score_threshold is not None and model.rescorer is None:  # masks can only lower a score
        boxes, scores = boxes[scores >= score_threshold], scores[scores >= score_threshold]
    probs = predictor.masks(pyramid, boxes, window, views)
    found = assemble(
        model.config, image.shape[:2], boxes, scores, probs, thresholds, model.rescorer
    )
    return found if score_threshold is None else found.confident(score_threshold)


def select(boxes, scores, nms_iou, limit):
    """Candidates of all views (V, P, 4), (V, P) to final boxes (K, 4) and scores (K,)."""
    scores = np.where(scores >= MIN_SCORE, scores, -1)
    flat_boxes, flat_scores = boxes.reshape(-1, 4), scores.reshape(-1)
    order = np.argsort(-flat_scores, kind="stable")
    kept = order[greedy_nms(flat_boxes[order], flat_scores[order], nms_iou, limit)]
    if len(boxes) == 1:
        return flat_boxes[kept], flat_scores[kept]
    return tta.fuse_boxes(boxes, scores, kept)


def predict_variants(model, dataset, nms_ious, mask_thresholds, *, progress=True):
    """Predictions on a data set at every pair of NMS IoU and mask threshold, the network run once an image.

    Returns:
        {(nms_iou, mask_threshold): :class:`~nucleus_course.prediction.interchange.Predictions`}.
    """
    views = tta.VIEWS[: model.thresholds.flips]
    predictor = Predictor.of(model)
    images = {(n, m): {} for n in nms_ious for m in mask_thresholds}
    for record in _tracked(dataset, "predicting", progress):
        pyramid, boxes, scores, window = predictor.candidates(record.image, views)
        for nms_iou in nms_ious:
            kept, kept_scores = select(boxes, scores, nms_iou, model.config.max_detections)
            probs = predictor.masks(pyramid, kept, window, views)
            for mask in mask_thresholds:
                thresholds = dataclasses.replace(model.thresholds, nms_iou=nms_iou, mask=mask)
                found = assemble(
                    model.config,
                    record.image.shape[:2],
                    kept,
                    kept_scores,
                    probs,
                    thresholds,
                    model.rescorer,
                )
                images[nms_iou, mask][record.id] = image_predictions(found)
    return {key: _predictions(model, found) for key, found in images.items()}


def assemble(config, shape, boxes, scores, probs, thresholds, rescorer=None):
    """Boxes (N, 4) in network pixels, scores and mask probabilities to :class:`Detections` in image pixels.

    Boxes without a single mask cell at the threshold are no detections: there is nothing to draw. The score is the
    ``rescorer``'s (:mod:`nucleus_course.prediction.rescorer`), where there is one; else the class probability, times the
    mean mask probability if ``config.mask_scoring``.
    """
    some = (probs >= thresholds.mask).any(axis=(1, 2))
    boxes, scores, probs = boxes[some], scores[some], probs[some]
    scores = (
        own_scores(config, scores, probs) if rescorer is None else rescorer(boxes, scores, probs)
    )
    order = np.argsort(-scores, kind="stable")
    boxes, scores, probs = boxes[order], scores[order], probs[order]
    grid = np.asarray(dilate_numpy(boxes, config.mask_roi_scale)) / config.upsample
    return Detections(boxes / config.upsample, scores, probs, grid, shape[0], shape[1], thresholds)


def dilate_numpy(boxes, factor):
    """:func:`nucleus_course.geometry.boxes.dilate` in NumPy: boxes (N, 4) grown about their centres."""
    centre = 0.5 * (boxes[:, :2] + boxes[:, 2:])
    half = 0.5 * factor * (boxes[:, 2:] - boxes[:, :2])
    return np.concatenate([centre - half, centre + half], axis=1)


def predict_dataset(model, dataset, *, progress=True, **kwargs):
    """Detections on every image of a data set as :class:`~nucleus_course.prediction.interchange.Predictions`.

    Masks are run-length encoded image by image, so memory does not grow with the split.
    """
    images = {}
    for record in _tracked(dataset, "predicting", progress):
        images[record.id] = image_predictions(model.predict(record.image, **kwargs))
    return _predictions(model, images)


def _predictions(model, images):
    from nucleus_course.prediction.interchange import Predictions

    info = {"model": model.config.name, "min_area": model.thresholds.min_area}
    return Predictions(images=images, score_threshold=model.thresholds.score, info=info)


def image_predictions(found):
    """Detections as the interchange's :class:`~nucleus_course.prediction.interchange.ImagePredictions`."""
    from nucleus_course.prediction.interchange import ImagePredictions

    return ImagePredictions(
        height=found.height,
        width=found.width,
        rles=found.rles(),
        scores=found.scores,
        boxes=found.boxes,
    )


def _tracked(items, text, show):
    if not show:
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, text, total=len(items), console=Console(stderr=True), transient=True)


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


def trace_image(model, image):
    """Every intermediate of one prediction, by name, as NumPy arrays without the batch axis.

    Boxes are network pixels ((y1, x1, y2, x2) float32), but for ``detections``, which are image pixels.

    Returns:
        :class:`Trace` with ``image``, ``input``, ``window``, ``stages`` (C2..C5), ``pyramid`` (P2..P6),
        ``anchors`` (A, 4), ``rpn_logits`` (A, 2), ``rpn_scores`` (A,), ``rpn_deltas`` (A, 4), ``proposals``
        (P, 4), ``proposal_scores`` (P,), ``proposal_levels`` (P,), ``pooled`` (P, 7, 7, C),
        ``class_logits`` (P, 2) and ``box_deltas`` (P, 4) of the box head's first pass, ``class_scores`` (P,)
        and ``boxes`` (P, 4) of its last, ``kept`` (D,) indices that the final NMS leaves, ``mask_boxes``
        (D, 4), ``mask_pooled`` (D, 14, 14, C), ``mask_logits`` (D, 28, 28), ``detections``.
    """
    config, image = model.config, to_rgb8(image)
    prepared, window = prepare(image, config)
    height, width = prepared.shape[1:3]
    stages = model.backbone(prepared, training=False)
    pyramid = model.pyramid(stages, training=False)
    logits, deltas = run_rpn(model.rpn, pyramid)
    proposals, scores, valid = model.proposals(
        logits, deltas, height, width, ops.convert_to_tensor(window)
    )
    real = ops.convert_to_numpy(valid)[0]
    proposals = ops.convert_to_tensor(ops.convert_to_numpy(proposals)[:, real])
    count = proposals.shape[1]
    pooled = model.pool(
        pyramid, proposals[0], ops.zeros(count, "int32"), config.box_pool, samples=2
    )
    class_logits, box_deltas = model.box_head(pooled)
    boxes, class_scores = model.refine(pyramid, proposals, ops.convert_to_tensor(window))[-1]
    boxes, class_scores = boxes[0], class_scores[0]

    order = np.argsort(-ops.convert_to_numpy(class_scores), kind="stable")
    ranked = ops.convert_to_numpy(boxes)[order], ops.convert_to_numpy(class_scores)[order]
    ranked = ranked[0], np.where(ranked[1] >= MIN_SCORE, ranked[1], -1)
    kept = order[greedy_nms(*ranked, model.thresholds.nms_iou, config.max_detections)]
    kept_boxes = ops.convert_to_numpy(boxes)[kept]
    rows = kept_boxes if len(kept) else np.zeros((1, 4), "float32")  # no backend convolves nothing
    rows, index = ops.convert_to_tensor(rows), ops.zeros(len(rows), "int32")
    mask_boxes = dilate(rows, config.mask_roi_scale)
    mask_pooled = model.pool(pyramid, mask_boxes, index, config.mask_pool)
    mask_logits = model.mask_logits(pyramid, rows, index)
    mask_boxes, mask_pooled, mask_logits = (
        v[: len(kept)] for v in (mask_boxes, mask_pooled, mask_logits)
    )
    probs = ops.convert_to_numpy(ops.sigmoid(mask_logits))
    found = assemble(
        config,
        image.shape[:2],
        kept_boxes,
        ops.convert_to_numpy(class_scores)[kept],
        probs,
        model.thresholds,
        model.rescorer,
    )

    def plain(value):
        if isinstance(value, (list, tuple)):
            return [plain(v)[0] for v in value]
        return ops.convert_to_numpy(value)

    return Trace(
        image=to_rgb8(image), input=prepared[0], window=window[0], stages=plain(stages), pyramid=plain(pyramid),
        anchors=model.anchors(height, width), rpn_logits=plain(logits)[0],
        rpn_scores=plain(ops.softmax(logits))[0, :, 1], rpn_deltas=plain(deltas)[0],
        proposals=plain(proposals)[0], proposal_scores=plain(ops.sigmoid(scores))[0][real],
        proposal_levels=plain(pyramid_level(proposals[0], config.canonical_size)), pooled=plain(pooled),
        class_logits=plain(class_logits), class_scores=plain(class_scores), box_deltas=plain(box_deltas[:, 1]),
        boxes=plain(boxes), kept=kept, mask_boxes=plain(mask_boxes), mask_pooled=plain(mask_pooled),
        mask_logits=plain(mask_logits), detections=found,
    )  # fmt: skip
