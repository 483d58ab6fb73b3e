"""Keras helpers for both networks."""

import keras


def weighted_layers(model):
    """Every innermost layer of the model that has weights, in a fixed order."""
    return [
        layer
        for layer in model._flatten_layers(include_self=False, recursive=True)
        if layer.weights and not any(True for _ in layer._flatten_layers(include_self=False))
    ]


def replicas():
    """The number of replicas over which tf.distribute sums gradients; 1 elsewhere."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
