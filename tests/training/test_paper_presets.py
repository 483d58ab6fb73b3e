"""The paper's presets take real steps with the whole network, on crops of 128 pixels.

From random weights their frozen BatchNorm normalises nothing and the losses are huge, hence the warning of `train`.
So only the versions with a trained BatchNorm are checked for sane losses.
"""

import dataclasses

import keras
import numpy as np
import pytest
from tiny import disc_dataset
from typer.testing import CliRunner

from nucleus_course._util.errors import UserError
from nucleus_course.config import StageConfig
from nucleus_course.prediction.segmenter import MaskRCNN
from nucleus_course.presets import get_preset
from nucleus_course.training import train

PARTS = ("rpn_class", "rpn_box", "class", "box", "mask")


def brief(name, *layers):
    """The preset with one stage of two steps for each set of layers, one crop of 128 a step."""
    preset = get_preset(name)
    stages = tuple(StageConfig(part, layers=part, epochs=1, rate=1e-4) for part in layers)
    small = dataclasses.replace(
        preset.training, batch_size=1, crop=128, steps_per_epoch=2, workers=1, stages=stages
    )
    return dataclasses.replace(preset, training=small)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layers"), [("paper-resnet50", ("heads", "all")), ("paper-resnet101", ("4+",))]
)
def test_a_few_steps_of_the_papers_training(name, layers):
    keras.utils.set_random_seed(1)
    model = MaskRCNN.from_preset(name)
    history = train(
        model, disc_dataset(2, side=128, count=8), preset=brief(name, *layers), progress=False
    )
    losses = [row[f"{part}_loss"] for row in history.rows for part in PARTS]
    assert [row["stage"] for row in history.rows] == list(layers)
    assert np.isfinite(losses).all() and min(losses) >= 0 < max(losses)


@pytest.mark.slow
def test_the_twin_from_random_weights_has_sane_losses():
    """A blind guess between two costs log 2 = 0.69; with a trained BatchNorm, no part starts far above that."""
    keras.utils.set_random_seed(1)
    model = MaskRCNN.from_preset("paper-resnet50-scratch")
    history = train(
        model,
        disc_dataset(2, side=128, count=8),
        preset=brief("paper-resnet50-scratch", "all"),
        progress=False,
    )
    losses = {part: history.rows[0][f"{part}_loss"] for part in PARTS}
    assert all(0 <= value < 10 for value in losses.values()), losses


def test_train_warns_of_frozen_batchnorm_without_weights(tmp_path, monkeypatch):
    from nucleus_course.cli.app import app

    def enough(*args, **options):
        raise UserError("enough")

    monkeypatch.setattr("nucleus_course.training.train", enough)
    words = ["train", "--data", "sample", "--limit", "2", "--preset", "paper-resnet50", "--epochs", "1", "--run", str(tmp_path / "r"),
             "--validation", "none"]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert "enough" in result.stderr
    warning = " ".join(result.stderr.split())
    assert (
        "warning: paper-resnet50 keeps the BatchNorm statistics" in warning
        and "--weights coco" in warning
    )
