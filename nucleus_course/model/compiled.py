"""Compile a function of arrays on whatever backend Keras runs on."""

import keras
from keras import ops


def compiled(function, model):
    """``function(*arrays)`` traced once a shape: tf.function, jax.jit, or plain on torch; no gradients.

    The model's variables are read at each call, also on JAX, where a jitted function would otherwise keep
    the values of the first one. Arrays go in as NumPy or tensors and come out as tensors.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        traced = tf.function(function, autograph=False)
        return lambda *arrays: traced(*[ops.convert_to_tensor(a) for a in arrays])
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
