"""Training within a time limit: measuring the speed, fitting the schedule, stopping in time."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nucleus_course.backend import is_out_of_memory
from nucleus_course.config import Preset

MARGIN = 20.0  # seconds kept free before the limit, to write the last checkpoint
PROBE_STEPS = 6
EPOCHS = 20  # epochs of a fitted schedule; each ends with a checkpoint


class TimeLimit:
    """A time limit for a whole command, counted from the creation of this object.

    Called after each epoch, it says whether to stop: use it as ``on_epoch`` of :func:`nucleus_course.train`.

    Args:
        minutes: the limit; None for no limit.
        reserve: minutes of it that are kept for the work after training.
    """

    def __init__(self, minutes: float | None, reserve: float = 0.0) -> None:
        self.begin = self.last = time.perf_counter()
        self.seconds = None if minutes is None else 60.0 * (minutes - reserve) - MARGIN
        self.lengths: list[float] = []

    @property
    def left(self) -> float:
        """Seconds left for training; infinity without a limit."""
        if self.seconds is None:
            return float("inf")
        return self.seconds - (time.perf_counter() - self.begin)

    def start(self) -> None:
        """Start of the training, so that earlier work does not count as part of an epoch."""
        self.last = time.perf_counter()

    def __call__(self, row: Mapping[str, Any]) -> bool:
        """Whether another epoch, as long as the longest so far, would end too late.

        The first epoch, which includes compiling, counts only if it is the only one.
        """
        now = time.perf_counter()
        self.lengths.append(now - self.last)
        self.last = now
        return max(self.lengths[1:] or self.lengths) > self.left


class Speed(NamedTuple):
    """Seconds before a training's first step, mostly compiling, and seconds per step."""

    start: float
    step: float


def measure_speed(build: Callable[[], Any], dataset: Any, preset: Preset) -> Speed:
    """The speed of training on this machine, measured with a temporary network.

    Args:
        build: returns a new :class:`~nucleus_course.prediction.segmenter.Segmenter`.
        dataset: the training data.
        preset: the training; its last stage is measured, which trains most layers.
    """
    from nucleus_course.training.loop import train

    begin = time.perf_counter()
    stage = dataclasses.replace(preset.training.stages[-1], epochs=2)
    training = dataclasses.replace(
        preset.training, stages=(stage,), steps_per_epoch=PROBE_STEPS, validate_every=0
    )
    probe = dataclasses.replace(preset, training=training)
    first, second = train(build(), dataset, preset=probe, progress=False).rows
    step = max(1e-3, (second["seconds"] - first["seconds"]) / PROBE_STEPS)
    return Speed(time.perf_counter() - begin - 2 * PROBE_STEPS * step, step)


def largest_batch(
    build: Callable[[Preset], Any],
    dataset: Any,
    preset: Preset,
    seconds: float = float("inf"),
    gain: float = 1.1,
) -> tuple[Preset, Speed]:
    """Double the batch while images per second rise by ``gain`` and the device has enough memory.

    The learning rate grows with the batch: in proportion for SGD, with its square root for AdamW. No
    batch is tried if the trials would exceed ``seconds``, assuming that it takes as long as the last.

    Returns:
        The preset with that batch, and its speed.
    """
    begin = last = time.perf_counter()
    best = preset, measure_speed(functools.partial(build, preset), dataset, preset)
    while True:
        chosen, speed = best
        now = time.perf_counter()
        if now - begin + (now - last) > seconds:
            return best
        last, bigger = now, scaled_batch(chosen, 2)
        try:
            measured = measure_speed(functools.partial(build, bigger), dataset, bigger)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return best
        if measured.step * gain > 2 * speed.step:
            return best
        best = bigger, measured


def scaled_batch(preset: Preset, factor: int) -> Preset:
    """The preset with its batch times ``factor`` and its rates to match."""
    training = preset.training
    rate = factor if training.optimizer == "sgd" else factor**0.5
    stages = tuple(dataclasses.replace(s, rate=s.rate * rate) for s in training.stages)
    training = dataclasses.replace(training, batch_size=training.batch_size * factor, stages=stages)
    return dataclasses.replace(preset, training=training)


def fitted(preset: Preset, seconds: float, speed: Speed) -> tuple[Preset, float]:
    """A schedule that ends within ``seconds``.

    Returns:
        The preset with epochs of a twentieth of the time after the start, and the minutes of the
        schedule. One epoch is kept free, because the clock is checked only between epochs.
    """
    steps = max(1, int((seconds - speed.start) / EPOCHS / speed.step))
    training = dataclasses.replace(preset.training, steps_per_epoch=steps)
    minutes = max(speed.step, seconds - steps * speed.step) / 60.0
    return dataclasses.replace(preset, training=training), minutes
