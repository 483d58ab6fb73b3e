"""The training loop on a toy: resume, Ctrl-C, NaN, averages, best weights, the log, the run folder."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from toy import STAGES, Toy, assert_same, dataset, preset, timeless, values

from nucleus_course._util.errors import UserError
from nucleus_course.config import StageConfig, Thresholds
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
    """(weights, log rows) of four epochs without a break."""
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
    (tmp_path / "log.csv").unlink()  # a kill came between checkpoint and log
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
    """It knows the detections of the weights it was fitted to, not those of the next ones."""
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
    """One step an epoch, decay 0.5: for 3 epochs (under 2 / 0.5 steps) the average starts again, then it halves."""
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
        # Three steps an epoch: the first one's average is the live weights, the second one's is not.
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


def test_minutes_follow_the_clock(monkeypatch):
    """A clock that moves ten seconds at each look: rates fall with the share of the time that is spent."""
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(clock))))
    stage = StageConfig("all", layers="all", epochs=100, rate=1e-2, schedule="cosine")
    history = train(
        Toy(), dataset(), preset=preset(steps_per_epoch=1), stages=(stage,), minutes=2, **QUIET
    )
    rates = [r["rate"] for r in history.rows]
    assert 2 <= len(rates) <= 12 and all(a > b for a, b in zip(rates, rates[1:]))
    assert history.rows[-1]["seconds"] >= 100


@pytest.mark.parametrize("stop", [None, 8], ids=["straight", "resumed in the warm-up"])
def test_a_later_stages_warm_up_acts_by_the_clock_too(tmp_path, monkeypatch, stop):
    """Epochs of ten seconds in two minutes: the second stage begins with the seventh, at a quarter of its rate."""
    now, ended = [0.0], EpochWatch.summary

    def summary(self, batch_size):
        now[0] += 10.0
        return ended(self, batch_size)

    monkeypatch.setattr(EpochWatch, "summary", summary)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    stages = tuple(
        StageConfig(name, layers=name, epochs=50, rate=0.03, warmup_epochs=warm_up)
        for name, warm_up in (("heads", 0), ("all", 3))
    )
    options = dict(preset=preset(steps_per_epoch=1), stages=stages, minutes=2, **QUIET)
    history = train(
        Toy(), dataset(), run=tmp_path, on_epoch=lambda row: row["epoch"] == stop, **options
    )
    if stop:
        assert len(history.rows) == stop
        history = train(Toy(), dataset(), run=tmp_path, resume=True, **options)
    assert [row["stage"] for row in history.rows] == ["heads"] * 6 + ["all"] * 6
    expected = [0.03] * 6 + [0.0075, 0.015, 0.0225] + [0.03] * 3
    assert [row["rate"] for row in history.rows] == pytest.approx(expected)


def test_epochs_and_minutes_are_alternatives(tmp_path):
    with pytest.raises(UserError, match="epochs and minutes are alternatives"):
        train(Toy(), dataset(), preset=preset(), epochs=2, minutes=1, run=tmp_path / "run", **QUIET)
    assert not (tmp_path / "run").exists()


def test_the_last_epoch_by_the_clock_is_validated(tmp_path, monkeypatch):
    """Epochs of 57 seconds and saves of 3: after two epochs 117 of 120 seconds are over, and after the save all of them."""
    now = [0.0]

    def later(name, seconds, owner=loop):
        real = getattr(owner, name)

        def call(*args, **kwargs):
            now[0] += seconds
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    later("save_checkpoint", 3.0)
    later("summary", 57.0, EpochWatch)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(
        loop,
        "validate",
        lambda model, data: {"coco_ap": 1.0, "dsb_score": 0.0, "mean_mask_iou": 0.0},
    )
    options = dict(
        preset=preset(steps_per_epoch=1),
        stages=STAGES[1:],
        minutes=2,
        validation="held out",
        validate_every=100,
        **QUIET,
    )
    history = train(Toy(), dataset(), run=tmp_path, **options)
    assert history.rows[-1]["seconds"] >= 120 and history.rows[-1]["coco_ap"] == 1.0
    assert (tmp_path / "weights" / "config.json").exists() and history.best == 1.0
    again = train(Toy(), dataset(), run=tmp_path, resume=True, **options)
    assert len(again.rows) == len(history.rows), "what is finished is not gone on with"


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


def test_a_checkpoint_keeps_bfloat16(tmp_path):
    import keras

    from nucleus_course.training.checkpoint import load_checkpoint, save_checkpoint

    def model(value):
        variable = keras.Variable(np.full(3, value), dtype="bfloat16")
        return SimpleNamespace(
            metrics=[], variables=[variable], optimizer=SimpleNamespace(variables=[])
        )

    other = model(0.0)
    save_checkpoint(tmp_path / "c.npz", model(1.5), {})
    load_checkpoint(tmp_path / "c.npz", other)
    assert np.asarray(other.variables[0].numpy(), "float32").tolist() == [1.5] * 3


def test_a_run_folder_in_use_is_refused(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match="run folder .*run is in use by another training"):
        train(Toy(), dataset(), preset=preset(), run=tmp_path / "run", **QUIET)
    folder.close()
    train(Toy(), dataset(), preset=preset(), run=tmp_path / "run", epochs=1, **QUIET)
    with pytest.raises(UserError, match="already holds a training: add --resume"):
        train(Toy(), dataset(), preset=preset(), run=tmp_path / "run", **QUIET)
    RunFolder(tmp_path / "run", resume=True).close()  # neither refusal left it locked


def test_a_run_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="run folder .*run is a file"):
        train(Toy(), dataset(), preset=preset(), run=tmp_path / "run", **QUIET)


def test_the_checkpoint_of_another_model_is_refused_and_nothing_lost(tmp_path):
    train(Toy(units=3), dataset(), preset=preset(), run=tmp_path, epochs=1, **QUIET)
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="checkpoint .*checkpoint.npz is of another model"):
        train(Toy(units=5), dataset(), preset=preset(), run=tmp_path, resume=True, **QUIET)
    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    RunFolder(tmp_path, resume=True).close()


@pytest.mark.parametrize("damage", [b"", b"not a zip", None], ids=["empty", "text", "cut short"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    train(Toy(), dataset(), preset=preset(), run=tmp_path, epochs=1, **QUIET)
    file = tmp_path / "checkpoint.npz"
    file.write_bytes(file.read_bytes()[:-100] if damage is None else damage)
    with pytest.raises(UserError, match="checkpoint.npz cannot be read"):
        train(Toy(), dataset(), preset=preset(), run=tmp_path, resume=True, **QUIET)
    RunFolder(tmp_path, resume=True).close()


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    train(Toy(), dataset(), preset=preset(), run=tmp_path, epochs=1, **QUIET)
    before = (tmp_path / "checkpoint.npz").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nucleus_course._util.files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train(Toy(), dataset(), preset=preset(), run=tmp_path, resume=True, epochs=2, **QUIET)
    assert (tmp_path / "checkpoint.npz").read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))
    RunFolder(tmp_path, resume=True).close()
