"""The real network, trained with a kill -9 and a resume: the same weights, bit for bit."""

import json

import keras
import numpy as np
from tiny import disc_dataset, python, tiny_config, tiny_preset

from nucleus_course.models.weights.folder import named_variables
from nucleus_course.prediction.segmenter import MaskRCNN, build
from nucleus_course.training import train

TIMES = ("seconds", "images_per_s", "waiting")

# Killed in the middle of the third epoch, two steps after the second's checkpoint.
KILLED = """
import os, signal, sys
from training.test_resume import run
from nucleus_course.training.progress import EpochWatch

ended = EpochWatch.on_train_batch_end

def on_train_batch_end(self, batch, logs=None):
    ended(self, batch, logs)
    if self.batches.epoch == 2 and batch == 1:
        os.kill(os.getpid(), signal.SIGKILL)

EpochWatch.on_train_batch_end = on_train_batch_end
run(sys.argv[1])
"""


def model_and_preset():
    keras.utils.set_random_seed(5)  # the initial weights
    config = tiny_config()
    preset = tiny_preset(config, ema=0.9, balance_types=0.5)
    return build(config, seed=5), preset


def run(folder, **options):
    model, preset = model_and_preset()
    history = train(
        model, disc_dataset(6), preset=preset, run=folder, epochs=4, progress=False, **options
    )
    return model, history


def timeless(rows):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def test_resumed_after_kill_9_gives_the_same_weights_and_log(tmp_path):
    killed = python(KILLED, tmp_path / "killed")
    assert killed.returncode == -9, killed.stderr[-2000:]
    log = (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2]

    model, history = run(tmp_path / "killed", resume=True)
    expected, straight = run(tmp_path / "straight")
    assert timeless(history.rows) == timeless(straight.rows) and len(history.rows) == 4
    for (name, a), b in zip(
        named_variables(model.network).items(), named_variables(expected.network).values()
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=name)
    kept = MaskRCNN.load(tmp_path / "killed")
    for (name, a), b in zip(
        named_variables(kept.network).items(), named_variables(expected.network).values()
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=f"{name} in run/weights")
    assert all(np.isfinite(row["loss"]) for row in history.rows)
