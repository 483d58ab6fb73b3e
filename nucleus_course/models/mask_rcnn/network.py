"""Mask R-CNN (He et al. 2017) put together: trunk, pyramid, proposals, heads, losses."""

import keras
from keras import ops

from nucleus_course.config import LOSSES, Thresholds
from nucleus_course.geometry.boxes import clip, decode, dilate
from nucleus_course.models.layers import replicas
from nucleus_course.models.mask_rcnn import losses
from nucleus_course.models.mask_rcnn.anchors import level_shapes, pyramid_anchors
from nucleus_course.models.mask_rcnn.backbone import build_backbone
from nucleus_course.models.mask_rcnn.heads import BoxHead, MaskHead
from nucleus_course.models.mask_rcnn.nms import nms_keep
from nucleus_course.models.mask_rcnn.proposals import build_rpn, merge_levels, propose
from nucleus_course.models.mask_rcnn.pyramid import build_pyramid
from nucleus_course.models.mask_rcnn.roi_align import roi_align
from nucleus_course.models.mask_rcnn.targets import (
    mask_targets,
    pack_masks,
    roi_targets,
    rpn_targets,
)


class MaskRCNNNetwork(keras.Model):
    """Mask R-CNN for one class of objects, in :mod:`keras.ops`, for TensorFlow, JAX and PyTorch.

    Args:
        config: :class:`~nucleus_course.config.ModelConfig`.
        dtype_policy: of trunk, pyramid and heads (``mixed_bfloat16`` trains faster if the hardware
            has it). Boxes, logits and losses are always float32.
        seed: for the sampling of anchors and RoIs.

    With ``training=True`` it takes a dict with ``image`` (B, H, W, 3) float32 from
    :func:`nucleus_course.data.preprocess.to_network`, ``labels`` (B, H, W) int32, ``boxes``
    (B, G, 4) float32 and ``ids`` (B, G) int32, and returns what :meth:`compute_loss` needs. With
    ``training=False`` it takes ``image`` and returns the output of :meth:`detect`.

    :class:`nucleus_course.MaskRCNN` adds thresholds and predicts on images of any size.
    """

    def __init__(self, config, dtype_policy="float32", seed=0, name="mask_rcnn"):
        super().__init__(name=name, dtype="float32")  # else Keras casts the ground truth
        self.config = config
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.loss_weights_ = dict.fromkeys(LOSSES, 1.0)
        self.batch_size = None  # set for fit, whose data adapter hides it
        self.backbone = build_backbone(config, dtype_policy)
        channels = [stage.shape[-1] for stage in self.backbone.outputs]
        self.pyramid = build_pyramid(config, channels, dtype_policy)
        self.rpn = build_rpn(config, dtype_policy)
        self.box_head = BoxHead(config, dtype=dtype_policy)
        self.mask_head = MaskHead(config, dtype=dtype_policy)
        self.box_head.build()
        self.mask_head.build()
        self.loss_trackers = [keras.metrics.Mean(name=f"{n}_loss") for n in LOSSES]
        self.built = True

    # ------------------------------------------------------------------ parts of the forward pass

    def features(self, image, training=False):
        """Images (B, H, W, 3) float32 -> [P2, …, P6]; H and W are multiples of ``pad_multiple``."""
        training = bool(training) and self.config.train_norm
        return self.pyramid(self.backbone(image, training=training), training=training)

    def rpn_outputs(self, pyramid, training=False):
        """[P2, …, P6] -> logits (B, A, 2), deltas (B, A, 4), in the order of :meth:`anchors`."""
        return merge_levels([self.rpn(level, training=training) for level in pyramid])

    def anchors(self, height, width):
        """(A, 4) float32 anchors for an input of this size, network pixels."""
        c = self.config
        return pyramid_anchors(height, width, c.strides, c.anchor_sizes, c.anchor_ratios)

    def proposals(self, logits, deltas, height, width, window, training=False):
        """From the RPN's output to proposals: boxes (B, P, 4), scores (B, P), valid (B, P)."""
        c = self.config
        ratios = len(c.anchor_ratios)
        shapes = level_shapes(height, width, c.strides)
        return propose(
            logits[..., 1] - logits[..., 0],
            deltas,
            self.anchors(height, width),
            [rows * columns * ratios for rows, columns in shapes],
            window,
            stds=c.box_stds,
            pre_nms=c.pre_nms[0 if training else 1],
            post_nms=c.post_nms[0 if training else 1],
            nms_iou=c.rpn_nms_train if training else c.rpn_nms,
        )

    def pool(self, pyramid, boxes, batch_index, size, samples=1):
        """RoIAlign on P2..P5: boxes (M, 4) of images ``batch_index`` (M,) -> (M, size, size, C)."""
        c = self.config
        options = {"samples": samples, "canonical_size": c.canonical_size}
        return roi_align(pyramid[:4], boxes, batch_index, size, strides=c.strides[:4], **options)

    def classify(self, pyramid, boxes, training=False, valid=None):
        """The box head on boxes (B, R, 4): class logits (B, R, 2), deltas (B, R, 2, 4)."""
        batch, count = boxes.shape[:2]
        index = ops.repeat(ops.arange(batch, dtype="int32"), count)
        flat = ops.reshape(boxes, (-1, 4))
        pooled = self.pool(pyramid, flat, index, self.config.box_pool, samples=2)
        valid = None if valid is None else ops.reshape(valid, (-1,))
        training = bool(training) and self.config.train_norm
        logits, deltas = self.box_head(pooled, training=training, valid=valid)
        return ops.reshape(logits, (batch, count, 2)), ops.reshape(deltas, (batch, count, 2, 4))

    def mask_logits(self, pyramid, boxes, batch_index, training=False, valid=None):
        """The mask head on boxes (M, 4), dilated first: logits (M, 28, 28) of the nucleus class."""
        boxes = dilate(boxes, self.config.mask_roi_scale)
        pooled = self.pool(pyramid, boxes, batch_index, self.config.mask_pool)
        training = bool(training) and self.config.train_norm
        return self.mask_head(pooled, training=training, valid=valid)[..., 1]

    def refine(self, pyramid, boxes, window):
        """The box head, applied ``config.box_passes`` times: each pass scores and moves the boxes of the last.

        A second pass starts from better boxes, so it places and scores them better ("iterative box
        regression", Gidaris and Komodakis 2016). The paper uses one pass.

        Args:
            boxes: (B, P, 4) float32 proposals; window: (B, 2) float32.

        Returns:
            [(boxes (B, P, 4), scores (B, P) in [0, 1]), …], one pair for each pass.
        """
        passes = []
        for _ in range(self.config.box_passes):
            logits, deltas = self.classify(pyramid, boxes)
            boxes = decode(deltas[:, :, 1], boxes, self.config.box_stds)
            boxes = clip(boxes, window[:, 0:1], window[:, 1:2])
            passes.append((boxes, ops.softmax(logits)[..., 1]))
        return passes

    def candidates(self, image, window):
        """Everything up to the final NMS, one row per proposal.

        Args:
            image: (B, H, W, 3) float32, prepared.
            window: (B, 2) float32, height and width without padding.

        Returns:
            pyramid, boxes (B, P, 4) by falling score, scores (B, P) in [0, 1], -1 for padding.
        """
        height, width = image.shape[1:3]
        pyramid = self.features(image)
        logits, deltas = self.rpn_outputs(pyramid)
        proposals, _, valid = self.proposals(logits, deltas, height, width, window)
        boxes, scores = self.refine(pyramid, proposals, window)[-1]
        scores, order = ops.top_k(ops.where(valid, scores, -1.0), scores.shape[1])
        return pyramid, ops.take_along_axis(boxes, order[..., None], axis=1), scores

    def detect(self, image, nms_iou=Thresholds.nms_iou):
        """Detections of fixed size, for images (B, H, W, 3) float32 without padding.

        Returns:
            {"boxes": (B, D, 4) network pixels, "scores": (B, D), -1 for padding,
            "masks": (B, D, 28, 28) probabilities}, by falling score.
        """
        pyramid, boxes, scores = self.candidates(image, full_window(image))
        sides = ops.min(boxes[..., 2:] - boxes[..., :2], axis=-1)
        keep = nms_keep(boxes, ops.logical_and(scores >= 0, sides >= 1.0), nms_iou)
        scores = ops.where(keep, scores, -1.0)
        scores, order = ops.top_k(scores, min(self.config.max_detections, scores.shape[1]))
        boxes = ops.take_along_axis(boxes, order[..., None], axis=1)
        index = ops.repeat(ops.arange(boxes.shape[0], dtype="int32"), boxes.shape[1])
        masks = ops.sigmoid(self.mask_logits(pyramid, ops.reshape(boxes, (-1, 4)), index))
        masks = ops.reshape(masks, (*boxes.shape[:2], *masks.shape[1:]))
        return {"boxes": boxes, "scores": scores, "masks": masks}

    # ------------------------------------------------------------------ Keras' entry points

    def call(self, inputs, training=False):
        if training:
            return self._training_outputs(inputs)
        return self.detect(inputs["image"] if isinstance(inputs, dict) else inputs)

    def _training_outputs(self, inputs):
        c, seed = self.config, self.seed_generator
        size = self.batch_size or inputs["image"].shape[0]
        image, labels, boxes, ids = (
            ops.reshape(inputs[k], (size,) + tuple(inputs[k].shape[1:]))
            for k in ("image", "labels", "boxes", "ids")
        )
        height, width = image.shape[1:3]
        pyramid = self.features(image, training=True)
        logits, deltas = self.rpn_outputs(pyramid, training=True)

        rpn = rpn_targets(self.anchors(height, width), boxes, ids, labels, c, seed)
        window = full_window(image)
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
        """The five losses by name, unweighted scalars, from the output of ``call(training=True)``."""
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
        return total / replicas()


def full_window(image):
    """Height and width of images (B, H, W, 3) without padding: (B, 2) float32."""
    batch, height, width, _ = image.shape
    return ops.tile(ops.convert_to_tensor([[float(height), float(width)]]), (batch, 1))
