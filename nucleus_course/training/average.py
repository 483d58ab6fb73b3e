"""Averaged weights (an exponential moving average), kept by the optimiser."""

from contextlib import contextmanager


def take_average(network):
    """Overwrite the live weights with the optimiser's averaged ones, if it has taken a step."""
    if int(network.optimizer.iterations) == 0:
        return
    network.optimizer.use_ema = True
    network.optimizer.finalize_variable_values(network.trainable_variables)
    network.optimizer.use_ema = False


def restart_average(network):
    """Restart the average at the live weights.

    Keras starts the average at the first step, so the random initial weights keep a share of decay ** n after n
    steps. The training loop therefore restarts it until 2 / (1 - decay) steps are done.
    """
    optimizer = network.optimizer
    for average, variable in zip(
        optimizer._model_variables_moving_average, optimizer._trainable_variables
    ):
        average.assign(variable.numpy())  # a copy: JAX may donate the buffer of either


@contextmanager
def averaged(network, config):
    """Use the averaged weights (EMA) inside; the live ones are restored afterwards."""
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
