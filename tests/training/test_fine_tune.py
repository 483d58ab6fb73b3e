"""Fine-tuning: what is left out, which layers train when, what is mixed in, messages about thresholds."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import toy
from cli.stub import install
from terminal import one_line_error, plain
from tiny import FakeDataset, disc_dataset, tiny_config, tiny_preset
from typer.testing import CliRunner

from nucleus_course.cli import common
from nucleus_course.cli.app import app
from nucleus_course.config import Thresholds, from_dict, to_dict
from nucleus_course.data.batches import TrainingBatches
from nucleus_course.models.weights.folder import read_config
from nucleus_course.prediction.segmenter import build
from nucleus_course.presets import get_preset
from nucleus_course.training import fine_tune, train
from nucleus_course.training.progress import EpochWatch


@pytest.mark.parametrize(
    ("images", "out"), [(1, 0), (2, 1), (3, 1), (5, 2), (10, 3), (20, 6), (40, 12), (200, 20)]
)
def test_how_many_images_are_left_out(images, out):
    ids = [f"{i:03d}" for i in range(images)]
    found = fine_tune.left_out(reversed(ids))
    assert len(found) == len(set(found)) == out and set(found) <= set(ids)
    gaps = np.diff([ids.index(i) for i in found])
    assert out < 2 or gaps.max() - gaps.min() <= 1, "evenly spread"


@pytest.mark.slow
def test_the_trunk_is_frozen_first_and_then_moves_at_a_smaller_rate(tmp_path):
    preset = fine_tune.fine_tune_preset(tiny_config())
    assert [stage.layers for stage in preset.training.stages] == ["heads", "all"]
    assert preset.training.stages[1].rate < preset.training.stages[0].rate
    assert preset.model.name == "tiny" and preset.augment == get_preset("compact").augment
    small = tiny_preset(stages=preset.training.stages[:1], ema=0.0)
    model = build(small.model, Thresholds(0.7, metric="pq", split="validation", value=50.0), seed=1)
    before = {v.path: v.numpy() for v in model.network.trainable_variables}
    train(model, disc_dataset(2), preset=small, run=tmp_path / "run", epochs=1, progress=False)
    after = {v.path: v.numpy() for v in model.network.variables}
    moved = {path.split("/")[-2] for path in before if (before[path] != after[path]).any()}
    assert moved and all(name.startswith(("fpn_", "rpn_", "mrcnn_")) for name in moved)
    point = read_config(tmp_path / "run" / "weights")[1]
    assert (point.score, point.metric, point.value, point.chosen) == (0.7, "", None, False)


def test_chosen_says_whether_thresholds_were():
    assert not Thresholds().chosen and Thresholds(metric="pq").chosen
    chosen = Thresholds(0.6, metric="pq", split="validation")
    assert not chosen.inherited().chosen and chosen.inherited().score == 0.6
    assert from_dict(Thresholds, to_dict(chosen)) == chosen


def test_old_images_are_half_of_the_crops():
    own, old = disc_dataset(2, seed=1), disc_dataset(9, seed=2)
    mixed = fine_tune.Mixed(own, old)
    assert len(mixed) == 11 == len(set(mixed.ids)) == len(list(mixed))
    assert mixed["own/001"] is own["001"] and mixed["old/001"] is old["001"] and mixed[2] is old[0]
    preset = fine_tune.Mixed.preset(tiny_preset(steps_per_epoch=50))
    picks = TrainingBatches(mixed, preset).order(0)
    assert (picks < 2).sum() == 50 and set(picks) == set(range(11))


@pytest.fixture
def few(monkeypatch):
    """`train --fine-tune` on a tiny model and discs; the dict holds the last training's preset."""
    seen, data = {}, {"mine": disc_dataset(4), "old": disc_dataset(3, seed=8), "sample": disc_dataset(2, seed=5)}  # fmt: skip

    def open_data(source, split, what="", **_):
        return Part(data[source].records, source)

    class Part(FakeDataset):
        def __init__(self, records, source):
            super().__init__(records)
            self.source = source

        def subset(self, ids):
            return Part([self[image_id] for image_id in ids], self.source)

    def preset(config):
        seen["preset"] = tiny_preset(
            stages=fine_tune_preset(config).training.stages, steps_per_epoch=1
        )
        return seen["preset"]

    fine_tune_preset = fine_tune.fine_tune_preset
    monkeypatch.setattr(fine_tune, "fine_tune_preset", preset)
    monkeypatch.setattr(common, "open_data", open_data)
    monkeypatch.setattr(
        common, "open_model", lambda *_, **__: build(tiny_config(), Thresholds(metric="pq"), seed=1)
    )
    monkeypatch.setattr("nucleus_course.data.load_dataset", lambda source, **_: data[source])
    return seen


