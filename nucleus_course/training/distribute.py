"""Data parallelism with Keras: several devices share a batch.

Each device holds all weights and computes its share of every batch.

JAX (``keras.distribution.DataParallel``) splits the arrays and computes as if there were one device:
losses, sampling and BatchNorm's statistics are those of the whole batch.

TensorFlow (``tf.distribute.MirroredStrategy``) runs the model once per device and averages the gradients.
Each device averages its losses over its own samples, clips its own gradient, and BatchNorm learns from its
share alone. The result equals that of one device if all shares hold equally many samples of each kind and
BatchNorm is frozen, as in the paper's presets; otherwise it differs slightly.
"""

from contextlib import contextmanager

import keras

from nucleus_course._util.errors import UserError


def device_names(kind=None):
    """The devices of the backend, GPUs if there are any: ["gpu:0", "gpu:1"] or ["cpu:0"]."""
    if keras.backend.backend() == "torch":
        import torch

        return [f"gpu:{i}" for i in range(torch.cuda.device_count())] or ["cpu:0"]
    for candidate in (kind,) if kind else ("gpu", "tpu", "cpu"):
        names = _listed(candidate)
        if names:
            return names
    return ["cpu:0"]


def _listed(kind):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return [f"{kind}:{i}" for i, _ in enumerate(tf.config.list_logical_devices(kind.upper()))]
    return [
        name
        for name in keras.distribution.list_devices()
        if name.split(":")[0] in (kind, {"gpu": "cuda"}.get(kind, kind))
    ]


@contextmanager
def data_parallel(count, batch_size=None):
    """A model that is built and trained inside uses the first ``count`` devices; 1 changes nothing.

    Args:
        count: devices to use.
        batch_size: the whole batch; it must divide evenly.

    Yields:
        Names of the devices.

    Raises:
        UserError: fewer devices than asked for, a batch that does not divide, or the torch backend.
    """
    devices = device_names()
    if not 1 <= count <= len(devices):
        raise UserError(
            f"{count} devices were requested, but there are {len(devices)} ({', '.join(devices)})"
        )
    if batch_size is not None and batch_size % count:
        nearest = max(count, round(batch_size / count) * count)
        raise UserError(
            f"a batch of {batch_size} cannot be shared by {count} devices: try --batch-size {nearest}"
        )
    devices = devices[:count]
    backend = keras.backend.backend()
    if count == 1:
        yield devices
    elif backend == "jax":
        with keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False).scope():
            yield devices
    elif backend == "tensorflow":
        import tensorflow as tf

        with tf.distribute.MirroredStrategy([name.upper() for name in devices]).scope():
            yield devices
    else:
        raise UserError("training on several devices needs JAX or TensorFlow: add --backend jax")
