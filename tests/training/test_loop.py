"""The training loop on a toy: resume, Ctrl-C, NaN, averages, best weights, the log, the run folder."""

import csv
import json

import numpy as np
import pytest
from toy import STAGES, Toy, assert_same, dataset, preset, timeless, values

from nucleus_course._util.errors import UserError
from nucleus_course.config import Thresholds
from nucleus_course.data.batches import TrainingBatches
from nucleus_course.models.weights.folder import (
    load_into,
    named_variables,
    read_config,
    save_thresholds,
)
from nucleus_course.prediction.rescorer import Rescorer
from nucleus_course.training import TrainingDiverged, loop, train
from nucleus_course.training.checkpoint import RunFolder
from nucleus_course.training.progress import EpochWatch

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """(weights, log rows) of four epochs without interruption."""
    model = Toy()
    history = train(
        model, dataset(), preset=preset(), run=tmp_path_factory.mktemp("straight") / "run", **QUIET
    )
    return values(model), timeless(history.rows)


@pytest.fixture
def interrupt(monkeypatch):
    """interrupt(epoch, step): raise KeyboardInterrupt after that step (both from 0)."""

    def arm(epoch, step):
        ended = EpochWatch.on_train_batch_end

        def on_train_batch_end(self, batch, logs=None):
            ended(self, batch, logs)
            if (self.batches.epoch, batch) == (epoch, step):
                monkeypatch.setattr(EpochWatch, "on_train_batch_end", ended)
                raise KeyboardInterrupt

        monkeypatch.setattr(EpochWatch, "on_train_batch_end", on_train_batch_end)

    return arm


@pytest.fixture
def spoil(monkeypatch):
    """spoil(epoch): images of that epoch (from 0) are NaN."""

    def arm(epoch):
        crop = TrainingBatches.crop

        def broken(self, pick, at, index):
            row = crop(self, pick, at, index)
            return {**row, "image": row["image"] * np.nan} if at == epoch else row

        monkeypatch.setattr(TrainingBatches, "crop", broken)

    return arm


def test_every_stage_moves_what_it_should_and_logs_it(straight, tmp_path):
    weights, rows = straight
    assert [r["epoch"] for r in rows] == [1, 2, 3, 4]
    assert [r["stage"] for r in rows] == ["heads", "heads", "all", "all"]
    assert [r["rate"] for r in rows] == [1e-2, 1e-2, 1e-3, 1e-3]
    assert all(np.isfinite(r["loss"]) for r in rows)
    start = values(Toy())
    model = Toy()
    train(model, dataset(), preset=preset(ema=0.0), stages=STAGES[:1], **QUIET)
    now = values(model)
    for name in start:
        assert np.array_equal(start[name], now[name]) == (not name.startswith("mrcnn_")), name
    assert all(not np.array_equal(start[n], weights[n]) for n in start), (
        "the second stage moves everything"
    )


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_resume_gives_the_same_numbers_also_between_stages(straight, tmp_path, stop):
    history = train(
        Toy(),
        dataset(),
        preset=preset(),
        run=tmp_path / "run",
        on_epoch=lambda row: row["epoch"] == stop,
        **QUIET,
    )
    assert history.stopped and len(history.rows) == stop
    model = Toy()
    history = train(model, dataset(), preset=preset(), run=tmp_path / "run", resume=True, **QUIET)
    assert_same(values(model), straight[0])
    assert timeless(history.rows) == straight[1]


def test_without_a_preset_a_run_goes_on_as_it_was_begun(straight, tmp_path):
    train(
        Toy(),
        dataset(),
        preset=preset(),
        run=tmp_path,
        on_epoch=lambda row: True,
        notes={"by": "hand"},
        **QUIET,
    )
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["by"] == "hand" and config["thresholds"]["score"] == Thresholds().score
    model = Toy()
    history = train(model, dataset(), run=tmp_path, resume=True, **QUIET)
    assert_same(values(model), straight[0])
    assert timeless(history.rows) == straight[1]
    train(Toy(), dataset(), run=tmp_path, resume=True, epochs=5, **QUIET)
    after = json.loads((tmp_path / "config.json").read_text())
    assert [s["epochs"] for s in after.pop("stages")] == [2, 3] and after == {
        k: v for k, v in config.items() if k != "stages"
    }


def test_the_number_of_loading_threads_changes_nothing(straight):
    model = Toy()
    history = train(model, dataset(), preset=preset(workers=1), **QUIET)
    assert_same(values(model), straight[0])
    assert timeless(history.rows) == straight[1]


