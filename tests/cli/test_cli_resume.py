"""`nucleus-course train --resume` keeps the run's settings, and says so where an option contradicts them."""

import json
import shutil

import numpy as np
import pytest
import terminal
import tifffile
from PIL import Image
from terminal import one_line_error
from tiny import discs, tiny_config, tiny_preset, write_annotated
from training.toy import Toy

from nucleus_course import presets as presets_module
from nucleus_course.config import StageConfig
from nucleus_course.prediction import segmenter
from nucleus_course.training.progress import EpochWatch

pytestmark = pytest.mark.filterwarnings("ignore")
TIMES = ("seconds", "images_per_s", "waiting")
# Each differs from the preset's.
BEGUN = ("--preset", "tiny", "--split", "all", "--limit", 5, "--batch-size", 4, "--crop", 96, "--augment", "plain", "--seed", 7,
         "--steps-per-epoch", 1, "--dtype", "float32", "--validation", "none")  # fmt: skip


def run(*words):
    return terminal.run("train", *words)


def write_discs(folder, count, seed=0, name=None):
    """Annotated images in BBBC038's layout; their names begin with ``name``, or else differ with the seed."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        labels, image = discs(80, 88, 5, rng)
        masks = [labels == label for label in range(1, labels.max() + 1)]
        write_annotated(folder, f"{name or f'image{seed}'}{number:02d}", image, masks)
    return folder


@pytest.fixture(scope="module", autouse=True)
def presets(tmp_path_factory):
    """Two presets, and for the network a toy that trains in moments."""
    stages = (
        StageConfig("heads", layers="heads", epochs=2, rate=1e-3),
        StageConfig("all", layers="all", epochs=2, rate=1e-3),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets_module.PRESETS, "tiny", tiny_preset(stages=stages, ema=0.9))
        patch.setitem(presets_module.PRESETS, "other", tiny_preset(tiny_config(name="other")))
        patch.setenv("NUCLEUS_COURSE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(segmenter, "build", toy)
        yield


def toy(config, thresholds, dtype_policy, seed):
    model = Toy(seed=seed)
    model.network.config, model.thresholds = config, thresholds
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_discs(tmp_path_factory.mktemp("data") / "discs", 6)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Two folders of the same training: ``straight``, and ``cut``, interrupted by Ctrl-C in the second of three epochs."""
    folder = tmp_path_factory.mktemp("runs")
    done = run("--data", data, "--run", folder / "straight", "--epochs", 3, *BEGUN)
    assert done.exit_code == 0, done.output
    ended = EpochWatch.on_train_batch_end

    def interrupt(self, step, logs=None):
        ended(self, step, logs)
        if self.batches.epoch == 1:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EpochWatch, "on_train_batch_end", interrupt)
        assert run("--data", data, "--run", folder / "cut", "--epochs", 3, *BEGUN).exit_code == 130
    assert len(log(folder / "cut")) == 1
    return folder


@pytest.fixture
def cut(runs, tmp_path):
    """A copy of the interrupted run."""
    return shutil.copytree(runs / "cut", tmp_path / "run")


def log(folder):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def settings(folder):
    return json.loads((folder / "config.json").read_text())


def forget(folder, *keys):
    """config.json as another version would have written it."""
    values = {key: value for key, value in settings(folder).items() if key not in keys}
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.parametrize("words", [(), (*BEGUN, "--epochs", 3)], ids=["not repeated", "repeated"])
def test_the_settings_come_from_the_run_folder(cut, runs, data, words):
    before = settings(cut)
    done = run("--data", data, "--run", cut, "--resume", *words)
    assert done.exit_code == 0, done.output
    assert log(cut) == log(runs / "straight") and len(log(cut)) == 3
    one, other = (folder / "weights" / "weights.h5" for folder in (cut, runs / "straight"))
    assert one.read_bytes() == other.read_bytes()
    assert settings(cut) == before


