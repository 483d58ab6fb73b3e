"""Mask R-CNN (He et al. 2017) put together: trunk, pyramid, proposals, heads, losses."""

import keras
from keras import ops

from nucleus_course.config import Thresholds
from nucleus_course.geometry.boxes import clip, decode, dilate
from nucleus_course.models.layers import _replicas
from nucleus_course.models.mask_rcnn import losses
from nucleus_course.models.mask_rcnn.anchors import level_shapes, pyramid_anchors
from nucleus_course.models.mask_rcnn.backbone import build_backbone
from nucleus_course.models.mask_rcnn.heads import BoxHead, MaskHead
from nucleus_course.models.mask_rcnn.nms import nms_keep
from nucleus_course.models.mask_rcnn.proposals import build_rpn, propose, run_rpn
from nucleus_course.models.mask_rcnn.pyramid import build_pyramid
from nucleus_course.models.mask_rcnn.roi_align import roi_align
from nucleus_course.models.mask_rcnn.targets import (
    mask_targets,
    pack_masks,
    roi_targets,
    rpn_targets,
)
from nucleus_course.prediction.engines.folded import run_folded
from nucleus_course.prediction.engines.roi_align_fast import crop_roi_align
from nucleus_course.presets import get_preset

LOSSES = ("rpn_class", "rpn_box", "class", "box", "mask")


