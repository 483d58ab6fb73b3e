"""The command line with a network: predict, evaluate, train, thresholds on small images that the tests draw."""

import errno
import json
import os
import re

import keras
import numpy as np
import pytest
import tifffile
from PIL import Image
from terminal import one_line_error, plain, run, table
from tiny import write_annotated

from nucleus_course.cli import common

pytestmark = pytest.mark.filterwarnings("ignore")


def discs(seed, size=64, count=4):
    """A picture (size, size) uint8 of bright discs, and the masks of the visible ones."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    image, masks = rng.normal(20, 3, (size, size)), []
    taken = np.zeros((size, size), bool)
    while len(masks) < count:
        (y, x), r = rng.uniform(10, size - 10, 2), rng.uniform(5, 8)
        mask = (rows - y) ** 2 + (columns - x) ** 2 < r * r
        if not (mask & taken).any():
            masks.append(mask)
            taken |= mask
            image[mask] += 150
    return image.clip(0, 255).astype(np.uint8), masks


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve annotated images in BBBC038's layout: validation gets ids 0 and 10."""
    folder = tmp_path_factory.mktemp("data") / "discs"
    for number in range(12):
        write_annotated(folder, f"image{number:02d}", *discs(number))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder of the compact network with random weights."""
    import keras

    from nucleus_course import MaskRCNN

    keras.utils.set_random_seed(1)
    return MaskRCNN.from_preset("compact").save(tmp_path_factory.mktemp("model") / "weights")


LOADED = {}


@pytest.fixture(autouse=True)
def one_model_for_all(monkeypatch):
    """Load each set of weights once: a model compiles on its first image, and these tests are about the commands."""
    real = common.open_model

    def open_once(weights, preset=None, dtype=None):
        key = (str(weights), preset, dtype)
        if key not in LOADED:
            LOADED[key] = real(weights, preset, dtype)
        return LOADED[key]

    monkeypatch.setattr(common, "open_model", open_once)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -------------------------------------------------------------------------------------- predict


def test_predict_writes_everything_and_names_the_bad_ones(here, model):
    image, _ = discs(3)
    folder = here / "in"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(np.stack([image] * 3, -1)).save(folder / "rgb.png")
    tifffile.imwrite(folder / "sub" / "deep.tif", image.astype(np.uint16) * 200)
    (folder / "cut.png").write_bytes((folder / "rgb.png").read_bytes()[:200])
    (folder / "words.png").write_text("no image")
    words = (
        f"--weights {model} --out {here / 'out'} --overlay --score-threshold 0.3 --diameter none"
    )
    result = run("predict", folder, words)
    one_line_error(result, "2 of 4 images", code=1)
    for name in ("cut.png", "words.png"):
        assert any("skipped" in line and name in line for line in plain(result.stderr).splitlines())

    from nucleus_course import Predictions

    found = Predictions.load(here / "out" / "predictions.json")
    assert sorted(found.images) == ["deep", "rgb"] and found.score_threshold == 0.3
    document = json.loads((here / "out" / "predictions.json").read_text())
    assert {i["file_name"] for i in document["images"]} == {"rgb.png", "sub/deep.tif"}
    counts = {r["image"]: r for r in table(here / "out" / "counts.csv")}
    measured = table(here / "out" / "measurements.csv")
    for stem, name in (("rgb", "rgb.png"), ("deep", "sub/deep.tif")):
        labels = tifffile.imread(here / "out" / "labels" / f"{stem}.tif")
        low, high = (counts[name][edge] for edge in ("low", "high"))
        row = [name, "64", "64", str(labels.max()), "", "bright", "no", low, high, ""]
        row += [counts[name]["scale"], ""]
        assert counts[name] | {"median_area_px": ""} == dict(zip(counts[name], row, strict=True))
        most = int(image.max()) * (200 if name.endswith("tif") else 1)
        assert 0 <= float(low) < float(high) <= most
        areas = [float(r["area_px"]) for r in measured if r["image"] == name]
        assert areas == np.bincount(labels.ravel())[1:].tolist()
        assert float(counts[name]["median_area_px"]) == np.median(areas)
    assert name in plain(result.stdout) and len(areas) > 0
    for stem in found.images:
        labels = tifffile.imread(here / "out" / "labels" / f"{stem}.tif")
        assert labels.shape == (64, 64) and labels.dtype == np.uint16
        np.testing.assert_array_equal(labels > 0, found.images[stem].label_image(0.3) > 0)
        overlay = np.array(Image.open(here / "out" / "overlays" / f"{stem}.png"))
        assert overlay.shape == (64, 64, 3)
    assert not list((here / "out").rglob("*.partial"))


def test_predict_reads_the_layout_of_bbbc038_and_not_its_own_results(here, model, data):
    for _ in range(2):  # the second time, results of the first lie inside the folder
        result = run(
            f"predict {data / 'image00'} {data / 'image01'} --weights {model}",
            f"--out {data / 'image00' / 'out'}",
        )
        assert result.exit_code == 0, result.stderr
    document = json.loads((data / "image00" / "out" / "predictions.json").read_text())
    names = [i["file_name"] for i in document["images"]]
    assert names == ["images/image00.png", "images/image01.png"]
    import shutil

    shutil.rmtree(data / "image00" / "out")


# ----------------------------------------------------------------------------------- weights


def test_a_model_in_half_precision_has_the_same_weights(here, model):
    dtypes = ("float32", "mixed_bfloat16")
    whole, half = (common.open_model(str(model), dtype=dtype) for dtype in dtypes)
    for one, dtype in zip((whole, half), dtypes):
        assert one.network.box_head.dtype_policy.name == dtype
    for a, b in zip(whole.network.weights, half.network.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    picture = str(here / "picture.png")
    Image.fromarray(discs(1)[0]).save(picture)
    one_line_error(run(f"predict {picture} --weights {model} --dtype float16"), "--dtype 'float16'")


@pytest.mark.parametrize(
    ("backend", "device", "native", "runtime", "expected"),
    [
        ("tensorflow", "cpu", True, "keras", "mixed_bfloat16"),
        ("tensorflow", "cpu", False, "keras", "float32"),
        ("tensorflow", "cpu", True, "openvino", "float32"),  # OpenVINO chooses its own precision
        ("jax", "cpu", True, "keras", "float32"),
        ("jax", "gpu: one", True, "keras", "mixed_bfloat16"),
    ],
)
def test_predict_takes_half_precision_where_it_is_the_faster(
    monkeypatch, backend, device, native, runtime, expected
):
    from nucleus_course import backend as backends

    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(backends, "has_bfloat16", lambda name: native)
    monkeypatch.setattr(backends, "devices", lambda name: [device])
    assert backends.fastest_dtype(runtime) == expected


def test_weights_of_another_architecture(here, data):
    import h5py

    with h5py.File(here / "other.h5", "w") as file:
        file["conv1/kernel"] = np.zeros((7, 7, 3, 5), "float32")
    one_line_error(run("evaluate", "--data", data, "--weights", here / "other.h5"), "--preset")
    for words in (
        ("evaluate", "--data", data, "--weights", here / "other.h5", "--preset", "compact"),
        ("train", "--data", data, "--weights", here / "other.h5"),
    ):
        one_line_error(run(*words), "another architecture", "compact")


def test_weights_that_are_no_weights(here, data):
    (here / "text.h5").write_text("no weights")
    one_line_error(
        run(f"predict {data / 'image00'} --weights {here / 'text.h5'} --preset compact"), "text.h5"
    )
    (here / "empty").mkdir()
    one_line_error(
        run(f"predict {data / 'image00'} --weights {here / 'empty'}"), "no weights in folder"
    )


def test_a_weights_file_is_as_good_as_its_folder(here, model, data):
    for number, weights in enumerate((model, model / "weights.h5")):
        words = f"predict {data / 'image00'} --weights {weights} --out {here / str(number)}"
        assert run(words).exit_code == 0
    first, second = (json.loads((here / n / "predictions.json").read_text()) for n in "01")
    assert first["annotations"] == second["annotations"]


# ----------------------------------------------------------------------------------- evaluate


def test_evaluate_weights_then_the_predictions_it_wrote(here, model, data):
    from nucleus_course.evaluation import KEYS

    words = ("--data", data, "--bootstrap", "20", "--types", "--errors")
    result = run("evaluate", *words, "--weights", model)
    assert result.exit_code == 0, result.stderr
    report = json.loads((here / "report.json").read_text())
    assert set(report["metrics"]) == set(KEYS) and set(report["images"]) == {"image00", "image10"}
    for key in KEYS:
        assert key in plain(result.stdout)
    again = run(
        "evaluate",
        *words,
        f"--predictions report.predictions.json --out again.json --against {model}",
    )
    assert again.exit_code == 0, again.stderr
    assert json.loads((here / "again.json").read_text())["metrics"] == report["metrics"]
    compared = json.loads((here / "again.against.json").read_text())
    assert all(row["difference"] in (0, None) for row in compared["metrics"].values())
    assert (here / "report.errors.json").exists()


def test_evaluate_a_perfect_folder_of_label_images_on_a_split_file(here, data):
    for number in (4, 7):
        labels = np.zeros((64, 64), np.uint16)
        for index, mask in enumerate(discs(number)[1], start=1):
            labels[mask] = index
        (here / "labels").mkdir(exist_ok=True)
        tifffile.imwrite(here / "labels" / f"image{number:02d}.tif", labels)
    (here / "split.txt").write_text("image04\n\n# a remark\nimage07\n")
    result = run(
        f"evaluate --data {data} --split {here / 'split.txt'} --predictions {here / 'labels'}"
    )
    assert result.exit_code == 0, result.stderr
    report = json.loads((here / "report.json").read_text())
    for key in ("coco_ap", "mean_mask_iou"):
        assert report["metrics"][key] == pytest.approx(100)
    one = run(
        f"evaluate --data {data} --split all --limit 5 --predictions {here / 'labels'}",
        "--out limited.json",
    )
    assert one.exit_code == 0 and "the first 5 of " in one.stderr
    assert len(json.loads((here / "limited.json").read_text())["images"]) == 5


# -------------------------------------------------------------------------------------- train


@pytest.mark.slow
def test_rescore_writes_scores_that_prediction_then_uses(here, data, model, monkeypatch):
    import shutil

    from nucleus_course import MaskRCNN
    from nucleus_course.evaluation import rescoring

    shutil.copytree(model, here / "mine")
    words = ("rescore", "--data", data, "--weights", here / "mine")
    one_line_error(run(*words, "--check none --limit 1"), "too few to fit scores", "more images")
    assert not (here / "mine" / "rescoring.json").exists()

    rng, count = np.random.default_rng(0), 40

    def collected(model, dataset, progress=True):
        features = rng.normal(size=(len(dataset), count, len(rescoring.FEATURES))).astype("float32")
        scores = np.full(count, 0.5, "float32")
        ious = [np.diag(1 / (1 + np.exp(-3 * rows[:, 2]))) for rows in features]
        return [rescoring.MatchedDetections(f, scores, iou) for f, iou in zip(features, ious)]

    monkeypatch.setattr(rescoring, "match_detections", collected)
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    said = plain(result.stdout)
    before, after = (float(w) for w in re.findall(r"(\d+\.\d\d) with", " ".join(said.split())))
    assert after > before + 5 and "nucleus-course thresholds --data" in said.replace("\n", " ")
    assert "mean score 0." in said and "knows the images" not in result.stderr
    info = json.loads((here / "mine" / "rescoring.json").read_text())["info"]
    told = {"split": "train", "dataset": "discs", "images": 10, "flips": 4}
    assert info == told | {"detections": 400, "seed": 0, "held_out": False}

    monkeypatch.setattr(rescoring, "mean_score_and_iou", lambda *_: (0.8, 0.7))
    assert "knows the images of train better" in plain(run(*words).stderr).replace("\n", " ")

    folds = ("--fold", f"{model}=train", "--fold", f"{model}=validation", "--check", "none")
    result = run(*words, *folds)
    assert result.exit_code == 0, result.stderr
    info = json.loads((here / "mine" / "rescoring.json").read_text())["info"]
    assert (info["split"], info["held_out"]) == ("train, validation", True)
    assert info["detections"] == count * info["images"] > 400
    one_line_error(run(*words, "--fold", "source-1"), "--fold 'source-1'", "RUN=SPLIT")
    one_line_error(run(*words, "--fold", f"{here / 'none'}=train"), "none")

    image = discs(0)[0]
    found, old = MaskRCNN.load(here / "mine").predict(image), MaskRCNN.load(model).predict(image)
    assert sorted(found.boxes.tolist()) == sorted(old.boxes.tolist())
    assert not np.allclose(found.scores, old.scores)


def test_rescore_refuses_what_has_no_scores_to_fit(here, data, model):
    import nucleus_course as nc

    words = ("rescore", "--data", data, "--weights")
    one_line_error(run(*words, model / "weights.h5"), "is a file")
    both = ("--split", "all", "--fold", f"{model}=train")
    one_line_error(run(*words, model, *both), "--split all and --fold exclude each other")
    nc.create("unet").save(here / "unet")
    one_line_error(
        run(f"rescore --data {data} --weights {here / 'unet'} --check none"),
        "only the scores of a Mask R-CNN",
    )


def test_train_then_refuse_then_resume_then_choose_thresholds(here, data):
    import filelock

    words = ("train", "--data", data, "--run", here / "run", "--epochs", 1, "--steps-per-epoch", 2, "--crop", 64,
             "--batch-size", 2, "--seed", 3, "--validation", "none", "--dtype", "float32")  # fmt: skip
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    for name in ("config.json", "log.csv", "log.jsonl", "checkpoint.npz", "weights/weights.h5"):
        assert (here / "run" / name).exists(), name
    config = json.loads((here / "run" / "config.json").read_text())["training"]
    given = {"crop": 64, "batch_size": 2, "seed": 3, "dtype": "float32"}
    assert given.items() <= config.items()

    one_line_error(run(*words), "already holds a training", "--resume")
    with filelock.FileLock(here / "run" / "run.lock"):
        one_line_error(run(*words, "--resume"), "in use", "--run")
    resumed = run(*words, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert len((here / "run" / "log.jsonl").read_text().splitlines()) == 1

    chosen = run("thresholds", "--data", data, "--weights", here / "run")
    assert chosen.exit_code == 0, chosen.stderr
    stored = json.loads((here / "run" / "weights" / "thresholds.json").read_text())
    assert stored["metric"] == "dsb_score" and stored["split"] == "validation"
    one_line_error(
        run(f"thresholds --data {data} --weights {here / 'run'} --metric coco_ap"), "coco_ap"
    )


@pytest.mark.slow
def test_full_disk_while_training(here, data, monkeypatch):
    from nucleus_course.training import loop

    def full(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(loop, "save_checkpoint", full)
    result = run(f"train --data {data} --run {here / 'run'} --epochs 1 --steps-per-epoch 1 --crop 64", "--batch-size 1 --validation none --dtype float32")  # fmt: skip
    one_line_error(result, "disk is full", "checkpoint.npz")


def test_run_folder_that_is_a_file(here, data):
    (here / "run").write_text("")
    one_line_error(run("train", "--data", data, "--run", here / "run", "--epochs", 1), "is a file")


@pytest.mark.parametrize(
    "weights, name",
    [("compact", "compact"), ("runs/first", "first"), ("runs/first/weights/", "first"), (".", ".")],
)
def test_tables_show_the_last_name_of_a_folder(weights, name):
    from nucleus_course.cli.evaluate import short_name

    assert short_name(weights) == name