@pytest.mark.parametrize(
    "option, value, begun",
    [
        ("--preset", "other", "with tiny"),
        ("--split", "validation", "with all"),
        ("--limit", 4, "with 5"),
        ("--batch-size", 2, "with 4"),
        ("--crop", 64, "with 96"),
        ("--augment", "gentle", "with plain"),
        ("--seed", 8, "with 7"),
        ("--steps-per-epoch", 5, "with 1"),
        ("--dtype", "mixed_bfloat16", "with float32"),
        ("--weights", "compact", "without --weights"),
    ],
)
def test_an_option_against_them_is_refused(cut, data, option, value, begun):
    before = {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()}
    one_line_error(
        run(f"--data {data} --run {cut} --resume {option} {value}"),
        f"{option} {value}",
        f"was started {begun}",
        "Leave it out",
    )
    assert {path: path.read_bytes() for path in cut.rglob("*") if path.is_file()} == before


def test_other_images_are_refused(cut, data, tmp_path):
    words = ("--run", cut, "--resume")
    other = write_discs(tmp_path / "others", 6, seed=1)
    one_line_error(run("--data", other, *words), "others", "not the 5", "discs all")
    moved = shutil.copytree(data, tmp_path / "moved")
    shutil.rmtree(moved / "image005")  # beyond --limit
    forget(cut, "limit")
    one_line_error(run(f"--data {moved}", *words, "--split all --limit 4"), "4 images", "not the 5")
    done = run("--data", moved, *words, "--limit", 5, "--epochs", 1)
    assert done.exit_code == 0, done.output


SEEN = ("contents_sha256", "grey", "reading", "annotations", "allow_empty")