class MaskRCNN(keras.Model):
    """Mask R-CNN for one class of objects, in :mod:`keras.ops`, for TensorFlow, JAX and torch.

    Args:
        config: :class:`~nucleus_course.config.ModelConfig`.
        thresholds: the operating point that :meth:`predict` uses.
        dtype_policy: policy of trunk, pyramid and heads (``mixed_bfloat16`` trains faster where the
            hardware has it). Boxes, logits and losses are float32 always.
        seed: for the sampling of anchors and RoIs.

    Calling the model with ``training=True`` takes a dict with ``image`` (B, H, W, 3) float32 prepared by
    :func:`nucleus_course.data.preprocess.to_network`, ``labels`` (B, H, W) int32, ``boxes`` (B, G, 4)
    float32 and ``ids`` (B, G) int32, and gives what :meth:`compute_loss` needs. With ``training=False``
    it takes ``image`` and gives fixed-size detections.
    """

    def __init__(self, config, thresholds=None, dtype_policy="float32", seed=0, name="mask_rcnn"):
        super().__init__(
            name=name, dtype="float32"
        )  # float32: the model must not cast ground truth
        self.config = config
        self.thresholds = thresholds or Thresholds()
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.loss_weights_ = dict.fromkeys(LOSSES, 1.0)
        self.batch_size = None  # set for fit, whose data adapter hides it
        self.start = None  # the weights it began with, by name; None is random
        self.rescorer = None  # a Rescorer fitted to these weights' detections
        self.backbone = build_backbone(config, dtype_policy)
        self.pyramid = build_pyramid(
            config, [c.shape[-1] for c in self.backbone.outputs], dtype_policy
        )
        self.rpn = build_rpn(config, dtype_policy)
        self.box_head = BoxHead(config, dtype=dtype_policy)
        self.mask_head = MaskHead(config, dtype=dtype_policy)
        self.box_head.build()
        self.mask_head.build()
        self.loss_trackers = [keras.metrics.Mean(name=f"{n}_loss") for n in LOSSES]
        self.built = True

    @classmethod
    def from_preset(cls, name, weights=None, **kwargs):
        """A model by preset name, with random weights, or with ``weights``: a shipped name, folder or file.

        ``coco`` and ``imagenet`` fetch published weights; a file of Matterport's or of keras.applications'
        layout is imported (:mod:`nucleus_course.models.weights.importers`). ``model.load_report`` says what loaded.

        Raises:
            UserError: unknown preset, weights not found, not to be had, or of another architecture.
        """
        from nucleus_course.models.weights import importers

        preset = get_preset(name)
        if weights is None:
            return cls(preset.model, preset.thresholds, **kwargs)
        path, layout = importers.locate(weights, preset.model)
        model = cls(importers.adapted(preset.model, layout), preset.thresholds, **kwargs)
        model.load_report = importers.load_any(model, path, layout)
        model.start = str(weights)
        return model

    @classmethod
    def load(cls, source, **kwargs):
        """A model from a folder that :meth:`save` wrote, or by the name of shipped weights."""
        from nucleus_course.models.weights.folder import load_model

        return load_model(source, **kwargs)

    def save(self, folder, half=False):
        """Write config.json, thresholds.json, weights.h5 and rescoring.json, if it has one, into ``folder``.

        ``half`` stores kernels as float16.
        """
        from nucleus_course.models.weights.folder import save_model

        return save_model(self, folder, half)

    # ------------------------------------------------------------------ parts of the forward pass

    def features(self, image, training=False, fast=False):
        """Images (B, H, W, 3) float32 -> [P2, …, P6]. H and W are multiples of ``config.pad_multiple``.

        ``fast``: in prediction, with each BatchNorm folded (:mod:`nucleus_course.prediction.engines.folded`).
        """
        if fast:
            return run_folded(self.pyramid, run_folded(self.backbone, image))
        training = bool(training) and self.config.train_norm
        return self.pyramid(self.backbone(image, training=training), training=training)

    def anchors(self, height, width):
        """(A, 4) float32 anchors of an input of that size."""
        c = self.config
        return pyramid_anchors(height, width, c.strides, c.anchor_sizes, c.anchor_ratios)

    def proposals(self, logits, deltas, height, width, window, training=False):
        """RPN output to proposals: boxes (B, P, 4), scores (B, P), valid (B, P)."""
        c = self.config
        levels = [
            rows * columns * len(c.anchor_ratios)
            for rows, columns in level_shapes(height, width, c.strides)
        ]
        return propose(
            logits[..., 1] - logits[..., 0],
            deltas,
            self.anchors(height, width),
            levels,
            window,
            stds=c.box_stds,
            pre_nms=c.pre_nms[0 if training else 1],
            post_nms=c.post_nms[0 if training else 1],
            nms_iou=c.rpn_nms_train if training else c.rpn_nms,
        )

    def pool(self, pyramid, boxes, batch_index, size, samples=1, fast=False, beyond=False):
        """RoIAlign on P2..P5: boxes (M, 4) -> (M, size, size, C).

        ``fast``: by one kernel, where the backend has it; ``beyond`` then says that boxes may reach over the image's edge.
        """
        c = self.config
        options = {"strides": c.strides[:4], "samples": samples, "canonical_size": c.canonical_size}
        if fast and keras.backend.backend() == "tensorflow":
            return crop_roi_align(pyramid[:4], boxes, batch_index, size, beyond=beyond, **options)
        return roi_align(pyramid[:4], boxes, batch_index, size, **options)

    def pool_masks(self, pyramid, boxes, batch_index):
        """The mask head's input in prediction, from boxes (M, 4) already dilated: (M, 14, 14, C)."""
        beyond = self.config.mask_roi_scale > 1.0
        return self.pool(
            pyramid, boxes, batch_index, self.config.mask_pool, fast=True, beyond=beyond
        )

    def classify(self, pyramid, boxes, training=False, valid=None, fast=False):
        """The box head on boxes (B, R, 4): class logits (B, R, 2), deltas (B, R, 2, 4)."""
        batch, count = boxes.shape[:2]
        index = ops.repeat(ops.arange(batch, dtype="int32"), count)
        pooled = self.pool(
            pyramid, ops.reshape(boxes, (-1, 4)), index, self.config.box_pool, 2, fast
        )
        valid = None if valid is None else ops.reshape(valid, (-1,))
        training = bool(training) and self.config.train_norm
        logits, deltas = self.box_head(pooled, training=training, valid=valid)
        return ops.reshape(logits, (batch, count, 2)), ops.reshape(deltas, (batch, count, 2, 4))

    def mask_logits(self, pyramid, boxes, batch_index, training=False, valid=None, fast=False):
        """The mask head on boxes (M, 4): logits (M, 28, 28) of the nucleus class, in the dilated boxes.

        ``fast``: in prediction, see :meth:`pool` and :meth:`MaskHead.nucleus`.
        """
        boxes = dilate(boxes, self.config.mask_roi_scale)
        if fast:
            return self.mask_head.nucleus(self.pool_masks(pyramid, boxes, batch_index))
        pooled = self.pool(pyramid, boxes, batch_index, self.config.mask_pool)
        training = bool(training) and self.config.train_norm
        return self.mask_head(pooled, training=training, valid=valid)[..., 1]

    def refine(self, pyramid, boxes, window, fast=False):
        """The box head, ``config.box_passes`` times over: each pass scores and moves the boxes of the last.

        A second pass looks at better boxes, so it places and scores them better ("iterative box
        regression", Gidaris and Komodakis 2016); the paper makes one.

        Args:
            boxes: (B, P, 4) float32 proposals; window: (B, 2) float32.
            fast: see :meth:`pool`.

        Returns:
            [(boxes (B, P, 4), scores (B, P) in [0, 1]), …], one pair a pass.
        """
        passes = []
        for _ in range(self.config.box_passes):
            logits, deltas = self.classify(pyramid, boxes, fast=fast)
            boxes = clip(
                decode(deltas[:, :, 1], boxes, self.config.box_stds), window[:, 0:1], window[:, 1:2]
            )
            passes.append((boxes, ops.softmax(logits)[..., 1]))
        return passes

    def candidates(self, image, window, fast=False):
        """Everything up to the final NMS, one row a proposal.

        Args:
            image: (B, H, W, 3) float32 prepared; window: (B, 2) float32, height and width without padding.
            fast: see :meth:`features` and :meth:`pool`.

        Returns:
            pyramid, boxes (B, P, 4) sorted by falling score, scores (B, P) in [0, 1] (-1 for padding).
        """
        height, width = image.shape[1:3]
        pyramid = self.features(image, fast=fast)
        logits, deltas = run_rpn(self.rpn, pyramid, fast=fast)
        proposals, _, valid = self.proposals(logits, deltas, height, width, window)
        boxes, scores = self.refine(pyramid, proposals, window, fast)[-1]
        scores = ops.where(valid, scores, -1.0)
        scores, order = ops.top_k(scores, scores.shape[1])
        return pyramid, ops.take_along_axis(boxes, order[..., None], axis=1), scores

    def select(self, boxes, scores, nms_iou, max_detections):
        """Final NMS: the best ``max_detections`` boxes (B, D, 4) and scores (B, D), -1 where there are fewer."""
        sides = boxes[..., 2:] - boxes[..., :2]
        valid = ops.logical_and(scores >= 0, ops.min(sides, axis=-1) >= 1.0)
        scores = ops.where(nms_keep(boxes, valid, nms_iou), scores, -1.0)
        scores, order = ops.top_k(scores, min(max_detections, scores.shape[1]))
        return ops.take_along_axis(boxes, order[..., None], axis=1), scores

    # ------------------------------------------------------------------ Keras' entry points

    def call(self, inputs, training=False):
        if training:
            return self._training_outputs(inputs)
        image = inputs["image"] if isinstance(inputs, dict) else inputs
        batch, height, width, _ = image.shape
        window = ops.tile(ops.convert_to_tensor([[float(height), float(width)]]), (batch, 1))
        pyramid, boxes, scores = self.candidates(image, window)
        boxes, scores = self.select(
            boxes, scores, self.thresholds.nms_iou, self.config.max_detections
        )
        index = ops.repeat(ops.arange(batch, dtype="int32"), boxes.shape[1])
        masks = ops.sigmoid(self.mask_logits(pyramid, ops.reshape(boxes, (-1, 4)), index))
        return {
            "boxes": boxes,
            "scores": scores,
            "masks": ops.reshape(masks, (batch, -1) + tuple(masks.shape[1:])),
        }

    def _training_outputs(self, inputs):
        c, seed = self.config, self.seed_generator
        size = self.batch_size or inputs["image"].shape[0]
        image, labels, boxes, ids = (
            ops.reshape(inputs[k], (size,) + tuple(inputs[k].shape[1:]))
            for k in ("image", "labels", "boxes", "ids")
        )
        height, width = image.shape[1:3]
        pyramid = self.features(image, training=True)
        logits, deltas = run_rpn(self.rpn, pyramid, training=True)

        rpn = rpn_targets(self.anchors(height, width), boxes, ids, labels, c, seed)
        window = ops.tile(ops.convert_to_tensor([[float(height), float(width)]]), (size, 1))
        proposals, _, valid = self.proposals(logits, deltas, height, width, window, training=True)
        roi = roi_targets(proposals, valid, boxes, ids, labels, c, seed)
        class_logits, class_deltas = self.classify(pyramid, roi["boxes"], True, roi["weight"] > 0)

        mask_boxes, mask_batch, mask_ids = pack_masks(roi, c, seed)
        mask = self.mask_logits(pyramid, mask_boxes, mask_batch, True, mask_ids > 0)
        return {
            "rpn_logits": ops.take_along_axis(logits, rpn["index"][..., None], axis=1),
            "rpn_deltas": ops.take_along_axis(deltas, rpn["index"][..., None], axis=1),
            "rpn_label": rpn["label"],
            "rpn_weight": rpn["weight"],
            "rpn_target": rpn["deltas"],
            "rpn_weight_box": rpn["weight_box"],
            "class_logits": class_logits,
            "class_deltas": class_deltas[:, :, 1],
            "roi_label": roi["label"],
            "roi_weight": roi["weight"],
            "roi_target": roi["deltas"],
            "mask_logits": mask,
            "mask_target": mask_targets(labels, mask_boxes, mask_batch, mask_ids, c),
            "mask_weight": ops.cast(mask_ids > 0, "float32"),
        }

    def loss_values(self, out):
        """The five losses by name, unweighted scalars, from what ``call(training=True)`` gave."""
        positive = out["roi_weight"] * ops.cast(out["roi_label"], "float32")
        beta = self.config.box_loss_beta
        return {
            "rpn_class": losses.cross_entropy(
                out["rpn_logits"], out["rpn_label"], out["rpn_weight"]
            ),
            "rpn_box": losses.smooth_l1(
                out["rpn_deltas"], out["rpn_target"], out["rpn_weight_box"], beta
            ),
            "class": losses.cross_entropy(out["class_logits"], out["roi_label"], out["roi_weight"]),
            "box": losses.smooth_l1(out["class_deltas"], out["roi_target"], positive, beta),
            "mask": losses.mask_cross_entropy(
                out["mask_logits"], out["mask_target"], out["mask_weight"]
            ),
        }

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        values = self.loss_values(y_pred)
        total = 0.0
        for tracker in self.loss_trackers:
            value = values[tracker.name[: -len("_loss")]]
            tracker.update_state(value)
            total = total + value * self.loss_weights_[tracker.name[: -len("_loss")]]
        return total / _replicas()

    # ------------------------------------------------------------------ what users call

    def predict(self, image, **kwargs):
        """Detections on one image; see :func:`nucleus_course.prediction.pipeline.predict_image`."""
        from nucleus_course.prediction.pipeline import predict_image

        return predict_image(self, image, **kwargs)

    def trace(self, image):
        """Every intermediate of one prediction by name; see :func:`nucleus_course.prediction.pipeline.trace_image`."""
        from nucleus_course.prediction.pipeline import trace_image

        return trace_image(self, image)
