"""Prediction with OpenVINO: the same steps as :class:`~nucleus_course.prediction.engines.keras_fast.KerasEngine`, compiled for CPUs.

In float32 its detections equal those of Keras up to rounding. On CPUs with native bfloat16 (AVX512_BF16,
AMX), trunk and heads may run in it, at up to twice the speed; boxes never do.
"""

from collections import OrderedDict
from functools import partial
from types import SimpleNamespace

import numpy as np
from keras import ops
from scipy.special import expit

from nucleus_course._util.errors import UserError
from nucleus_course.geometry.boxes import clip, decode, dilate
from nucleus_course.prediction import flips
from nucleus_course.prediction.engines import need
from nucleus_course.prediction.engines.compiled import compiled
from nucleus_course.prediction.engines.keras_fast import FastForward, run_mask_head
from nucleus_course.prediction.engines.onnx_model import LEVELS, MaskRCNNWriter, require_mask_rcnn

PRECISIONS = ("auto", "float32", "bfloat16")
HINTS = {"float32": "f32", "bfloat16": "bf16"}
SIZES_KEPT = 4  # compiled input sizes; the least recently used is dropped


class OpenVINOEngine:
    """Runs a model on OpenVINO. Its weights are copied at the first image of each size, so make a new engine
    after changing them.

    Args:
        model: :class:`~nucleus_course.prediction.segmenter.MaskRCNN` on any backend.
        precision: ``float32``, ``bfloat16``, or ``auto``: bfloat16 if the CPU has it.
        threads: CPU threads; by default one per core.
        cache: folder for compiled graphs, so that the next process starts faster; None for no cache.

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
        # RoIAlign on the Keras backend takes a quarter of OpenVINO's time for boxes, a tenth for masks.
        self._pool = compiled(self._box_pool, model.network, free=1)
        self._pool_masks = compiled(self._mask_pool, model.network, free=1)

    def _box_pool(self, boxes, *pyramid):
        index = ops.zeros(ops.shape(boxes)[0], "int32")
        return self._fast.pool(pyramid, boxes, index, self.config.box_pool, 2)

    def _mask_pool(self, boxes, *pyramid):
        return self._fast.pool_masks(pyramid, boxes, ops.zeros(ops.shape(boxes)[0], "int32"))

    def _compile(self, proto, precision):
        model = self.core.read_model(proto.SerializeToString())
        options = {**self.options, "INFERENCE_PRECISION_HINT": HINTS[precision]}
        return self.core.compile_model(model, "CPU", options)

    def _graphs(self, height, width):
        """The compiled graphs for an input size."""
        key = height, width
        if key not in self._sizes:
            writer = MaskRCNNWriter(self.model, height, width)
            # Boxes are never in half precision: 301.3 is 302 in bfloat16.
            parts = {
                "proposals": self._compile(writer.proposals(), "float32"),
                "box_head": self._compile(writer.box_head(), self.precision),
                "mask_head": self._compile(writer.mask_head(), self.precision),
            }
            self._sizes[key] = SimpleNamespace(
                # The trunk gets a new request for each image, since the pyramid outlives the call. The
                # others' outputs are used at once, so they reuse one request and its memory.
                trunk=self._compile(writer.trunk(), self.precision),
                **{name: graph.create_infer_request() for name, graph in parts.items()},
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
        for _ in range(config.box_passes):
            pooled = ops.convert_to_numpy(self._pool(boxes, *_pyramid(trunk)))
            head = _run(graphs.box_head, {"pooled": pooled})
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
        total = np.zeros((count, size, size), "float32")
        for (graphs, trunk), view in zip(pyramid, views):
            rows = dilate(flips.flip_boxes(boxes, view, *prepared.window), config.mask_roi_scale)
            probs = run_mask_head(partial(self._view_masks, graphs, trunk), (rows,), fixed=True)
            total += flips.flip_masks(probs, view)
        return total / len(views)

    def _view_masks(self, graphs, trunk, rows):
        """Mask probabilities (M, S, S) of one view for already dilated boxes (M, 4)."""
        pooled = ops.convert_to_numpy(self._pool_masks(rows, *_pyramid(trunk)))
        return _run(graphs.mask_head, {"pooled": pooled}).get_tensor("masks").data


def _run(graph, arrays, tensors=None):
    """Run a compiled graph, or a request of one, on arrays and on other graphs' tensors, which are not copied.

    Returns the request; its outputs are valid until it runs again.
    """
    request = graph.create_infer_request() if hasattr(graph, "create_infer_request") else graph
    for name, tensor in (tensors or {}).items():
        request.set_tensor(name, tensor)
    request.infer(arrays, share_inputs=True, share_outputs=True)
    return request


def _pyramid(trunk):
    """P2 to P5 as tensors of the backend."""
    return [ops.convert_to_tensor(trunk.get_tensor(f"p{level}").data) for level in LEVELS]
