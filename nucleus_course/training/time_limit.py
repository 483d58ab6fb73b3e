"""A training that must fit into a time: how fast it goes here, and when it has to stop."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

from nucleus_course.backend import is_out_of_memory
from nucleus_course.config import Preset

MARGIN = 20.0  # seconds left free before the limit: the last checkpoint has to reach the disk
PROBE_STEPS = 6
EPOCHS = 20  # how many epochs a fitted schedule has: each ends with a checkpoint


class TimeLimit:
    """A limit for everything that a command does, running from the moment this is made.

    Called after each epoch it says whether to stop, so it serves as ``on_epoch`` of
    :func:`nucleus_course.train`.

    Args:
        minutes: the limit; None is no limit.
        reserve: minutes of it that are kept for what follows the training.
    """

    def __init__(self, minutes: float | None, reserve: float = 0.0) -> None:
        self.begin = self.last = time.perf_counter()
        self.seconds = None if minutes is None else 60.0 * (minutes - reserve) - MARGIN
        self.lengths: list[float] = []

    @property
    def left(self) -> float:
        """Seconds that are left for training; infinity without a limit."""
        if self.seconds is None:
            return float("inf")
        return self.seconds - (time.perf_counter() - self.begin)

    def start(self) -> None:
        """Training starts now: what came before counts against the limit but is not an epoch."""
        self.last = time.perf_counter()

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Whether another epoch, as long as the longest so far, would end too late.

        The first epoch also compiles, so it counts only while it is alone.
        """
        now = time.perf_counter()
        self.lengths.append(now - self.last)
        self.last = now
        return max(self.lengths[1:] or self.lengths) > self.left


def step_seconds(build: Callable[[], Any], dataset: Any, preset: Preset) -> float:
    """Seconds of a training step here, measured on a network that is thrown away.

    Args:
        build: makes a model, see :class:`~nucleus_course.prediction.segmenter.Segmenter`.
        dataset: what will be learned from.
        preset: the training; the layers of its last stage move, as many as ever do.
    """
    from nucleus_course.training.loop import train

    stage = dataclasses.replace(preset.training.stages[-1], epochs=2)
    training = dataclasses.replace(
        preset.training, stages=(stage,), steps_per_epoch=PROBE_STEPS, validate_every=0
    )
    probe = dataclasses.replace(preset, training=training)
    first, second = train(build(), dataset, preset=probe, progress=False).rows  # the first compiles
    return max(1e-3, (second["seconds"] - first["seconds"]) / PROBE_STEPS)


def largest_batch(
    build: Callable[[Preset], Any],
    dataset: Any,
    preset: Preset,
    seconds: float = float("inf"),
    gain: float = 1.1,
) -> tuple[Preset, float]:
    """Double the batch while images per second rise by ``gain`` and the device's memory holds it.

    No batch is tried that would take the trials beyond ``seconds``, as long as they are all like the last. The rate follows the batch: in proportion for SGD, with its square root for AdamW.

    Returns:
        The preset with that batch, and the seconds of its step.
    """
    begin = last = time.perf_counter()
    best = preset, step_seconds(functools.partial(build, preset), dataset, preset)
    while True:
        chosen, step = best
        now = time.perf_counter()
        if now - begin + (now - last) > seconds:
            return best
        last, bigger = now, scaled_batch(chosen, 2)
        try:
            measured = step_seconds(functools.partial(build, bigger), dataset, bigger)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return best
        if measured * gain > 2 * step:
            return best
        best = bigger, measured


def scaled_batch(preset: Preset, factor: int) -> Preset:
    """The preset with its batch times ``factor`` and its rates to match."""
    training = preset.training
    rate = factor if training.optimizer == "sgd" else factor**0.5
    stages = tuple(dataclasses.replace(s, rate=s.rate * rate) for s in training.stages)
    training = dataclasses.replace(training, batch_size=training.batch_size * factor, stages=stages)
    return dataclasses.replace(preset, training=training)


def fitted(preset: Preset, seconds: float, step: float) -> tuple[Preset, float]:
    """A schedule for ``seconds`` of training, at ``step`` seconds a step.

    Returns:
        The preset with epochs of a twentieth of that time, and the minutes its rates follow. One
        epoch is left free, for the clock is looked at between epochs.
    """
    steps = max(1, int(seconds / EPOCHS / step))
    training = dataclasses.replace(preset.training, steps_per_epoch=steps)
    minutes = max(step, seconds - steps * step) / 60.0
    return dataclasses.replace(preset, training=training), minutes
