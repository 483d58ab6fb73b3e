"""Compile a function of arrays on the backend that Keras uses."""

import gc
from collections import OrderedDict

import keras
from keras import ops

TRACES = 12  # shapes of a function that stay traced; each takes 10 to 60 MB


def needs_fixed_shapes():
    """Whether every new array length is compiled again (JAX), so that lengths are better rounded up."""
    return keras.backend.backend() == "jax"


def compiled(function, model, free=0):
    """``function(*arrays)`` traced once per shape: tf.function, jax.jit, or plain on torch; no gradients.

    Under TensorFlow the first axis of the first ``free`` arrays may have any length without a new trace, and the
    :data:`TRACES` shapes that were used last stay traced: images of many sizes would fill the memory.

    The model's variables are read at each call, also on JAX, where a jitted function would otherwise keep
    the values of the first call. Arrays go in as NumPy or tensors and come out as tensors.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        traces: OrderedDict = OrderedDict()

        def call(*arrays):
            tensors = [ops.convert_to_tensor(a) for a in arrays]
            shapes = [
                ([None] if i < free else t.shape[:1]) + t.shape[1:] for i, t in enumerate(tensors)
            ]
            specs = [tf.TensorSpec(s, t.dtype) for s, t in zip(shapes, tensors)]
            key = tuple((tuple(spec.shape), spec.dtype) for spec in specs)
            if key not in traces:
                while len(traces) >= TRACES:
                    traces.popitem(last=False)
                    gc.collect()  # a graph holds references to itself
                traces[key] = tf.function(function, autograph=False).get_concrete_function(*specs)
            traces.move_to_end(key)
            return traces[key](*tensors)

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
