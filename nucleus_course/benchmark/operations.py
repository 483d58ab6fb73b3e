"""The multiply-accumulates of a prediction, counted from the layers."""

from math import prod

from nucleus_course.models.mask_rcnn.anchors import level_shapes


def convolution_macs(height, width, kernel, channels, filters):
    """Multiply-accumulates of a convolution with ``height`` x ``width`` outputs."""
    return height * width * kernel * kernel * channels * filters


def functional_macs(model, shapes):
    """Multiply-accumulates of a functional model's convolutions, and its output shapes.

    Args:
        shapes: [(1, H, W, C), …], one for each model input.
    """
    from keras import layers, tree

    made = {id(t): shape for t, shape in zip(model.inputs, shapes)}
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.InputLayer):
            continue
        own = [made[id(t)] for t in tree.flatten(layer.input)]
        shape = layer.compute_output_shape(own if len(own) > 1 else own[0])
        if isinstance(layer, layers.Conv2D):
            total += shape[1] * shape[2] * prod(layer.kernel.shape)
        for tensor in tree.flatten(layer.output):
            made[id(tensor)] = shape
    return total, [made[id(t)] for t in model.outputs]


def count_operations(network, height, width, detections):
    """Multiply-accumulates of one prediction, part by part.

    Args:
        network: :class:`~nucleus_course.models.MaskRCNNNetwork`.
        height, width: the network's input, multiples of ``pad_multiple``.
        detections: boxes that the mask head runs on.

    Returns:
        {"trunk", "pyramid", "rpn", "box head", "mask head", "total"}: int. The box head counts for every proposal
        and pass; RoIAlign, NMS and pasting are less than 1% and not counted.
    """
    from nucleus_course.models.mask_rcnn.proposals import level_budget

    c = network.config
    trunk, stages = functional_macs(network.backbone, [(1, height, width, 3)])
    pyramid, _ = functional_macs(network.pyramid, stages)
    shapes = level_shapes(height, width, c.strides)
    levels = [(1, *shape, c.pyramid_channels) for shape in shapes]
    rpn = sum(functional_macs(network.rpn, [level])[0] for level in levels)
    anchors = [rows * columns * len(c.anchor_ratios) for rows, columns in shapes]
    budgets = [level_budget(count, c.pre_nms[1]) for count in anchors]
    proposals = min(c.post_nms[1], sum(budgets))
    wide = c.box_head_channels
    layers = c.box_pool**2 * c.pyramid_channels * wide, wide * wide, wide * (2 + 8)
    box = proposals * c.box_passes * sum(layers)
    side, channels, filters = c.mask_pool, c.pyramid_channels, c.mask_head_channels
    mask = convolution_macs(side, side, 3, channels, filters)
    mask += 3 * convolution_macs(side, side, 3, filters, filters)
    mask += convolution_macs(side, side, 2, filters, filters)
    mask += convolution_macs(2 * side, 2 * side, 1, filters, 2)
    parts = {"trunk": trunk, "pyramid": pyramid, "rpn": rpn, "box head": box}
    parts["mask head"] = detections * mask
    return parts | {"total": sum(parts.values())}
