"""A training that must fit into a time: how fast it goes here, and when it has to stop."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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


class Speed(NamedTuple):
    """Seconds that a training takes before its first step, compiling above all, and seconds a step."""

    start: float
    step: float


def measure_speed(build: Callable[[], Any], dataset: Any, preset: Preset) -> Speed:
    """How fast a training goes here, measured on a network that is thrown away.

    Args:
        build: makes a model, see :class:`~nucleus_course.prediction.segmenter.Segmenter`.
        dataset: what will be learned from.
        preset: the training; the layers of its last stage move, as many as ever do.
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
    """Double the batch while images per second rise by ``gain`` and the device's memory holds it.

    The rate follows the batch: in proportion for SGD, with its square root for AdamW. No batch is
    tried that would take the trials beyond ``seconds``, if it takes as long as the one before.

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
        The preset with epochs of a twentieth of the time behind the start, and the minutes its rates
        follow. One epoch is left free, for the clock is looked at between epochs.
    """
    steps = max(1, int((seconds - speed.start) / EPOCHS / speed.step))
    training = dataclasses.replace(preset.training, steps_per_epoch=steps)
    minutes = max(speed.step, seconds - steps * speed.step) / 60.0
    return dataclasses.replace(preset, training=training), minutes
