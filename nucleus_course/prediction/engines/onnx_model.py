"""Mask R-CNN as ONNX graphs for one image of one size, in float32.

Two graphs are a whole detector for any ONNX runtime: ``detector`` and ``masks`` compute the same as
:meth:`MaskRCNNNetwork.candidates` and :meth:`MaskRCNNNetwork.mask_logits`. ``trunk``, ``proposals``,
``box_head`` and ``mask_head`` are parts of them with either convolutions or boxes, so that the convolutions
may run in half precision. Boxes are (N, 4) float32 (y1, x1, y2, x2) in network pixels, the pyramid's levels
(1, H_l, W_l, C), both as in Keras.
"""

import numpy as np

from nucleus_course._util.errors import UserError
from nucleus_course.geometry.boxes import MAX_LOG_SCALE
from nucleus_course.models.mask_rcnn.anchors import level_shapes
from nucleus_course.models.mask_rcnn.proposals import level_budget
from nucleus_course.models.weights.folder import kind_of
from nucleus_course.prediction.engines.onnx_writer import Graph, array, norm_terms, write_functional

LOW = -1e9  # score of boxes that are excluded
LEVELS = (2, 3, 4, 5)  # the levels that RoIs are pooled from


def require_mask_rcnn(model):
    """Raise a UserError for a model of another kind: only Mask R-CNN is written as ONNX."""
    kind = kind_of(model.config)
    if kind != "mask_rcnn":
        raise UserError(
            f"{model.config.name} is a {kind}: only Mask R-CNN models run outside Keras"
        )


