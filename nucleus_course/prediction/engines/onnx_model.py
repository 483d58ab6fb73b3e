"""Mask R-CNN as ONNX graphs for one image of one size, in float32.

Two graphs are a whole detector for anyone's ONNX runtime: ``detector`` and ``masks`` compute what
:meth:`MaskRCNN.candidates` and :meth:`MaskRCNN.mask_logits` do. ``trunk``, ``proposals``, ``box_pool``,
``box_head``, ``mask_pool`` and ``mask_head`` are the same in pieces that hold either convolutions or boxes,
so that the former may run in half precision. Boxes are (N, 4) float32 (y1, x1, y2, x2) in network pixels, the pyramid's levels
(1, H_l, W_l, C), both as in Keras.
"""

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.geometry.boxes import MAX_LOG_SCALE
from nucleus_course.models.mask_rcnn.anchors import level_shapes
from nucleus_course.models.mask_rcnn.proposals import level_budget
from nucleus_course.prediction.engines.onnx_writer import Graph, array, norm_terms, write_functional

LOW = -1e9  # score of what takes part in nothing
LEVELS = (2, 3, 4, 5)  # that RoIs are pooled from


def require_mask_rcnn(model):
    """Raise a UserError for a model of another kind: only Mask R-CNN is written as ONNX."""
    from nucleus_course.models.weights.folder import kind_of

    if kind_of(model.config) != "mask_rcnn":
        raise UserError(
            f"{model.config.name} is a {kind_of(model.config)}: only Mask R-CNN models run outside Keras"
        )


