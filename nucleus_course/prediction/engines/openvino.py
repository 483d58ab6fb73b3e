"""Prediction through OpenVINO: the same pieces as :class:`~nucleus_course.prediction.engines.keras_fast.KerasEngine`, compiled for CPUs.

In float32 its detections are Keras' to within rounding. Where the CPU computes in bfloat16 itself
(AVX512_BF16, AMX), trunk and heads may run in it, at up to twice the speed; boxes never do.
"""

from collections import OrderedDict
from types import SimpleNamespace

import keras
import numpy as np
from keras import ops
from scipy.special import expit

from nucleus_course._util.errors import UserError
from nucleus_course.geometry.boxes import clip, decode, dilate, pyramid_level
from nucleus_course.prediction import flips
from nucleus_course.prediction.engines import need
from nucleus_course.prediction.engines.compiled import compiled
from nucleus_course.prediction.engines.keras_fast import FastForward, bucket_count
from nucleus_course.prediction.engines.onnx_model import LEVELS, MaskRCNNWriter, require_mask_rcnn

PRECISIONS = ("auto", "float32", "bfloat16")
HINTS = {"float32": "f32", "bfloat16": "bf16"}
SIZES_KEPT = 4  # compiled input sizes; the one longest unused goes first


class OpenVINOEngine:
    """A model's prediction on OpenVINO; weights are taken over as they are when an image of a size is
    first met: make it anew after changing them.

    Args:
        model: :class:`~nucleus_course.prediction.segmenter.MaskRCNN` on any backend.
        precision: ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the CPU computes in it.
        threads: CPU threads; by default one a core.
        cache: folder for compiled graphs, so that the next process starts faster; None keeps none.

    Raises:
        UserError: ``openvino`` or ``onnx`` is not installed, the model is not a Mask R-CNN, or an
            unknown precision.
    """

    def __init__(self, model, precision="auto", threads=None, cache=None):
        if precision not in PRECISIONS:
            raise UserError(
                f"unknown precision '{precision}': choose one of {', '.join(PRECISIONS)}"
            )
        require_mask_rcnn(model)
        openvino = need("openvino")
        need("onnx")
        self.model, self.config = model, model.config
        self.core, self._fast = openvino.Core(), FastForward(model.network)
        native = "BF16" in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = ("bfloat16" if native else "float32") if precision == "auto" else precision
        self.options = {"PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self.options["INFERENCE_NUM_THREADS"] = int(threads)
        if cache:
            self.options["CACHE_DIR"] = str(cache)
        self._sizes = OrderedDict()
        # RoIAlign on TensorFlow takes a quarter of the time of OpenVINO's for boxes, a tenth for masks.
        self._pool = self._pool_masks = None
        if keras.backend.backend() == "tensorflow":
            self._pool, self._pool_masks = (
                compiled(f, model.network, free=1) for f in (self._box_pool, self._mask_pool)
            )

    def _box_pool(self, boxes, *pyramid):
        index = ops.zeros(ops.shape(boxes)[0], "int32")
        return self._fast.pool(pyramid, boxes, index, self.config.box_pool, 2)

    def _mask_pool(self, boxes, *pyramid):
        return self._fast.pool_masks(pyramid, boxes, ops.zeros(ops.shape(boxes)[0], "int32"))

    def _compile(self, proto, precision):
        model = self.core.read_model(proto.SerializeToString())
        return self.core.compile_model(
            model, "CPU", {**self.options, "INFERENCE_PRECISION_HINT": HINTS[precision]}
        )

    def _graphs(self, height, width):
        """The compiled graphs for an input size, and the mask head's margins."""
        key = height, width
        if key not in self._sizes:
            writer = MaskRCNNWriter(self.model, height, width)
            # Boxes are never in half precision: 301.3 is 302 in bfloat16. RoIAlign is a graph of its own, for
            # OpenVINO's takes three times as long in bfloat16.
            names = ("proposals",) if self._pool else ("proposals", "box_pool", "mask_pool")
            exact = {name: self._compile(getattr(writer, name)(), "float32") for name in names}
            last = self._pool is not None
            graphs = {
                "box_head": writer.box_head(channels_last=last),
                "mask_head": writer.mask_head(channels_last=last),
            }
            heads = {name: self._compile(graph, self.precision) for name, graph in graphs.items()}
            self._sizes[key] = SimpleNamespace(
                # The trunk gets a request an image, since the pyramid outlives the call; the others, whose
                # outputs are used up at once, keep theirs and the memory they fill.
                trunk=self._compile(writer.trunk(), self.precision),
                margins=writer.margins,
                **{name: graph.create_infer_request() for name, graph in (exact | heads).items()},
            )
            while len(self._sizes) > SIZES_KEPT:
                self._sizes.popitem(last=False)
        self._sizes.move_to_end(key)
        return self._sizes[key]

    def candidates(self, prepared):
        """As :meth:`~nucleus_course.prediction.engines.keras_fast.KerasEngine.candidates`."""
        graphs = self._graphs(*prepared.input.shape[1:3])
        pyramid, boxes, scores = [], [], []
        for row, size, view in zip(prepared.input, prepared.windows, prepared.views):
            trunk = _run(graphs.trunk, {"image": row[None]})
            found, score = self._boxes(graphs, trunk, size)
            pyramid.append((graphs, trunk))
            boxes.append(flips.flip_boxes(found, view, *size))
            scores.append(score)
        return pyramid, np.stack(boxes), np.stack(scores)

    def _boxes(self, graphs, trunk, window):
        """Boxes (P, 4) by falling score and scores (P,) from the trunk's output; window (2,) height, width."""
        config = self.config
        shared = {name: trunk.get_tensor(name) for name in ("rpn_scores", "rpn_deltas")}
        found = _run(graphs.proposals, {"window": window[None]}, shared)
        boxes, valid = (found.get_tensor(name).data.copy() for name in ("proposals", "valid"))
        levels = _pyramid(trunk) if self._pool is None else _arrays(trunk)
        for _ in range(config.box_passes):
            if self._pool is not None:
                head = _run(
                    graphs.box_head, {"pooled": ops.convert_to_numpy(self._pool(boxes, *levels))}
                )
            else:
                rois, order = split_levels(boxes, config)
                pooled = _run(graphs.box_pool, rois, levels)
                head = _run(graphs.box_head, {}, {"pooled": pooled.get_tensor("pooled")})
                boxes, valid = boxes[order], valid[order]
            boxes = clip(decode(head.get_tensor("deltas").data, boxes, config.box_stds), *window)
            boxes = ops.convert_to_numpy(boxes)
            logits = head.get_tensor("logits").data.copy()
        scores = np.where(valid, expit(logits), -1.0).astype("float32")
        order = np.argsort(-scores, kind="stable")
        return boxes[order], scores[order]

    def masks(self, pyramid, boxes, prepared):
        """As :meth:`~nucleus_course.prediction.engines.keras_fast.KerasEngine.masks`."""
        config, views = self.config, prepared.views
        count, size = len(boxes), config.mask_size
        if count == 0:
            return np.zeros((0, size, size), "float32")
        rows = np.zeros((bucket_count(count, config.max_detections), 4), "float32")
        total = np.zeros((count, size, size), "float32")
        for (graphs, trunk), view in zip(pyramid, views):
            turned = flips.flip_boxes(boxes, view, *prepared.window)
            rows[:count] = dilate(turned, config.mask_roi_scale)
            total += flips.flip_masks(self._view_masks(graphs, trunk, rows)[:count], view)
        return total / len(views)

    def _view_masks(self, graphs, trunk, rows):
        """Mask probabilities (M, S, S) of one view for boxes (M, 4) that are dilated already."""
        if self._pool_masks is not None:
            pooled = self._pool_masks(rows, *_arrays(trunk))
            head = _run(graphs.mask_head, {"pooled": ops.convert_to_numpy(pooled)})
            return head.get_tensor("masks").data
        rois, order = split_levels(rows, self.config, graphs.margins)
        pooled = _run(graphs.mask_pool, rois, _pyramid(trunk))
        head = _run(graphs.mask_head, {}, {"pooled": pooled.get_tensor("pooled")})
        masks = np.empty((len(rows), *head.get_tensor("masks").data.shape[1:]), "float32")
        masks[order] = head.get_tensor("masks").data
        return masks


def _run(graph, arrays, tensors=None):
    """Run a compiled graph, or a request made of one, on arrays and on other graphs' tensors, which are not copied.

    Gives the request, whose outputs stand until it runs again.
    """
    request = graph.create_infer_request() if hasattr(graph, "create_infer_request") else graph
    for name, tensor in (tensors or {}).items():
        request.set_tensor(name, tensor)
    request.infer(arrays, share_inputs=True, share_outputs=True)
    return request


def _pyramid(trunk):
    return {name: trunk.get_tensor(name) for name in ("p2", "p3", "p4", "p5")}


def _arrays(trunk):
    return [ops.convert_to_tensor(level.data) for level in _pyramid(trunk).values()]


def split_levels(boxes, config, margins=(0, 0, 0, 0)):
    """Boxes (N, 4) as the graphs take them: {"rois2": (N_2, 4) x1, y1, x2, y2, …}, and order (N,): whose they are."""
    level = ops.convert_to_numpy(pyramid_level(boxes, config.canonical_size))
    rois, order = {}, []
    for number, stride, cells in zip(LEVELS, config.strides, margins):
        order.append(np.flatnonzero(level == number))
        rois[f"rois{number}"] = boxes[order[-1]][:, [1, 0, 3, 2]] + np.float32(cells * stride)
    return rois, np.concatenate(order)
