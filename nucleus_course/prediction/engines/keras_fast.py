"""The forward pass of Mask R-CNN, made fast for prediction on the Keras backend.

:class:`FastForward` computes the same as
:class:`~nucleus_course.models.mask_rcnn.network.MaskRCNNNetwork`, up to rounding, in less time. It replaces
four parts: BatchNorm is folded into convolutions, the RPN's two 1x1 convolutions become one, RoIAlign is one
TensorFlow kernel, and the mask head computes the nucleus class alone. Tests compare each with the plain one.
"""

import keras
import numpy as np
from keras import ops

from nucleus_course.geometry.boxes import dilate
from nucleus_course.models.mask_rcnn.network import MaskRCNNNetwork
from nucleus_course.models.mask_rcnn.proposals import merge_levels
from nucleus_course.prediction import flips
from nucleus_course.prediction.engines import winograd
from nucleus_course.prediction.engines.compiled import compiled, needs_fixed_shapes
from nucleus_course.prediction.engines.folded import add_bias, convolve, fold, run_folded
from nucleus_course.prediction.engines.roi_align_fast import crop_roi_align

# Boxes that the mask head takes at a time: pooled features are 200 kB a box, and several copies of them live at once.
MASK_CHUNK = 128
# If every new length is compiled again, the mask head runs on one of these.
MASK_BUCKETS = (16, 48, MASK_CHUNK)


class FastForward:
    """The parts of the network's forward pass, with the slow ones replaced."""

    candidates = MaskRCNNNetwork.candidates
    proposals = MaskRCNNNetwork.proposals
    anchors = MaskRCNNNetwork.anchors
    refine = MaskRCNNNetwork.refine
    classify = MaskRCNNNetwork.classify

    def __init__(self, network):
        self.network, self.config, self.box_head = network, network.config, network.box_head

    def features(self, image):
        """As the network's, with each BatchNorm folded."""
        return run_folded(self.network.pyramid, run_folded(self.network.backbone, image))

    def rpn_outputs(self, pyramid):
        """As the network's, with both 1x1 convolutions as one, so that each level is read once."""
        return merge_levels([self._rpn(level) for level in pyramid])

    def _rpn(self, feature):
        names = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")
        shared, *ends = (self.network.rpn.get_layer(name) for name in names)
        kernel = ops.concatenate([end.kernel for end in ends], axis=-1)
        bias = ops.concatenate([end.bias for end in ends], axis=0)
        x = ops.cast(convolve(shared, feature), "float32")
        x = add_bias(ops.conv(x, kernel, padding="same", data_format="channels_last"), bias)
        return x[..., : ends[0].filters], x[..., ends[0].filters :]

    def pool(self, pyramid, boxes, batch_index, size, samples=1, beyond=False):
        """As the network's, by one kernel if the backend has it.

        ``beyond``: boxes may reach beyond the image's edge.
        """
        if keras.backend.backend() != "tensorflow":
            return self.network.pool(pyramid, boxes, batch_index, size, samples)
        c = self.config
        options = {"strides": c.strides[:4], "canonical_size": c.canonical_size, "beyond": beyond}
        return crop_roi_align(pyramid[:4], boxes, batch_index, size, samples=samples, **options)

    def pool_masks(self, pyramid, boxes, batch_index):
        """The mask head's input for already dilated boxes (M, 4): (M, 14, 14, C)."""
        beyond = self.config.mask_roi_scale > 1.0
        return self.pool(pyramid, boxes, batch_index, self.config.mask_pool, beyond=beyond)

    def mask_logits(self, pyramid, boxes, batch_index):
        """As the network's: boxes (M, 4) -> (M, 28, 28)."""
        boxes = dilate(boxes, self.config.mask_roi_scale)
        return nucleus_logits(self.network.mask_head, self.pool_masks(pyramid, boxes, batch_index))


def nucleus_logits(head, pooled):
    """The mask head's nucleus class alone: (M, 14, 14, C) -> logits (M, 28, 28), float32.

    BatchNorm is folded. The transposed convolution is one matrix product per cell, because with a 2x2 kernel
    and stride 2 each output cell has one input cell. Wide float32 convolutions use Winograd's method on a CPU.
    """
    layers = list(zip(head.convolutions, head.norms or [None] * len(head.convolutions)))
    if not winograd.pays(head.convolutions):
        x = pooled
        for layer, norm in layers:
            x = ops.relu(convolve(layer, x, norm))
        return _doubled(head, x)
    folded = []
    for layer, norm in layers:
        kernel, bias = layer.kernel, layer.bias
        kernel, bias = fold(kernel, bias, norm) if norm else (kernel, bias)
        folded.append((winograd.transform_kernel(kernel), bias))

    def nucleus(x):
        for kernel, bias in folded:
            x = ops.relu(add_bias(winograd.convolve_3x3(x, kernel), bias))
        return _doubled(head, x)

    logits = winograd.in_chunks(nucleus, ops.cast(pooled, "float32"))
    return ops.reshape(logits, (-1, 2 * head.input_shape_[1], 2 * head.input_shape_[2]))


