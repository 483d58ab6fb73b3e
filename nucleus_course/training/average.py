"""Averaged weights (an exponential moving average), which the optimiser keeps."""

from contextlib import contextmanager


def take_average(network):
    """Overwrite the live weights with the optimiser's averaged ones; before its first step there are none."""
    if int(network.optimizer.iterations) == 0:
        return
    network.optimizer.use_ema = True
    network.optimizer.finalize_variable_values(network.trainable_variables)
    network.optimizer.use_ema = False


def restart_average(network):
    """Begin the averaged weights again at the live ones.

    Keras starts the average at the first step, so early on it would be mostly the random start: after n steps
    that keeps a share of decay ** n. Until 2 / (1 - decay) steps are done the average is the live weights.
    """
    optimizer = network.optimizer
    for average, variable in zip(
        optimizer._model_variables_moving_average, optimizer._trainable_variables
    ):
        average.assign(variable.numpy())  # a copy: JAX may give the buffer of either away


@contextmanager
def averaged(network, config):
    """The network with its averaged weights (EMA) in place; the live ones come back afterwards."""
    if not config.ema:
        yield
        return
    live = [v.numpy() for v in network.trainable_variables]
    take_average(network)
    try:
        yield
    finally:
        for variable, value in zip(network.trainable_variables, live):
            variable.assign(value)
