"""`train --time-limit --pack`, rehearsed on a CPU: a tiny network, a few steps, every file."""

import json
import time

import numpy as np
import pytest
import terminal
from terminal import one_line_error
from tiny import python, tiny_preset
from training.toy import Toy
from typer.testing import CliRunner

from nucleus_course.backend import is_out_of_memory
from nucleus_course.cli.app import app
from nucleus_course.config import StageConfig
from nucleus_course.evaluation import Report
from nucleus_course.prediction import segmenter
from nucleus_course.prediction.interchange import Predictions
from nucleus_course.presets import PRESETS
from nucleus_course.training import time_limit
from nucleus_course.training.time_limit import MARGIN, Speed, TimeLimit, fitted

# TensorFlow and torch cannot be imported here, as on a machine without them; the presets gain a tiny one.
SCRIPT = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from nucleus_course import config, presets
from nucleus_course.cli import main
from nucleus_course.training import time_limit
from tiny import tiny_preset
presets.PRESETS["tiny"] = tiny_preset(stages=(config.StageConfig("all", epochs=2, rate=1e-3),), ema=0.9)
time_limit.MARGIN = 0.0
main()
"""


def run(*words):
    words = ["train", "--data", "sample", "--backend", "jax", *map(str, words)]
    return python(SCRIPT, *words, backend="jax", JAX_PLATFORMS="cpu", COLUMNS="120")


def check_pack(packed, folder, epochs):
    """Every file of a pack is there, and they agree with each other and with the run folder."""
    summary = json.loads((packed / "summary.json").read_text())
    assert (summary["epochs"], summary["backend"]) == (epochs, "jax")
    assert summary["images_per_s"] > 0 and 0 <= summary["waiting"] <= 1
    assert (packed / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (packed / "log.csv").read_bytes() == (folder / "log.csv").read_bytes()
    parts = sorted(packed.glob("weights-*.h5"))
    assert len(parts) > 1 and all(part.stat().st_size < 50_000 for part in parts)
    report = Report.load(packed / "report.json")
    assert report.metrics == pytest.approx(summary["metrics"]) and "coco_ap" in report.metrics
    thresholds = json.loads((packed / "thresholds.json").read_text())
    assert thresholds["metric"] == "dsb_score"
    assert thresholds == json.loads((folder / "weights" / "thresholds.json").read_text())
    predictions = Predictions.load(packed / "predictions.json")
    assert predictions.score_threshold == thresholds["score"]

    from nucleus_course.models.weights.folder import named_variables
    from nucleus_course.prediction.segmenter import load

    kept, half = (named_variables(load(place).network) for place in (folder / "weights", packed))
    for name, variable in kept.items():
        np.testing.assert_allclose(half[name], variable, rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_a_schedule_in_two_calls(tmp_path):
    folder, packed = tmp_path / "run", tmp_path / "packed"
    words = ["--preset", "tiny", "--run", folder, "--pack", packed, "--max-mb", 0.05, "--epochs", 2]
    words += ["--steps-per-epoch", 2, "--limit", 4, "--resume"]

    done = run(*words, "--time-limit", 0.1)  # time for one epoch, the least there is
    assert done.returncode == 0, done.stderr[-2000:]
    assert "repeat the command with --resume to continue from epoch 1" in done.stdout
    assert not packed.exists() and (folder / "weights" / "weights.h5").exists()

    done = run(*words, "--batch-size", 3)
    assert done.returncode == 2
    assert "--batch-size 3" in done.stderr and "was started with 2" in done.stderr

    done = run(*words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{packed}/ (a model folder)" in done.stdout and "waiting for input" in done.stdout
    lines = (folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    check_pack(packed, folder, 2)


@pytest.mark.slow
def test_a_schedule_fitted_to_the_limit(tmp_path, monkeypatch):
    """A toy network needs only twenty seconds."""
    stages = (StageConfig("heads", layers="heads", rate=1e-3), StageConfig("all", rate=1e-3))
    monkeypatch.setitem(PRESETS, "tiny", tiny_preset(stages=stages, ema=0.9))
    monkeypatch.setattr(segmenter, "build", toy)
    monkeypatch.setattr(time_limit, "MARGIN", 0.0)
    words = ["train", "--data", "sample", "--preset", "tiny", "--time-limit", 0.35, "--limit", 4]
    done = CliRunner().invoke(app, [*map(str, words), "--largest-batch", "--run", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "images/s at a batch of" in done.stdout and "minutes of training" in done.stdout
    settings = json.loads((tmp_path / "config.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert 0 < settings["minutes"] < 0.35 and settings["training"]["batch_size"] >= 2
    assert len(rows) > 2 and [rows[0]["stage"], rows[-1]["stage"]] == ["heads", "all"]


def toy(config, thresholds, dtype_policy, seed):
    model = Toy(seed=seed)
    model.network.config, model.thresholds = config, thresholds
    return model


@pytest.mark.parametrize(
    "words, message",
    [
        (["--preset", "papers"], "unknown preset 'papers'"),
        (["--epochs", 3, "--minutes", 9], "exclude each other"),
        (["--preset", "tiny", "--crop", 100], "--crop 100 is not a multiple of 32"),
        (["--pack", "p", "--validation", "none"], "--pack chooses thresholds"),
        (["--largest-batch"], "--largest-batch needs --time-limit"),
        (["--reserve", 3], "--reserve keeps time for --pack"),
        (["--minutes", "inf"], "--minutes inf: give a finite number"),
        (["--time-limit", "inf"], "--time-limit inf: give a finite number"),
        (["--fine-tune", "--minutes", "inf"], "--minutes inf: give a finite number"),
        (["--pack", __file__], "is a file: name a folder"),
        (["--pack", f"{__file__}/packed"], "is a file: name a folder"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_folder(tmp_path, monkeypatch, words, message):
    monkeypatch.setitem(PRESETS, "tiny", tiny_preset())
    monkeypatch.setenv("COLUMNS", "200")
    words = ["train", "--data", "sample", *map(str, words), "--run", str(tmp_path / "run")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and message in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "run").exists()


@pytest.mark.parametrize("pack", ["run", "run/weights", "../run"])
def test_a_pack_does_not_replace_the_run_folder(tmp_path, monkeypatch, pack):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub" if pack.startswith("..") else tmp_path)
    words = ["train", "--data", "sample", "--pack", pack, "--run", tmp_path / "run"]
    one_line_error(CliRunner().invoke(app, [*map(str, words)]), f"--pack {pack}", "another folder")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seed", [-1, 2**32, 5000000000])
def test_a_seed_that_no_generator_takes(tmp_path, seed):
    words = ["train", "--data", "sample", "--seed", seed, "--run", tmp_path / "run"]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 2 and "Invalid value for '--seed'" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--sigma inf", "--sigma inf: give a finite number"),
        ("--depth inf", "--depth inf: give a finite number"),
        ("--search --sigma 2 --min-area 3", "leave out --sigma, --min-area"),
        ("--search --out x.json", "writes no file: leave out --out"),
    ],
)
def test_options_of_the_baseline_that_cannot_be_used(tmp_path, monkeypatch, words, line):
    monkeypatch.chdir(tmp_path)
    one_line_error(terminal.run("baseline otsu --data sample", words), line)
    assert not list(tmp_path.iterdir())


def test_the_limit_leaves_time_for_what_follows(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def stops(lengths, minutes, reserve, before=0.0):
        clock[0] = 0.0
        limit = TimeLimit(minutes, reserve)
        clock[0] = before
        limit.start()
        said = []
        for length in lengths:
            clock[0] += length
            said.append(limit({}))
        return said

    assert not any(stops([600] * 5, None, 0))
    # 10 minutes less 2 for scoring and the margin leave 460 s; the first epoch compiles.
    assert 600 - 120 - MARGIN == 460
    assert stops([200, 100, 100, 100], 10, 2) == [False, False, True, True]
    assert stops([240], 10, 2) == [True]
    assert stops([60, 50, 90, 90, 90], 10, 2) == [False, False, False, False, True]
    assert stops([100, 100], 10, 2, before=200) == [False, True]


def test_a_fitted_schedule_ends_within_its_time():
    for seconds, start, step in ((600.0, 50.0, 0.5), (60.0, 0.0, 7.0), (30.0, 28.0, 0.001)):
        preset, minutes = fitted(tiny_preset(), seconds, Speed(start, step))
        epoch = preset.training.steps_per_epoch * step
        assert preset.training.steps_per_epoch >= 1
        assert 60 * minutes + epoch <= seconds + 1e-6, "the clock is looked at between epochs"
        assert epoch <= max(step, (seconds - start) / 20)


@pytest.mark.parametrize("optimizer, rate", [("sgd", 8.0), ("adamw", 8.0**0.5)])
def test_the_largest_batch_that_pays_and_fits(monkeypatch, optimizer, rate):
    class OutOfMemoryError(RuntimeError):
        pass

    def speed(build, dataset, preset):
        """Larger batches cost nothing up to 16; beyond that memory runs out."""
        if preset.training.batch_size > 16:
            raise OutOfMemoryError("CUDA out of memory")
        return Speed(9.0, 1.0)

    monkeypatch.setattr(time_limit, "measure_speed", speed)
    start = tiny_preset(optimizer=optimizer)
    found, speed = time_limit.largest_batch(lambda preset: None, None, start)
    assert (found.training.batch_size, speed.step) == (16, 1.0)
    assert found.training.stages[0].rate == pytest.approx(rate * start.training.stages[0].rate)

    monkeypatch.setattr(
        time_limit, "measure_speed", lambda b, d, preset: Speed(1, preset.training.batch_size)
    )
    assert time_limit.largest_batch(lambda preset: None, None, start)[0] == start, "no gain"


def test_what_is_out_of_memory():
    class ResourceExhaustedError(Exception):
        pass

    assert is_out_of_memory(MemoryError()) and is_out_of_memory(ResourceExhaustedError("OOM"))
    assert is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating"))
    assert not is_out_of_memory(ValueError("a shape is wrong"))
