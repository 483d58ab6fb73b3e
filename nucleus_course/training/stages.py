"""Which layers a stage trains, and the optimiser."""

import math
import re
from functools import partial

import keras

from nucleus_course._util.errors import UserError
from nucleus_course.models.layers import replicas, weighted_layers

HEADS = r"fpn_|rpn_|mrcnn_"
PATTERNS = {
    "heads": re.compile(HEADS),
    "4+": re.compile(HEADS + r"|res[45]|bn[45]"),
    "all": re.compile(""),
}
NOT_DECAYED = ("bias", "gamma", "beta")


def set_trainable(network, layers):
    """Freeze all layers but those of a stage; it takes effect when the model is compiled.

    Args:
        network: the Keras model.
        layers: ``heads`` (pyramid, RPN, heads), ``4+`` (and ResNet stages 4 and 5) or ``all``.

    Returns:
        Names of the trainable layers.

    Raises:
        UserError: another value of ``layers``.
    """
    if layers not in PATTERNS:
        raise UserError(
            f"unknown layers '{layers}' in a stage: choose one of {', '.join(PATTERNS)}"
        )
    moving = []
    for layer in weighted_layers(network):
        layer.trainable = bool(PATTERNS[layers].match(layer.name))
        if layer.trainable:
            moving.append(layer.name)
    return moving


def count_trainable(network):
    """(trainable weights, all weights), as numbers of values."""

    def count(variables):
        return sum(math.prod(v.shape) for v in variables)

    return count(network.trainable_variables), count(network.weights)


def make_optimizer(config):
    """The optimiser of a :class:`~nucleus_course.config.TrainingConfig`.

    SGD with momentum as in the paper, or AdamW. The gradient's global norm is clipped, as by ``clipnorm``
    in Keras 2. Weight decay is decoupled (each step subtracts rate x decay x weight) and excludes biases
    and BatchNorm. Matterport divided its L2 term by each tensor's size, which left almost no decay; the
    paper's 0.0001 is applied in full here.
    """
    common = {
        "learning_rate": 1e-3,
        "weight_decay": config.weight_decay,
        # Keras clips each replica's gradient, a share of the whole, before summing them.
        "global_clipnorm": config.global_clipnorm / replicas() if config.global_clipnorm else None,
        "use_ema": bool(config.ema),
        "ema_momentum": config.ema or 0.99,
    }
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=config.momentum, **common)
    elif config.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(**common)
    else:
        raise UserError(f"unknown optimizer '{config.optimizer}': choose sgd or adamw")
    optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    if keras.backend.backend() == "tensorflow" and replicas() == 1:
        optimizer._backend_update_step = partial(update_one_by_one, optimizer)
    return optimizer


def update_one_by_one(optimizer, gradients, variables, rate):
    """What Keras's optimisers do on one device, without TensorFlow's strategy for several.

    The strategy keeps the graph of the step for ever, 0.1 GB after each training of ``compact``.
    """
    for gradient, variable in zip(gradients, variables):
        optimizer.update_step(gradient, variable, rate)


def compile_for(network, training, layers):
    """Freeze for a stage and compile with a fresh optimiser (momentum does not carry over, as in Matterport)."""
    moving = set_trainable(network, layers)
    network.batch_size = training.batch_size // replicas()
    network.loss_weights_ = dict(training.loss_weights)
    # On a CPU, XLA under TensorFlow compiles for minutes and then runs slower; JAX always uses XLA.
    backend = keras.backend.backend()
    jit = backend == "jax" or (backend == "tensorflow" and _on_gpu())
    network.compile(optimizer=make_optimizer(training), jit_compile=jit)
    network.optimizer.build(network.trainable_variables)
    return moving


def _on_gpu():
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))