class MaskRCNNWriter:
    """Writes a model's graphs for an input of height x width network pixels (multiples of ``pad_multiple``)."""

    def __init__(self, model, height, width):
        self.network, self.config, self.thresholds = model.network, model.config, model.thresholds
        self.height, self.width = height, width
        self.shapes = level_shapes(height, width, self.config.strides)
        ratios = len(self.config.anchor_ratios)
        self.counts = [rows * columns * ratios for rows, columns in self.shapes]
        self.budgets = [level_budget(size, self.config.pre_nms[1]) for size in self.counts]
        self.places = min(self.config.post_nms[1], sum(self.budgets))  # P, the proposals

    @property
    def margins(self):
        """Cells by which a mask's box, enlarged by ``mask_roi_scale``, may reach beyond the image; one per level."""
        reach = max(0.5 * (self.config.mask_roi_scale - 1.0), 0)
        return [int(np.ceil(reach * max(shape))) + (reach > 0) for shape in self.shapes[:4]]

    # ------------------------------------------------------------------ whole graphs

    def detector(self):
        """image (1, H, W, 3), window (1, 2) -> p2..p5, boxes (P, 4) by falling score, scores (P,), -1 for padding."""
        g = Graph("detector")
        image, window = self._image(g), g.input("window", (1, 2))
        pyramid, scores, deltas = self.write_trunk(g, image)
        boxes, valid = self.write_proposals(g, scores, deltas, window)
        limits = self._limits(g, window)
        for _ in range(self.config.box_passes):
            # Pooling goes level by level, which changes the order of the boxes; they are sorted at the end.
            pooled, order = self.write_pool(g, pyramid, boxes, self.config.box_pool, samples=2)
            order = g.reshape(order, self.places)
            boxes, valid = g.gather(boxes, order), g.gather(valid, order)
            logits, deltas = self.write_box_head(g, pooled)
            boxes = self._clip(g, self._decode(g, deltas, boxes), limits)
        scores = g.node("Where", valid, g.node("Sigmoid", logits), -1.0)
        scores, order = g.largest(scores, self.places)
        self._pyramid_outputs(g, pyramid)
        g.output(g.gather(boxes, order), "boxes", (self.places, 4))
        g.output(scores, "scores", (self.places,))
        return g.model(self._metadata())

    def masks(self):
        """p2..p5, boxes (M, 4) -> masks (M, S, S), probabilities in the boxes enlarged by ``mask_roi_scale``."""
        g, c = Graph("masks"), self.config
        shapes = [(1, *shape, c.pyramid_channels) for shape in self.shapes]
        levels = [g.input(f"p{level}", shape) for level, shape in zip(LEVELS, shapes)]
        boxes = g.input("boxes", ("M", 4))
        if c.mask_roi_scale != 1.0:
            low, high = g.halves(boxes)
            centre = g.node("Mul", g.node("Add", low, high), 0.5)
            half = g.node("Mul", g.node("Sub", high, low), 0.5 * c.mask_roi_scale)
            boxes = self._box(g, centre, half)
        pyramid = [g.channels_first(level) for level in levels]
        pooled, order = self.write_pool(g, pyramid, boxes, c.mask_pool, margins=self.margins)
        masks = self.write_mask_head(g, pooled)
        _, back = g.node("TopK", order, g.node("Shape", order), outputs=2, axis=0, largest=0)
        g.output(g.gather(masks, back), "masks", ("M", c.mask_size, c.mask_size))
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

    def box_head(self):
        """pooled (P, 7, 7, C) -> logits (P,), differences of the two classes, and deltas (P, 4)."""
        g = Graph("box_head")
        pooled = g.input("pooled", self._pooled(self.places, self.config.box_pool))
        logits, deltas = self.write_box_head(g, pooled)
        g.output(logits, "logits", (self.places,))
        g.output(deltas, "deltas", (self.places, 4))
        return g.model()

    def mask_head(self):
        """pooled (M, 14, 14, C) -> masks (M, S, S)."""
        g = Graph("mask_head")
        pooled = g.input("pooled", self._pooled("M", self.config.mask_pool))
        masks = self.write_mask_head(g, pooled)
        g.output(masks, "masks", ("M", self.config.mask_size, self.config.mask_size))
        return g.model()

    def _pooled(self, count, size):
        return count, size, size, self.config.pyramid_channels

    def _metadata(self):
        t = self.thresholds
        point = {"score_threshold": t.score, "nms_iou": t.nms_iou, "mask_threshold": t.mask}
        return {"preset": self.config.name, **point}

    def _image(self, g):
        return g.input("image", (1, self.height, self.width, 3))

    def _pyramid_outputs(self, g, pyramid):
        for level, feature, shape in zip(LEVELS, pyramid, self.shapes):
            shape = (1, *shape, self.config.pyramid_channels)
            g.output(g.channels_last(feature), f"p{level}", shape)

    # ------------------------------------------------------------------ parts

    def write_trunk(self, g, image):
        """Image (1, H, W, 3) -> [P2, …, P5], logit differences (A,), deltas (A, 4) in the order of the anchors."""
        network = self.network
        stages = write_functional(g, network.backbone, [g.channels_first(image)])
        pyramid = write_functional(g, network.pyramid, stages)
        names = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")
        shared, logits, shifts = (network.rpn.get_layer(name) for name in names)
        kernel, bias = array(logits.kernel), array(logits.bias)
        scores, deltas = [], []
        for feature in pyramid:
            y = g.convolution(feature, shared.kernel, shared.bias, padding="same")
            y = g.node("Relu", y)
            # Only the difference of the two logits counts: one channel per ratio instead of two.
            score = g.convolution(y, kernel[..., 1::2] - kernel[..., ::2], bias[1::2] - bias[::2])
            scores.append(g.reshape(g.channels_last(score), -1))
            delta = g.convolution(y, shifts.kernel, shifts.bias)
            deltas.append(g.reshape(g.channels_last(delta), -1, 4))
        return pyramid[:4], *(g.node("Concat", *parts, axis=0) for parts in (scores, deltas))

    def write_proposals(self, g, scores, deltas, window):
        """As :func:`nucleus_course.models.mask_rcnn.proposals.propose`: boxes (P, 4), valid (P,) bool."""
        anchors, limits = self.network.anchors(self.height, self.width), self._limits(g, window)
        kept_boxes, kept_scores, start = [], [], 0
        for size, budget in zip(self.counts, self.budgets):
            rows = [np.array([start]), np.array([start + size]), np.array([0])]
            best, index = g.largest(g.node("Slice", scores, *rows), budget)
            own = g.gather(anchors[start : start + size], index)
            boxes = self._decode(g, g.gather(g.node("Slice", deltas, *rows), index), own)
            low, high = g.halves(own)
            centre = g.node("Mul", g.node("Add", low, high), 0.5)
            real = self._all(g, g.node("Less", centre, window))
            boxes = self._clip(g, boxes, limits)
            low, high = g.halves(boxes)
            big = self._all(g, g.node("GreaterOrEqual", g.node("Sub", high, low), 1.0))
            best = g.node("Where", g.node("And", real, big), best, LOW)
            keep = self._nms(g, boxes, best, budget, self.config.rpn_nms)
            kept_scores.append(g.node("Where", keep, best, LOW))
            kept_boxes.append(boxes)
            start += size
        boxes, scores = (g.node("Concat", *parts, axis=0) for parts in (kept_boxes, kept_scores))
        scores, index = g.largest(scores, self.places)
        valid = g.node("Greater", scores, LOW / 10)
        boxes = g.node("Where", g.reshape(valid, -1, 1), g.gather(boxes, index), 0.0)
        return boxes, valid

    def write_levels(self, g, boxes):
        """Boxes (N, 4) to the RoIs of each level, [(N_l, 4) x1, y1, x2, y2], and their indices [(N_l,)]."""
        y1, x1, y2, x2 = g.node("Split", boxes, np.ones(4, int), outputs=4, axis=1)
        height, width = (g.node("Max", g.node("Sub", b, a), 0.0) for a, b in ((y1, y2), (x1, x2)))
        side = g.node("Sqrt", g.node("Max", g.node("Mul", height, width), 1e-6))
        octave = g.node("Log", g.node("Div", side, self.config.canonical_size))
        octave = g.node("Div", octave, float(np.log(2.0)))
        level = g.node("Clip", g.node("Floor", g.node("Add", octave, 4.0 + 1e-6)), 2.0, 5.0)
        level = g.reshape(level, -1)
        corners = g.node("Concat", x1, y1, x2, y2, axis=1)
        own = [g.node("NonZero", g.node("Equal", level, float(number))) for number in LEVELS]
        order = [g.reshape(index, -1) for index in own]
        return [g.gather(corners, index) for index in order], order

    def write_pool(self, g, pyramid, boxes, size, samples=1, margins=(0, 0, 0, 0)):
        """RoIAlign: boxes (N, 4) -> pooled (N, size, size, C), level by level, and their indices (N,).

        ``margins`` pads each map with its edge values by that many cells, for boxes that reach beyond the
        image: ONNX's operator reads zeros there.
        """
        crops, strides = [], self.config.strides
        rois, order = self.write_levels(g, boxes)
        for feature, own, stride, margin in zip(pyramid, rois, strides, margins):
            if margin:
                own = g.node("Add", own, float(margin * stride))
                feature = g.node("Pad", feature, np.array([0, 0, margin, margin] * 2), mode="edge")
            count = g.node("Slice", g.node("Shape", own), np.array([0]), np.array([1]))
            options = {"output_height": size, "output_width": size, "sampling_ratio": samples}
            options |= {"spatial_scale": 1.0 / stride, "mode": "avg"}
            options |= {"coordinate_transformation_mode": "half_pixel"}
            zeros = g.node("Expand", np.zeros(1, int), count)
            crops.append(g.node("RoiAlign", feature, own, zeros, **options))
        pooled = g.channels_last(g.node("Concat", *crops, axis=0))
        return pooled, g.node("Concat", *order, axis=0)

    def write_box_head(self, g, x):
        """(P, 7, 7, C) -> the difference of the two logits (P,), the nucleus class's deltas (P, 4)."""
        head = self.network.box_head
        x = g.reshape(x, self.places, self.config.box_pool**2 * self.config.pyramid_channels)
        for i, layer in enumerate(head.fc):
            kernel, bias = array(layer.kernel), array(layer.bias)
            if head.norms:
                scale, shift = norm_terms(head.norms[i])
                kernel, bias = kernel * scale, bias * scale + shift
            x = g.node("Relu", g.dense(x, kernel, bias))
        kernel, bias = array(head.logits.kernel), array(head.logits.bias)
        logits = g.dense(x, kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1])
        deltas = g.dense(x, array(head.deltas.kernel)[:, 4:], array(head.deltas.bias)[4:])
        return g.reshape(logits, self.places), deltas

    def write_mask_head(self, g, x):
        """(M, 14, 14, C) -> mask probabilities (M, S, S)."""
        head, x = self.network.mask_head, g.channels_first(x)
        for i, layer in enumerate(head.convolutions):
            x = g.convolution(x, layer.kernel, layer.bias, padding="same")
            if head.norms:
                g.fold_norm(x, head.norms[i])
            x = g.node("Relu", x)
        kernel = array(head.deconv.kernel).transpose(3, 2, 0, 1)  # to (in, out, 2, 2)
        x = g.node("ConvTranspose", x, kernel, array(head.deconv.bias), strides=[2, 2])
        last = array(head.logits.kernel)[..., 1:], array(head.logits.bias)[1:]
        x = g.node("Sigmoid", g.convolution(g.node("Relu", x), *last))
        return g.reshape(x, -1, self.config.mask_size, self.config.mask_size)

    # ------------------------------------------------------------------ small ones

    def _limits(self, g, window):
        return g.node("Concat", window, window, axis=1)

    def _clip(self, g, boxes, limits):
        return g.node("Min", g.node("Max", boxes, 0.0), limits)

    def _all(self, g, pairs):
        """(N, 2) bool -> (N,) bool."""
        return g.reshape(g.node("And", *g.halves(pairs)), -1)

    def _box(self, g, centre, half):
        """Centres and half sides (N, 2) -> boxes (N, 4)."""
        return g.node("Concat", g.node("Sub", centre, half), g.node("Add", centre, half), axis=1)

    def _decode(self, g, deltas, anchors):
        """As :func:`nucleus_course.geometry.boxes.decode`."""
        deltas = g.node("Mul", deltas, np.asarray(self.config.box_stds, "float32"))
        low, high = g.halves(anchors)
        size = g.node("Max", g.node("Sub", high, low), 1e-3)
        centre = g.node("Add", low, g.node("Mul", size, 0.5))
        shift, growth = g.halves(deltas)
        centre = g.node("Add", centre, g.node("Mul", shift, size))
        growth = g.node("Exp", g.node("Clip", growth, -MAX_LOG_SCALE, MAX_LOG_SCALE))
        return self._box(g, centre, g.node("Mul", g.node("Mul", size, growth), 0.5))

    def _nms(self, g, boxes, scores, count, iou):
        """Greedy NMS: (count,) bool, True for boxes that are kept; scores of ``LOW`` are excluded."""
        boxes, scores = g.reshape(boxes, 1, count, 4), g.reshape(scores, 1, 1, count)
        limits = np.array([count]), np.array([iou], "float32"), np.array([LOW / 10], "float32")
        chosen = g.node("NonMaxSuppression", boxes, scores, *limits)
        index = g.node("Gather", chosen, np.array([2]), axis=1)  # (K, 1)
        # OpenVINO pads the list with -1: these go to one extra place, which is cut off.
        index = g.node("Where", g.node("Less", index, 0), count, index)
        ones = g.node("Cast", g.node("GreaterOrEqual", g.reshape(index, -1), 0), to=1)
        hits = g.node("ScatterND", np.zeros(count + 1, "float32"), index, ones)
        hits = g.node("Slice", hits, np.array([0]), np.array([count]), np.array([0]))
        return g.node("Greater", hits, 0.5)