class MaskRCNNWriter:
    """Writes a model's graphs for an input of height x width network pixels (multiples of ``pad_multiple``)."""

    def __init__(self, model, height, width):
        self.network, self.config, self.thresholds = model.network, model.config, model.thresholds
        self.height, self.width = height, width
        self.shapes = level_shapes(height, width, self.config.strides)
        self.counts = [
            rows * columns * len(self.config.anchor_ratios) for rows, columns in self.shapes
        ]
        self.budgets = [level_budget(size, self.config.pre_nms[1]) for size in self.counts]
        self.places = min(self.config.post_nms[1], sum(self.budgets))  # P, the proposals

    @property
    def margins(self):
        """Cells a level that a mask's box, grown by ``mask_roi_scale``, may reach beyond the image."""
        reach = 0.5 * (self.config.mask_roi_scale - 1.0)
        return [
            int(np.ceil(reach * max(shape))) + 1 if reach > 0 else 0 for shape in self.shapes[:4]
        ]

    # ------------------------------------------------------------------ whole graphs

    def detector(self):
        """image (1, H, W, 3), window (1, 2) -> p2..p5, boxes (P, 4) by falling score, scores (P,), -1 for padding."""
        g = Graph("detector")
        image, window = self._image(g), g.input("window", (1, 2))
        pyramid, scores, deltas = self.write_trunk(g, image)
        boxes, valid = self.write_proposals(g, scores, deltas, window)
        limits = self._limits(g, window)
        for _ in range(self.config.box_passes):
            # Pooling goes level by level, so boxes come back in another order; they are sorted at the end.
            rois, order = self.write_levels(g, boxes)
            order = g.node("Reshape", order, np.array([self.places]))
            boxes, valid = (
                g.node("Gather", boxes, order, axis=0),
                g.node("Gather", valid, order, axis=0),
            )
            logits, deltas = self.write_box_head(g, self.write_box_pool(g, pyramid, rois))
            boxes = self._clip(g, self._decode(g, deltas, boxes), limits)
            probability = g.node("Sigmoid", logits)
        scores = g.node("Where", valid, probability, -1.0)
        scores, order = g.node("TopK", scores, np.array([self.places]), outputs=2, axis=0)
        self._pyramid_outputs(g, pyramid)
        g.output(g.node("Gather", boxes, order, axis=0), "boxes", (self.places, 4))
        g.output(scores, "scores", (self.places,))
        return g.model(self._metadata())

    def masks(self):
        """p2..p5, boxes (M, 4) -> masks (M, S, S), probabilities in the boxes grown by ``mask_roi_scale``."""
        g = Graph("masks")
        pyramid = self._pyramid_inputs(g)
        boxes = g.input("boxes", ("M", 4))
        if self.config.mask_roi_scale != 1.0:
            low, high = g.node("Split", boxes, outputs=2, axis=1)
            centre = g.node("Mul", g.node("Add", low, high), 0.5)
            half = g.node("Mul", g.node("Sub", high, low), 0.5 * self.config.mask_roi_scale)
            boxes = g.node(
                "Concat", g.node("Sub", centre, half), g.node("Add", centre, half), axis=1
            )
        rois, order = self.write_levels(g, boxes, self.margins)
        masks = self.write_mask_head(g, self.write_mask_pool(g, pyramid, rois))
        _, back = g.node("TopK", order, g.node("Shape", order), outputs=2, axis=0, largest=0)
        size = self.config.mask_size
        g.output(g.node("Gather", masks, back, axis=0), "masks", ("M", size, size))
        return g.model(self._metadata())

    # ------------------------------------------------------------------ graphs of one part each

    def trunk(self):
        """image (1, H, W, 3) -> p2..p5, rpn_scores (A,) logit differences, rpn_deltas (A, 4)."""
        g = Graph("trunk")
        pyramid, scores, deltas = self.write_trunk(g, self._image(g))
        self._pyramid_outputs(g, pyramid)
        g.output(scores, "rpn_scores", (sum(self.counts),))
        g.output(deltas, "rpn_deltas", (sum(self.counts), 4))
        return g.model()

    def proposals(self):
        """rpn_scores, rpn_deltas, window (1, 2) -> proposals (P, 4), valid (P,) bool."""
        g = Graph("proposals")
        scores = g.input("rpn_scores", (sum(self.counts),))
        deltas = g.input("rpn_deltas", (sum(self.counts), 4))
        boxes, valid = self.write_proposals(g, scores, deltas, g.input("window", (1, 2)))
        g.output(boxes, "proposals", (self.places, 4))
        g.output(valid, "valid", (self.places,), "bool")
        return g.model()

    def box_pool(self):
        """p2..p5, rois2..rois5 (N_l, 4) x1, y1, x2, y2, P in all -> pooled (P, C, 7, 7), level by level."""
        g = Graph("box_pool")
        pooled = self.write_box_pool(g, self._pyramid_inputs(g), self._roi_inputs(g))
        g.output(pooled, "pooled", self._pooled(self.places, self.config.box_pool))
        return g.model()

    def box_head(self, channels_last=False):
        """pooled (P, C, 7, 7), or (P, 7, 7, C) -> logits (P,), differences of the two classes, and deltas (P, 4)."""
        g = Graph("box_head")
        count, channels, *size = self._pooled(self.places, self.config.box_pool)
        pooled = g.input(
            "pooled", (count, *size, channels) if channels_last else (count, channels, *size)
        )
        logits, deltas = self.write_box_head(g, pooled, channels_last)
        g.output(logits, "logits", (self.places,))
        g.output(deltas, "deltas", (self.places, 4))
        return g.model()

    def mask_pool(self):
        """p2..p5, rois2..rois5 (M_l, 4) -> pooled (M, C, 14, 14), level by level.

        The RoIs are grown already, and moved by ``margins`` cells, see :meth:`write_levels`.
        """
        g = Graph("mask_pool")
        pooled = self.write_mask_pool(g, self._pyramid_inputs(g), self._roi_inputs(g))
        g.output(pooled, "pooled", self._pooled("M", self.config.mask_pool))
        return g.model()

    def mask_head(self, channels_last=False):
        """pooled (M, C, 14, 14), or (M, 14, 14, C) -> masks (M, S, S)."""
        g = Graph("mask_head")
        count, channels, *size = self._pooled("M", self.config.mask_pool)
        pooled = g.input(
            "pooled", (count, *size, channels) if channels_last else (count, channels, *size)
        )
        pooled = g.node("Transpose", pooled, perm=[0, 3, 1, 2]) if channels_last else pooled
        masks = self.write_mask_head(g, pooled)
        g.output(masks, "masks", ("M", self.config.mask_size, self.config.mask_size))
        return g.model()

    def _pooled(self, count, size):
        return count, self.config.pyramid_channels, size, size

    def _metadata(self):
        t = self.thresholds
        return {
            "preset": self.config.name,
            "score_threshold": t.score,
            "nms_iou": t.nms_iou,
            "mask_threshold": t.mask,
        }

    def _image(self, g):
        return g.input("image", (1, self.height, self.width, 3))

    def _pyramid_inputs(self, g):
        channels = self.config.pyramid_channels
        inputs = [g.input(f"p{level}", (1, *self.shapes[level - 2], channels)) for level in LEVELS]
        return [g.node("Transpose", x, perm=[0, 3, 1, 2]) for x in inputs]

    def _pyramid_outputs(self, g, pyramid):
        for level, feature in zip(LEVELS, pyramid):
            shape = (1, *self.shapes[level - 2], self.config.pyramid_channels)
            g.output(g.node("Transpose", feature, perm=[0, 2, 3, 1]), f"p{level}", shape)

    def _roi_inputs(self, g):
        return [g.input(f"rois{level}", (f"N{level}", 4)) for level in LEVELS]

    # ------------------------------------------------------------------ parts

    def write_trunk(self, g, image):
        """Image (1, H, W, 3) -> [P2, …, P5], logit differences (A,), deltas (A, 4) in the order of the anchors."""
        network = self.network
        x = g.node("Transpose", image, perm=[0, 3, 1, 2])
        stages = write_functional(g, network.backbone, [(x, self.height, self.width)])
        pyramid = write_functional(g, network.pyramid, stages)
        shared, logits, deltas = (
            network.rpn.get_layer(n) for n in ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")
        )
        kernel, bias = array(logits.kernel), array(logits.bias)
        all_scores, all_deltas = [], []
        for feature, _, _ in pyramid:
            y = g.node(
                "Relu",
                g.convolution(feature, array(shared.kernel), array(shared.bias), (1, 1, 1, 1)),
            )
            # Only the difference of the two logits counts: one channel a ratio instead of two.
            score = g.convolution(y, kernel[..., 1::2] - kernel[..., ::2], bias[1::2] - bias[::2])
            delta = g.convolution(y, array(deltas.kernel), deltas.bias)
            all_scores.append(
                g.node("Reshape", g.node("Transpose", score, perm=[0, 2, 3, 1]), np.array([-1]))
            )
            all_deltas.append(
                g.node("Reshape", g.node("Transpose", delta, perm=[0, 2, 3, 1]), np.array([-1, 4]))
            )
        scores, deltas = (
            g.node("Concat", *all_scores, axis=0),
            g.node("Concat", *all_deltas, axis=0),
        )
        return [name for name, _, _ in pyramid[:4]], scores, deltas

    def write_proposals(self, g, scores, deltas, window):
        """As :func:`nucleus_course.models.mask_rcnn.proposals.propose`: boxes (P, 4), valid (P,) bool."""
        c = self.config
        anchors, limits = self.network.anchors(self.height, self.width), self._limits(g, window)
        height_width = g.node("Reshape", window, np.array([1, 2]))
        kept_boxes, kept_scores, start = [], [], 0
        for size, budget in zip(self.counts, self.budgets):
            rows = [np.array([start]), np.array([start + size]), np.array([0])]
            best, index = g.node(
                "TopK", g.node("Slice", scores, *rows), np.array([budget]), outputs=2, axis=0
            )
            own = g.node("Gather", anchors[start : start + size], index, axis=0)
            boxes = self._decode(
                g, g.node("Gather", g.node("Slice", deltas, *rows), index, axis=0), own
            )
            low, high = g.node("Split", own, outputs=2, axis=1)
            centre = g.node("Mul", g.node("Add", low, high), 0.5)
            real = self._all(g, g.node("Less", centre, height_width))
            boxes = self._clip(g, boxes, limits)
            low, high = g.node("Split", boxes, outputs=2, axis=1)
            big = self._all(g, g.node("GreaterOrEqual", g.node("Sub", high, low), 1.0))
            best = g.node("Where", g.node("And", real, big), best, LOW)
            keep = self._nms(g, boxes, best, budget, c.rpn_nms)
            kept_scores.append(g.node("Where", keep, best, LOW))
            kept_boxes.append(boxes)
            start += size
        boxes, scores = (
            g.node("Concat", *kept_boxes, axis=0),
            g.node("Concat", *kept_scores, axis=0),
        )
        scores, index = g.node("TopK", scores, np.array([self.places]), outputs=2, axis=0)
        valid = g.node("Greater", scores, LOW / 10)
        boxes = g.node(
            "Where",
            g.node("Unsqueeze", valid, np.array([1])),
            g.node("Gather", boxes, index, axis=0),
            0.0,
        )
        return boxes, valid

    def write_levels(self, g, boxes, margins=None):
        """Boxes (N, 4) to the RoIs of each level, [(N_l, 4) x1, y1, x2, y2], and order (N,): whose they are.

        ``margins`` moves them by that many cells a level, to where :meth:`write_pool` pads.
        """
        c = self.config
        y1, x1, y2, x2 = g.node("Split", boxes, np.ones(4, int), outputs=4, axis=1)
        height, width = (g.node("Max", g.node("Sub", b, a), 0.0) for a, b in ((y1, y2), (x1, x2)))
        side = g.node("Sqrt", g.node("Max", g.node("Mul", height, width), 1e-6))
        octave = g.node(
            "Div", g.node("Log", g.node("Div", side, c.canonical_size)), float(np.log(2.0))
        )
        level = g.node("Clip", g.node("Floor", g.node("Add", octave, 4.0 + 1e-6)), 2.0, 5.0)
        level = g.node("Reshape", level, np.array([-1]))
        corners = g.node("Concat", x1, y1, x2, y2, axis=1)
        rois, order = [], []
        for i, number in enumerate(LEVELS):
            order.append(
                g.node(
                    "Reshape",
                    g.node("NonZero", g.node("Equal", level, float(number))),
                    np.array([-1]),
                )
            )
            own = g.node("Gather", corners, order[-1], axis=0)
            shift = margins[i] * c.strides[i] if margins else 0
            rois.append(g.node("Add", own, float(shift)) if shift else own)
        return rois, g.node("Concat", *order, axis=0)

    def write_pool(self, g, pyramid, rois, size, samples=1, margins=None):
        """RoIAlign: [(N_l, 4) x1, y1, x2, y2] -> (N, C, size, size), level by level.

        ``margins`` repeats each map's rim that many cells out, for boxes that reach beyond the image: ONNX'
        operator reads zeros there.
        """
        crops = []
        for i, (feature, own) in enumerate(zip(pyramid, rois)):
            if margins and margins[i]:
                feature = g.node(
                    "Pad", feature, np.array([0, 0, margins[i], margins[i]] * 2), mode="edge"
                )
            count = g.node("Slice", g.node("Shape", own), np.array([0]), np.array([1]))
            zeros = g.node("Expand", np.zeros(1, int), count)
            crops.append(
                g.node(
                    "RoiAlign", feature, own, zeros, mode="avg", output_height=size, output_width=size,
                    sampling_ratio=samples, spatial_scale=1.0 / self.config.strides[i],
                    coordinate_transformation_mode="half_pixel",
                )
            )  # fmt: skip
        return g.node("Concat", *crops, axis=0)

    def write_box_pool(self, g, pyramid, rois):
        """RoIs -> (P, C, 7, 7), two by two samples a cell."""
        return self.write_pool(g, pyramid, rois, self.config.box_pool, samples=2)

    def write_mask_pool(self, g, pyramid, rois):
        """RoIs, moved by ``margins`` -> (M, C, 14, 14)."""
        return self.write_pool(g, pyramid, rois, self.config.mask_pool, margins=self.margins)

    def write_box_head(self, g, x, channels_last=False):
        """(P, C, 7, 7), or (P, 7, 7, C) -> the two logits' difference (P,), the nucleus class' deltas (P, 4)."""
        head, c = self.network.box_head, self.config
        size, channels = c.box_pool, c.pyramid_channels
        x = g.node("Reshape", x, np.array([self.places, channels * size * size]))
        for i, layer in enumerate(head.fc):
            kernel, bias = array(layer.kernel), array(layer.bias)
            if i == 0 and not channels_last:  # Keras flattens (size, size, C)
                kernel = (
                    kernel.reshape(size, size, channels, -1)
                    .transpose(2, 0, 1, 3)
                    .reshape(len(kernel), -1)
                )
            if head.norms:
                scale, shift = norm_terms(head.norms[i])
                kernel, bias = kernel * scale, bias * scale + shift
            x = g.node("Relu", g.dense(x, kernel, bias))
        kernel, bias = array(head.logits.kernel), array(head.logits.bias)
        logits = g.dense(x, kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1])
        deltas = g.dense(x, array(head.deltas.kernel)[:, 4:], array(head.deltas.bias)[4:])
        return g.node("Reshape", logits, np.array([self.places])), deltas

    def write_mask_head(self, g, x):
        """(M, C, 14, 14) -> mask probabilities (M, S, S)."""
        head, c = self.network.mask_head, self.config
        for i, layer in enumerate(head.convolutions):
            x = g.convolution(x, array(layer.kernel), array(layer.bias), (1, 1, 1, 1))
            if head.norms:
                g.fold_norm(x, head.norms[i])
            x = g.node("Relu", x)
        kernel = array(head.deconv.kernel).transpose(
            3, 2, 0, 1
        )  # (2, 2, out, in) -> (in, out, 2, 2)
        x = g.node(
            "ConvTranspose", x, kernel, array(head.deconv.bias), kernel_shape=[2, 2], strides=[2, 2]
        )
        x = g.convolution(
            g.node("Relu", x), array(head.logits.kernel)[..., 1:], array(head.logits.bias)[1:]
        )
        return g.node("Reshape", g.node("Sigmoid", x), np.array([-1, c.mask_size, c.mask_size]))

    # ------------------------------------------------------------------ small ones

    def _limits(self, g, window):
        return g.node("Reshape", g.node("Concat", window, window, axis=1), np.array([1, 4]))

    def _clip(self, g, boxes, limits):
        return g.node("Min", g.node("Max", boxes, 0.0), limits)

    def _all(self, g, pairs):
        """(N, 2) bool -> (N,) bool."""
        first, second = g.node("Split", pairs, outputs=2, axis=1)
        return g.node("Reshape", g.node("And", first, second), np.array([-1]))

    def _decode(self, g, deltas, anchors):
        """As :func:`nucleus_course.geometry.boxes.decode`."""
        deltas = g.node("Mul", deltas, np.asarray(self.config.box_stds, "float32"))
        low, high = g.node("Split", anchors, outputs=2, axis=1)
        size = g.node("Max", g.node("Sub", high, low), 1e-3)
        centre = g.node("Add", low, g.node("Mul", size, 0.5))
        shift, growth = g.node("Split", deltas, outputs=2, axis=1)
        centre = g.node("Add", centre, g.node("Mul", shift, size))
        half = g.node(
            "Mul",
            g.node(
                "Mul", size, g.node("Exp", g.node("Clip", growth, -MAX_LOG_SCALE, MAX_LOG_SCALE))
            ),
            0.5,
        )
        return g.node("Concat", g.node("Sub", centre, half), g.node("Add", centre, half), axis=1)

    def _nms(self, g, boxes, scores, count, iou):
        """Greedy NMS: (count,) bool, True for what is kept; scores of ``LOW`` take no part."""
        chosen = g.node(
            "NonMaxSuppression", g.node("Unsqueeze", boxes, np.array([0])), g.node("Unsqueeze", scores, np.array([0, 1])),
            np.array([count]), np.array([iou], "float32"), np.array([LOW / 10], "float32"),
        )  # fmt: skip
        index = g.node("Gather", chosen, np.array([2]), axis=1)  # (K, 1)
        # OpenVINO pads the list with -1: those land in a place more, which is cut off.
        index = g.node("Where", g.node("Less", index, 0), count, index)
        ones = g.node(
            "Cast", g.node("GreaterOrEqual", g.node("Reshape", index, np.array([-1])), 0), to=1
        )
        hits = g.node("ScatterND", np.zeros(count + 1, "float32"), index, ones)
        hits = g.node("Slice", hits, np.array([0]), np.array([count]), np.array([0]))
        return g.node("Greater", hits, 0.5)
