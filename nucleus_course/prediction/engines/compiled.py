"""Compile a function of arrays on the backend that Keras uses."""

import keras
from keras import ops


def needs_fixed_shapes():
    """Whether every new array length is compiled again (JAX), so that lengths are better rounded up."""
    return keras.backend.backend() == "jax"


def compiled(function, model, free=0):
    """``function(*arrays)`` traced once per shape: tf.function, jax.jit, or plain on torch; no gradients.

    Under TensorFlow the first axis of the first ``free`` arrays may have any length without a new trace.

    The model's variables are read at each call, also on JAX, where a jitted function would otherwise keep
    the values of the first call. Arrays go in as NumPy or tensors and come out as tensors.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        traced = tf.function(function, autograph=False)

        def call(*arrays):
            tensors = [ops.convert_to_tensor(a) for a in arrays]
            shapes = [
                ([None] if i < free else t.shape[:1]) + t.shape[1:] for i, t in enumerate(tensors)
            ]
            specs = [tf.TensorSpec(s, t.dtype) for s, t in zip(shapes, tensors)]
            # By its shapes, since calling ``traced`` would warn of retracing after a few image sizes.
            return traced.get_concrete_function(*specs)(*tensors)

        return call
    if backend == "jax":
        import jax

        def pure(state, *arrays):
            with keras.StatelessScope(state_mapping=list(zip(model.variables, state))):
                return function(*arrays)

        jitted = jax.jit(pure)
        return lambda *arrays: jitted([v.value for v in model.variables], *arrays)
    if backend == "torch":
        import torch

        def run(*arrays):
            with torch.no_grad():
                return function(*[ops.convert_to_tensor(a) for a in arrays])

        return run
    return lambda *arrays: function(*[ops.convert_to_tensor(a) for a in arrays])
