"""The output of a running training, and its speed."""

import sys
import time

import keras
from rich.console import Console

from nucleus_course._util.progress import progress


class EpochWatch(keras.callbacks.Callback):
    """Times the steps of one epoch, and how long they waited for input.

    A step waits if its batch was finished after the previous step ended. If steps are dispatched ahead of
    the device (JAX on a GPU), the figure is an upper bound.
    """

    def __init__(self, batches, reporter, ema=False):
        super().__init__()
        self.ema = ema
        self.batches, self.reporter = batches, reporter
        self.begin = self.end = time.perf_counter()
        self.waited, self.steps, self.first = 0.0, 0, None

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.use_ema = self.ema

    def on_epoch_end(self, epoch, logs=None):
        # Otherwise fit() would overwrite the live weights with their average at the end.
        self.model.optimizer.use_ema = False

    def on_train_batch_end(self, batch, logs=None):
        ready = self.batches.finished.get(batch)
        if ready is not None and batch > 0:
            self.waited += max(0.0, ready - self.end)
        self.end = time.perf_counter()
        if batch == 0:
            self.first = self.end  # the first step compiles, so it does not count
        self.steps += 1
        self.reporter.step()

    def summary(self, batch_size):
        """images_per_s and waiting (share of the time), without the epoch's first step."""
        seconds = self.end - (self.first or self.begin)
        steps = self.steps - 1
        if steps < 1 or seconds <= 0:
            return {"images_per_s": None, "waiting": None}
        return {
            "images_per_s": round(steps * batch_size / seconds, 2),
            "waiting": round(self.waited / seconds, 4),
        }


class Reporter:
    """A progress bar with the time left on a terminal, elsewhere one line per epoch."""

    def __init__(self, show, epochs, steps, minutes=None):
        self.show, self.epochs, self.minutes = show, epochs, minutes
        self.bar = None
        if show and sys.stdout.isatty():
            self.bar = progress(console=Console())
            self.task = self.bar.add_task("steps", total=None if minutes else epochs * steps)
            self.bar.start()

    def say(self, text):
        if self.show:
            (self.bar.console.print if self.bar else print)(
                text, **({} if self.bar else {"flush": True})
            )

    def stage(self, stage, counts, layers):
        moving, total = counts
        self.say(f"stage '{stage.name}': {layers} layers move, {moving:,} of {total:,} weights")

    def step(self):
        if self.bar:
            self.bar.advance(self.task)

    def epoch(self, row):
        of = "" if self.minutes else f"/{self.epochs}"
        parts = [f"epoch {row['epoch']}{of}", f"rate {row['rate']:.2g}"]
        parts += [f"{k.removesuffix('_loss')} {row[k]:.3f}" for k in row if k.endswith("loss")]
        if row.get("images_per_s"):
            parts.append(f"{row['images_per_s']:.1f} images/s, {100 * row['waiting']:.0f}% waiting")
        if "coco_ap" in row:
            names = {"coco_ap": "AP", "dsb_score": "dsb", "mean_mask_iou": "mask IoU"}
            values = {k: "-" if row[k] is None else f"{row[k]:.1f}" for k in names}
            parts.append(
                "validation " + ", ".join(f"{title} {values[k]}" for k, title in names.items())
            )
        parts.append(f"{row['seconds'] / 60:.1f} min")
        self.say(" | ".join(parts))

    def close(self):
        if self.bar:
            self.bar.stop()