def test_other_images_with_the_same_ids_are_refused(cut, data, tmp_path):
    words = ("--run", cut, "--resume")
    other = write_discs(tmp_path / "other", 6, seed=1, name="image0")
    said = ("the ids are the same, but", "(discs all)", "choose another --run")
    one_line_error(run("--data", other, *words), *said)
    nuclei = shutil.copytree(data, tmp_path / "nuclei")
    next((nuclei / "image002" / "masks").iterdir()).unlink()
    one_line_error(run("--data", nuclei, *words), *said, "numbers of nuclei differ")
    dark = shutil.copytree(data, tmp_path / "dark")
    for path in dark.glob("*/images/*.png"):
        Image.fromarray(np.asarray(Image.open(path)) // 2).save(path)
    one_line_error(run("--data", dark, *words), *said, "brightness differs")
    forget(cut, *SEEN)
    done = run("--data", dark, *words, "--epochs", 1)
    assert done.exit_code == 0, "a folder of an older version is not checked"


def test_how_images_were_read_is_kept(data, tmp_path):
    folder, images = tmp_path / "run", tmp_path / "images"
    images.mkdir()
    for path in data.glob("*/images/*.png"):
        grey = np.asarray(Image.open(path))[..., 0]
        both = np.stack([grey, 255 - grey])
        tifffile.imwrite(images / f"{path.stem}.tif", both, imagej=True, metadata={"axes": "CYX"})
        masks = [np.asarray(Image.open(m)) for m in sorted((path.parents[1] / "masks").iterdir())]
        labels = sum((number * (mask > 0) for number, mask in enumerate(masks, 1)), 0)
        tifffile.imwrite(images / f"{path.stem}_masks.tif", labels.astype(np.uint16))
    words = ("--data", images, "--run", folder, "--epochs")
    done = run(*words, 1, "--channel 1 --annotations labels", *BEGUN)
    assert done.exit_code == 0, done.output
    assert {name: settings(folder)[name] for name in ("reading", "annotations", "allow_empty")} == {
        "reading": {"channel": "1"}, "annotations": "labels", "allow_empty": False
    }  # fmt: skip
    for again in ("--channel 0", "--plane 0", "--annotations masks"):
        begun = "without --plane" if "plane" in again else "with"
        one_line_error(run(*words, 2, "--resume", again), again, f"was started {begun}")
    done = run(*words, 2, "--resume")
    assert done.exit_code == 0, done.output
    assert run(*words, 3, "--resume --channel 1 --annotations labels").exit_code == 0
    forget(folder, "reading")
    one_line_error(run(*words, 3, "--resume --channel 0"), "the ids are the same, but brightness")


def test_fewer_epochs_than_are_trained(runs, data, tmp_path):
    folder = shutil.copytree(runs / "straight", tmp_path / "run")
    before = settings(folder)
    for number in (1, 2):
        result = run("--data", data, "--run", folder, "--resume", "--epochs", number)
        one_line_error(result, "is already trained for 3 epochs: ask for no fewer than 3")
    assert settings(folder) == before


def test_a_fine_tuning_is_not_resumed(cut, data):
    (cut / "config.json").write_text(json.dumps({**settings(cut), "fine_tuned": True}))
    result = run("--data", data, "--run", cut, "--resume")
    one_line_error(result, "a fine-tuning, which cannot be resumed", "choose another --run")


def test_another_length_is_kept_for_the_next_time(cut, data):
    done = run("--data", data, "--run", cut, "--resume", "--epochs", 2, "--workers", 1)
    assert done.exit_code == 0, done.output
    assert len(log(cut)) == 2 and [stage["epochs"] for stage in settings(cut)["stages"]] == [1, 1]
    assert run("--data", data, "--run", cut, "--resume").exit_code == 0 and len(log(cut)) == 2
    assert settings(cut)["training"]["batch_size"] == 4


def test_minutes_are_read_back_as_well(cut, data):
    config = settings(cut)
    (cut / "config.json").write_text(json.dumps({**config, "minutes": 1e-6}))
    done = run("--data", data, "--run", cut, "--resume")
    assert done.exit_code == 0 and len(log(cut)) == 1, "the time is over"
    one_line_error(
        run(f"--data {data} --run {cut} --resume --epochs 2 --minutes 1"), "--epochs and --minutes"
    )


def test_a_run_folder_of_an_older_version(cut, runs, data):
    forget(cut, "limit", "validation", "ids_sha256")
    one_line_error(run("--data", data, "--run", cut, "--resume"), "6 images", "not the 5")
    done = run("--data", data, "--run", cut, "--resume", "--limit", 5)
    assert done.exit_code == 0, done.output
    assert log(cut) == log(runs / "straight")


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not JSON"),
        ("{}", "does not hold the settings of a run"),
        ('{"model": {"name": "x", "depth": 3}}', "ModelConfig has no depth"),
    ],
)
def test_settings_that_cannot_be_read_are_named(cut, data, text, message):
    (cut / "config.json").write_text(text)
    one_line_error(run("--data", data, "--run", cut, "--resume"), "config.json", message)


def test_before_the_first_checkpoint_it_begins_again_as_it_was_begun(cut, runs, data):
    (cut / "checkpoint.npz").unlink()
    done = run("--data", data, "--run", cut, "--resume")
    assert done.exit_code == 0 and "no checkpoint yet" in done.stderr, done.output
    assert log(cut) == log(runs / "straight") and settings(cut) == settings(runs / "straight")


def test_weights_it_began_with_are_not_asked_for_again(runs, data, tmp_path):
    """Their thresholds stay with it, too."""
    start = shutil.copytree(runs / "straight" / "weights", tmp_path / "start")
    stored = json.loads((start / "thresholds.json").read_text())
    (start / "thresholds.json").write_text(json.dumps({**stored, "score": 0.123}))
    words = ("--data", data, "--run", tmp_path / "run", "--epochs", 1, *BEGUN)
    assert run(*words, "--weights", start).exit_code == 0
    one_line_error(
        run(*words, f"--resume --weights {runs / 'cut' / 'weights'}"), "--weights", f"with {start}"
    )
    shutil.rmtree(start)
    done = run("--data", data, "--run", tmp_path / "run", "--resume", "--epochs", 2)
    assert done.exit_code == 0, done.output
    assert (
        json.loads((tmp_path / "run" / "weights" / "thresholds.json").read_text())["score"] == 0.123
    )
    assert settings(tmp_path / "run")["start"] == str(start)
