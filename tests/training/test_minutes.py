"""Training by the clock."""

from types import SimpleNamespace

import pytest
from toy import STAGES, Toy, dataset, preset

from nucleus_course._util.errors import UserError
from nucleus_course.config import StageConfig
from nucleus_course.training import loop, train
from nucleus_course.training.progress import EpochWatch

QUIET = {"progress": False}


def test_minutes_follow_the_clock(monkeypatch):
    """A clock that moves ten seconds at each reading: rates fall with the share of the time used."""
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
    with pytest.raises(UserError, match="epochs and minutes exclude each other"):
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