@pytest.mark.slow
def test_the_command_from_images_to_the_table(few, tmp_path):
    run = tmp_path / "run"
    words = [
        "train",
        "--data",
        "mine",
        "--fine-tune",
        "--mix",
        "old",
        "--run",
        run,
        "--epochs",
        "2",
        "--dtype",
        "float32",
    ]
    result = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    text = plain(result.output)
    assert result.exit_code == 0, text
    assert "training on 3 images; left out for scoring: 002" in text
    assert "left out, n = 1" in text and "ordinary, n = 2" in text and "coco_ap" in text
    assert "not chosen for these" in text and f"--split {run}/left-out.txt" in text.replace(
        "\n", ""
    )
    found = json.loads((run / "fine-tune.json").read_text())
    assert found["left out"]["images"] == ["002"] and found["learned_from"] == ["000", "001", "003"]
    assert (
        set(found["ordinary"]["before"]) == set(found["ordinary"]["after"])
        and not found["thresholds_chosen"]
    )
    config = json.loads((run / "config.json").read_text())
    assert (
        config["mixed_in"] == "old"
        and config["thresholds_chosen"] is False
        and config["images"] == 6
    )
    assert (run / "left-out.txt").read_text() == "002\n"
    assert not read_config(run / "weights")[1].chosen


@pytest.mark.parametrize("tuned", [True, False], ids=["fine-tuning", "training"])
def test_only_what_can_be_resumed_says_so(tuned, tmp_path, monkeypatch, capsys):
    ended = EpochWatch.on_train_batch_end

    def interrupt(self, step, logs=None):
        ended(self, step, logs)
        if self.batches.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(EpochWatch, "on_train_batch_end", interrupt)
    options = {"preset": toy.preset(), "run": tmp_path / "run", "notes": {"fine_tuned": tuned}}
    assert train(toy.Toy(), toy.dataset(), **options).stopped == "interrupted"
    text = capsys.readouterr().out
    assert "stopped after epoch 1; " in text and ("--resume" in text) != tuned
    assert (f"to start again, delete {tmp_path / 'run'} or choose another --run" in text) == tuned


def test_options_that_do_not_go_together(few, tmp_path):
    for words, line in (
        (["--mix", "old"], "--mix and --ordinary need --fine-tune"),
        (["--fine-tune", "--preset", "compact"], "--preset does not go with --fine-tune"),
        (["--fine-tune", "--resume"], "--resume does not go with --fine-tune"),
    ):
        one_line_error(CliRunner().invoke(app, ["train", "--data", "mine", *words]), line)


def test_predict_says_that_thresholds_were_not_chosen(monkeypatch, tmp_path):
    from PIL import Image

    stub = install(monkeypatch.setattr)
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "a.png")
    for number, (point, more, said) in enumerate((
        (Thresholds(), [], True),
        (Thresholds(metric="pq"), [], False),
        (Thresholds(), ["--score-threshold", "0.4"], False),
    )):  # fmt: skip
        stub.thresholds = point
        words = ["predict", tmp_path / "a.png", "--out", tmp_path / f"out{number}", *more]
        result = CliRunner().invoke(app, [*map(str, words)])
        assert (
            result.exit_code == 0 and ("was not chosen for compact" in plain(result.output)) == said
        )


@pytest.mark.parametrize(("images", "said"), [(1, True), (2, True), (3, False)])
def test_a_validation_of_one_image_says_little(images, said, monkeypatch, capsys):
    from nucleus_course.cli.train import _open

    monkeypatch.setattr(common, "open_data", lambda *_, what="", **__: disc_dataset(images))
    about = dict(split="train", limit=None, whole=False, earlier=None, validation="validation")
    about["opening"] = dict(allow_empty=False, annotations="auto", reading={})
    asked = dict(data="mine", strict=False)
    _open(SimpleNamespace(**about), SimpleNamespace(**asked))
    assert ("say little: --fine-tune" in capsys.readouterr().err) == said