def test_resuming_what_is_finished_gives_the_trained_model(straight, tmp_path):
    train(Toy(), dataset(), preset=preset(), run=tmp_path, **QUIET)
    (tmp_path / "log.csv").unlink()  # killed between checkpoint and log
    model = Toy()
    history = train(model, dataset(), preset=preset(), run=tmp_path, resume=True, **QUIET)
    assert_same(values(model), straight[0])
    assert timeless(history.rows) == straight[1] and (tmp_path / "log.csv").exists()


def test_thresholds_chosen_since_outlive_a_resume_that_trains_nothing(tmp_path):
    train(Toy(), dataset(), preset=preset(), run=tmp_path, epochs=1, **QUIET)
    save_thresholds(Thresholds(score=0.123), tmp_path / "weights")
    model = Toy()
    train(model, dataset(), preset=preset(), run=tmp_path, epochs=1, resume=True, **QUIET)
    assert read_config(tmp_path / "weights")[1].score == model.thresholds.score == 0.123


def test_a_rescorer_goes_with_training_and_stays_without(tmp_path):
    """A rescorer fits the weights it was fitted to, not later ones."""
    rescorer = Rescorer(
        *np.ones((2, 12)), np.ones((1, 12, 3)), np.ones((1, 3)), np.ones((1, 3)), np.ones(1)
    )
    model = Toy()
    model.rescorer = rescorer
    train(model, dataset(), preset=preset(), run=tmp_path, epochs=1, **QUIET)
    assert model.rescorer is None and not (tmp_path / "weights" / "rescoring.json").exists()
    rescorer.save(tmp_path / "weights")
    train(model, dataset(), preset=preset(), run=tmp_path, epochs=1, resume=True, **QUIET)
    assert model.rescorer is not None and Rescorer.load(tmp_path / "weights") is not None
    train(model, dataset(), preset=preset(), run=tmp_path, epochs=2, resume=True, **QUIET)
    assert model.rescorer is None and not (tmp_path / "weights" / "rescoring.json").exists()


@pytest.mark.parametrize(
    ("epoch", "step"), [(1, 1), (2, 0)], ids=["within a stage", "where a stage begins"]
)
def test_ctrl_c_keeps_the_last_whole_epoch_and_resumes(straight, tmp_path, interrupt, epoch, step):
    interrupt(epoch, step)
    model, seen = Toy(), []
    history = train(
        model,
        dataset(),
        preset=preset(ema=0.0),
        run=tmp_path,
        on_epoch=lambda _: seen.append(values(model)),
        **QUIET,
    )
    assert history.stopped == "interrupted" and len(history.rows) == epoch
    assert_same(values(model), seen[-1])
    kept = Toy()
    load_into(kept.network, tmp_path / "weights")
    assert_same(values(kept), seen[-1])

    interrupt(epoch, step)
    train(Toy(), dataset(), preset=preset(), run=tmp_path / "averaged", **QUIET)
    model = Toy()
    history = train(
        model, dataset(), preset=preset(), run=tmp_path / "averaged", resume=True, **QUIET
    )
    assert_same(values(model), straight[0])
    assert timeless(history.rows) == straight[1]