def _doubled(head, x):
    """The transposed and the last 1x1 convolution: (M, 14, 14, C) -> logits (M, 28, 28), float32."""
    side, width = head.input_shape_[1], head.deconv.filters
    kernel = ops.transpose(head.deconv.kernel, (3, 0, 1, 2))  # (in, row, column, out)
    kernel = ops.cast(ops.reshape(kernel, (-1, 4 * width)), x.dtype)
    x = ops.matmul(ops.reshape(x, (-1, kernel.shape[0])), kernel)
    x = ops.relu(add_bias(x, ops.tile(head.deconv.bias, (4,))))
    x = ops.matmul(ops.reshape(x, (-1, width)), ops.cast(head.logits.kernel[0, 0, :, 1:], x.dtype))
    x = ops.cast(x, "float32") + head.logits.bias[1]
    x = ops.transpose(ops.reshape(x, (-1, side, side, 2, 2)), (0, 1, 3, 2, 4))
    return ops.reshape(x, (-1, 2 * side, 2 * side))


def run_mask_head(mask_head, arrays, fixed):
    """The mask head's output for boxes, at most ``MASK_CHUNK`` at a time: (M, S, S), float32.

    Args:
        mask_head: takes parts of ``arrays``.
        arrays: each with M rows, M at least 1.
        fixed: whether each part is padded with zeros to one of the lengths ``MASK_BUCKETS``.
    """
    found = []
    for start in range(0, len(arrays[0]), MASK_CHUNK):
        parts = [array[start : start + MASK_CHUNK] for array in arrays]
        count = len(parts[0])
        if fixed:
            more = next(size for size in MASK_BUCKETS if count <= size) - count
            parts = [np.pad(p, [(0, more)] + [(0, 0)] * (p.ndim - 1)) for p in parts]
        found.append(np.array(ops.convert_to_numpy(mask_head(*parts))[:count]))
    return np.concatenate(found)


class KerasEngine:
    """Runs a Mask R-CNN on the backend that Keras uses, each part compiled once per shape."""

    def __init__(self, network):
        self.config = network.config
        fast = FastForward(network)
        self._candidates = compiled(fast.candidates, network)

        def masks(boxes, index, *pyramid):
            return ops.sigmoid(fast.mask_logits(list(pyramid), boxes, index))

        self._masks = compiled(masks, network, free=2)

    def candidates(self, prepared):
        """Proposals after the box head, before the final NMS, in each view of an image.

        Args:
            prepared: :class:`~nucleus_course.prediction.pipeline.Prepared`.

        Returns:
            pyramid (for :meth:`masks` alone), boxes (V, P, 4) network pixels in the image's own
            orientation, scores (V, P), -1 for padding.
        """
        found = []
        # One view after the other: a batch is no faster on a CPU and takes more memory.
        for i in range(len(prepared.views)):
            found.append(self._candidates(prepared.input[i : i + 1], prepared.windows[i : i + 1]))
        pyramids, boxes, scores = zip(*found)
        boxes = [ops.convert_to_numpy(b)[0] for b in boxes]
        boxes = [flips.flip_boxes(b, v, *prepared.window) for b, v in zip(boxes, prepared.views)]
        scores = np.concatenate([ops.convert_to_numpy(s) for s in scores])
        pyramid = [ops.concatenate(level, axis=0) for level in zip(*pyramids)]
        return pyramid if len(pyramids) > 1 else pyramids[0], np.stack(boxes), scores

    def masks(self, pyramid, boxes, prepared):
        """Mask probabilities (M, S, S) for boxes (M, 4) in network pixels, averaged over the views."""
        views, count, size = prepared.views, len(boxes), self.config.mask_size
        if count == 0:
            return np.zeros((0, size, size), "float32")
        rows = np.concatenate([flips.flip_boxes(boxes, v, *prepared.window) for v in views])
        index = np.repeat(np.arange(len(views), dtype="int32"), count)
        probs = run_mask_head(
            lambda *parts: self._masks(*parts, *pyramid[:4]), (rows, index), needs_fixed_shapes()
        )
        probs = probs.reshape(len(views), count, size, size)
        return np.mean([flips.flip_masks(p, v) for p, v in zip(probs, views)], axis=0)
