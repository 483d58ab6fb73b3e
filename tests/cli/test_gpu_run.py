"""The script for one GPU, rehearsed on a CPU: JAX alone, a tiny network, a few steps, every file."""

import json
import time

import numpy as np
import pytest
from tiny import python

from nucleus_course.cli.gpu_run import MARGIN, Deadline
from nucleus_course.evaluation import Report
from nucleus_course.prediction.interchange import Predictions

# TensorFlow and torch cannot be imported here, as on a machine without them; the presets gain a tiny one.
SCRIPT = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from nucleus_course import config, gpu_run
from tiny import tiny_preset
config.PRESETS["tiny"] = tiny_preset(stages=(config.StageConfig("all", epochs=2, rate=1e-3),), ema=0.9)
gpu_run.app(prog_name="gpu_run")
"""


def run(*args, code=SCRIPT, **env):
    return python(code, *args, backend="jax", JAX_PLATFORMS="cpu", COLUMNS="120", **env)


@pytest.mark.slow
def test_two_chunks_and_every_file(tmp_path):
    out = tmp_path / "run"
    words = [
        "--preset",
        "tiny",
        "--data",
        "sample",
        "--out",
        str(out),
        "--cache",
        str(tmp_path / "cache"),
    ]
    words += ["--steps-per-epoch", "2", "--workers", "1", "--limit", "4", "--max-mb", "0.05"]

    done = run(*words, "--minutes", "0.1")  # time for one epoch, which is always made
    assert done.returncode == 0, done.stderr[-2000:]
    assert "repeat the command to go on" in done.stdout and "stage 'all'" in done.stdout
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["finished"], summary["epochs"], summary["metrics"]) == (False, 1, None)
    assert not (out / "model").exists() and (out / "weights" / "weights.h5").exists()

    done = run(*words, "--batch-size", "3")
    assert (
        done.returncode == 2
        and "--batch-size 3" in done.stderr
        and "was begun with 2" in done.stderr
    )

    done = run(*words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"finished: {out}/model, {out}/report.json" in done.stdout
    assert (
        "images/s" in done.stdout and "waiting for input" in done.stdout and "loss " in done.stdout
    )
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["finished"], summary["epochs"], summary["backend"]) == (True, 2, "jax")
    assert (
        summary["images_per_s"] > 0 and 0 <= summary["waiting"] <= 1 and summary["loss"]["loss"] > 0
    )
    assert [json.loads(line)["epoch"] for line in (out / "log.jsonl").read_text().splitlines()] == [
        1,
        2,
    ]
    for name in ("config.json", "log.csv", "checkpoint.npz", "weights/config.json"):
        assert (out / name).is_file(), name
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")

    parts = sorted((out / "model").glob("weights-*.h5"))
    assert len(parts) > 1 and all(part.stat().st_size < 50_000 for part in parts)
    report, predictions = (
        Report.load(out / "report.json"),
        Predictions.load(out / "predictions.json"),
    )
    assert report.metrics == pytest.approx(summary["metrics"]) and "coco_ap" in report.metrics
    assert report.split == "validation" or len(report.images) == 4
    thresholds = json.loads((out / "model" / "thresholds.json").read_text())
    assert thresholds["metric"] == "dsb_score" and thresholds == json.loads(
        (out / "weights" / "thresholds.json").read_text()
    )
    assert (
        predictions.score_threshold
        == thresholds["score"]
        == report.operating_point["score_threshold"]
    )

    from nucleus_course.models.weights.folder import named_variables
    from nucleus_course.prediction.segmenter import MaskRCNN

    kept, packed = (named_variables(MaskRCNN.load(out / name)) for name in ("weights", "model"))
    for name, variable in kept.items():
        np.testing.assert_allclose(packed[name], variable, rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--preset", "papers"], "unknown preset 'papers'"),
        (["--preset", "tiny", "--score", "now"], "unknown --score 'now'"),
        (["--preset", "tiny", "--epochs", "3", "--total-minutes", "9"], "are alternatives"),
        (["--preset", "tiny", "--crop", "100"], "--crop 100 is not a multiple of 32"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_folder(tmp_path, words, message):
    done = run(*words, "--data", "sample", "--out", str(tmp_path / "run"))
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "run").exists()


def test_the_deadline_leaves_time_for_what_follows(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def stops(lengths, minutes, reserve):
        clock[0] = 0.0
        deadline = Deadline(minutes, reserve)
        said = []
        for length in lengths:
            clock[0] += length
            said.append(deadline({}))
        return said

    assert not any(stops([600] * 5, None, 0))
    # 10 minutes less 2 for scoring and the margin leave 460 s; the first epoch compiles.
    assert 600 - 120 - MARGIN == 460
    assert stops([200, 100, 100, 100], 10, 2) == [False, False, True, True]
    assert stops([240], 10, 2) == [True]
    assert stops([60, 50, 90, 90, 90], 10, 2) == [False, False, False, False, True]