def test_ctrl_c_before_the_first_step_leaves_the_weights_alone(tmp_path, monkeypatch):
    def at_once(self, epoch, logs=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(EpochWatch, "on_epoch_begin", at_once)
    model = Toy()
    history = train(model, dataset(), preset=preset(), run=tmp_path, **QUIET)
    assert history.rows == [] and history.stopped
    assert_same(values(model), values(Toy()))


@pytest.mark.parametrize(
    "epoch", [0, 1, 2], ids=["at once", "within a stage", "where a stage begins"]
)
@pytest.mark.parametrize("keep", [True, False], ids=["run folder", "no run folder"])
def test_nan_stops_with_the_last_good_weights(tmp_path, spoil, epoch, keep):
    spoil(epoch)
    model, seen = Toy(), [values(Toy())]
    with pytest.raises(TrainingDiverged, match=f"nan in epoch {epoch + 1}"):
        train(model, dataset(), preset=preset(ema=0.0), run=tmp_path / "run" if keep else None,
              on_epoch=lambda _: seen.append(values(model)), **QUIET)  # fmt: skip
    assert len(seen) == epoch + 1
    assert_same(values(model), seen[-1])
    if keep:
        kept = Toy()
        load_into(kept.network, tmp_path / "run" / "weights")
        assert_same(values(kept), seen[-1])
        RunFolder(tmp_path / "run", resume=True).close()  # the lock is free


def test_the_weights_kept_are_the_averages():
    """One step per epoch, decay 0.5: for 3 epochs (under 2 / 0.5 steps) the average restarts, then it halves."""
    live, model = [], Toy()
    train(model, dataset(), preset=preset(steps_per_epoch=1), stages=STAGES[1:], epochs=6,
          on_epoch=lambda _: live.append(values(model)), **QUIET)  # fmt: skip
    assert len(live) == 6
    final = values(model)
    for variable in model.network.trainable_variables:
        name = next(n for n, v in named_variables(model.network).items() if v is variable)
        average = live[2][name]
        for now in live[3:]:
            average = np.float32(0.5) * average + np.float32(0.5) * now[name]
        np.testing.assert_allclose(final[name], average, rtol=1e-6, atol=1e-8, err_msg=name)
        assert not np.array_equal(final[name], live[-1][name])


def test_averaged_swaps_and_restores():
    model, config = Toy(), preset().training
    inside = {}

    def look(row):
        live = values(model)
        with loop.averaged(model.network, config):
            inside[row["epoch"]] = values(model)
        assert_same(values(model), live)
        with pytest.raises(RuntimeError), loop.averaged(model.network, config):
            raise RuntimeError
        assert_same(values(model), live)
        # Three steps per epoch: the first epoch's average equals the live weights, the second's does not.
        same = np.array_equal(inside[row["epoch"]]["conv1/kernel"], live["conv1/kernel"])
        assert same == (row["epoch"] == 1)

    train(model, dataset(), preset=preset(), stages=STAGES[1:], on_epoch=look, **QUIET)
    assert_same(values(model), inside[2])


def test_the_best_weights_by_the_validation_metric_are_kept(tmp_path, monkeypatch):
    scores, seen = iter([10.0, 30.0, 20.0]), []

    def validate(model, data):
        assert data == "held out"
        seen.append(values(model))
        return {"coco_ap": next(scores), "dsb_score": 0.0, "mean_mask_iou": 0.0}

    monkeypatch.setattr(loop, "validate", validate)
    history = train(Toy(), dataset(), preset=preset(), stages=STAGES[1:], epochs=5, validation="held out", validate_every=2,
                    run=tmp_path, **QUIET)  # fmt: skip
    assert [r["epoch"] for r in history.rows if "coco_ap" in r] == [2, 4, 5], (
        "every other epoch, and the last"
    )
    assert history.best == 30.0
    kept = Toy()
    load_into(kept.network, tmp_path / "weights")
    assert_same(values(kept), seen[1])


def test_an_unknown_validation_metric_is_refused_before_anything_is_done(tmp_path):
    with pytest.raises(
        UserError, match="validate_metric='ap50': choose one of coco_ap, coco_ap50, .*mean_mask_iou"
    ):
        train(
            Toy(),
            dataset(),
            preset=preset(),
            validation=dataset(),
            validate_metric="ap50",
            run=tmp_path / "run",
            **QUIET,
        )
    assert not (tmp_path / "run").exists()


def test_another_validation_metric_judges(tmp_path, monkeypatch):
    values = iter([(10.0, 5.0), (20.0, 4.0)])
    monkeypatch.setattr(
        loop,
        "validate",
        lambda model, data: (
            dict(zip(("coco_ap", "dsb_score"), next(values))) | {"mean_mask_iou": 0.0}
        ),
    )
    options = dict(validation="held out", validate_every=1, validate_metric="dsb_score")
    assert (
        train(Toy(), dataset(), preset=preset(), epochs=2, run=tmp_path, **options, **QUIET).best
        == 5.0
    )


def test_the_run_folder_holds_config_and_log(tmp_path):
    history = train(Toy(), dataset(), preset=preset(), run=tmp_path, epochs=3, **QUIET)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows == history.rows and len(rows) == 3
    with open(tmp_path / "log.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [float(r["loss"]) for r in table] == [r["loss"] for r in rows]
    assert {"epoch", "stage", "rate", "loss", "images_per_s", "waiting", "seconds"} <= set(rows[0])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model"]["name"] == "tiny" and [s["epochs"] for s in config["stages"]] == [2, 1]
    assert config["images"] == 6 and not list(tmp_path.rglob("*.partial"))
    assert history.run == tmp_path


def test_validation_images_without_nuclei_have_no_ap(tmp_path, monkeypatch, capsys):
    nothing = {"coco_ap": None, "dsb_score": 100.0, "mean_mask_iou": None}
    monkeypatch.setattr(loop, "validate", lambda model, data: nothing)
    history = train(
        Toy(),
        dataset(),
        preset=preset(),
        epochs=2,
        validation="empty",
        validate_every=1,
        run=tmp_path,
    )
    assert len(history.rows) == 2 and history.best is None
    assert "validation AP -, dsb 100.0, mask IoU -" in capsys.readouterr().out
