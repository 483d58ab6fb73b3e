"""The five losses of Mask R-CNN, each a mean over the samples; padding has no weight.

All take and return float32. A batch without samples of a kind has a loss of 0, not NaN.
"""

from keras import ops


def weighted_mean(values, weights):
    """Sum of values x weights over the sum of weights (at least 1)."""
    weights = ops.cast(weights, "float32")
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1.0)


def cross_entropy(logits, labels, weights):
    """Softmax cross-entropy: logits (..., 2), labels (...,) int 0 or 1, weights (...,) -> scalar."""
    margin = logits[..., 1] - logits[..., 0]
    sign = 2.0 * ops.cast(labels, "float32") - 1.0
    return weighted_mean(ops.softplus(-sign * margin), weights)


def smooth_l1(predicted, target, weights, beta=1.0):
    """Huber's loss over beta: d^2 / (2 beta) for d < beta, d - beta / 2 beyond (Fast R-CNN, equation 3).

    predicted, target (..., 4), weights (...,) -> scalar, the mean over coordinates.
    """
    distance = ops.abs(predicted - target)
    loss = ops.where(distance < beta, 0.5 * distance * distance / beta, distance - 0.5 * beta)
    return weighted_mean(ops.mean(loss, axis=-1), weights)


def mask_cross_entropy(logits, target, weights):
    """Binary cross-entropy over mask cells: logits and target (M, S, S), weights (M,) -> scalar.

    ``target`` may be fractional: the share of the cell that the nucleus covers.
    """
    loss = ops.softplus(logits) - logits * target  # = -t log p - (1 - t) log(1 - p)
    return weighted_mean(ops.mean(loss, axis=(1, 2)), weights)
