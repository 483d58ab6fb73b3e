"""`nucleus-course train --fine-tune`: no image that is scored is trained on, and mistakes show before anything is scored."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import terminal
import tifffile
from terminal import one_line_error
from tiny import discs, tiny_config, write_annotated

from nucleus_course._util.errors import UserError
from nucleus_course.cli import common
from nucleus_course.cli import fine_tune as few
from nucleus_course.training import TrainingDiverged


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NUCLEUS_COURSE_CACHE", str(tmp_path / "cache"))


def write_discs(folder, count, seed=0):
    """Annotated images in BBBC038's layout, with the same ids for every seed."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        labels, image = discs(40, 48, 3, rng)
        masks = [labels == label for label in range(1, labels.max() + 1)]
        write_annotated(folder, f"image{number:02d}", image, masks)
    return folder


def write_channels(folder, count, names):
    """TIFFs of two channels, the second bright where the nuclei are, with label images beside them."""
    folder.mkdir()
    rng = np.random.default_rng(4)
    for number in range(count):
        labels, image = discs(40, 48, 3, rng)
        both = np.stack([np.full(labels.shape, 90, np.uint8), image[..., 0]])
        options = {"ome": True, "metadata": {"axes": "CYX", "Channel": {"Name": names}}}
        tifffile.imwrite(folder / f"{names[1]}{number}.ome.tif", both, **options)
        tifffile.imwrite(folder / f"{names[1]}{number}.ome_masks.tif", labels.astype(np.uint16))
    return folder


def options(data, **given):
    usual = dict.fromkeys(("split", "validation", "mix", "ordinary"))
    usual |= {"reading": {}, "strict": False, "allow_empty": False, "annotations": "auto"}
    return SimpleNamespace(data=str(data), **{**usual, **{k: v and str(v) for k, v in given.items()}})  # fmt: skip


def ids(path, *names):
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def test_the_images_of_validation_are_kept_out_of_training(tmp_path, capsys):
    data = write_discs(tmp_path / "mine", 12)
    own, judged = few._split(options(data, validation="validation"))
    assert judged.ids == ("image00", "image10") and len(own) == 10
    assert not set(own.ids) & set(judged.ids)
    assert "training on 10 images; left out for scoring: the 2 of" in capsys.readouterr().err

    own, judged = few._split(options(data, split="train", validation="validation"))
    assert not set(own.ids) & set(judged.ids)
    assert "in both" not in capsys.readouterr().err
    own, judged = few._split(options(data, split="all", validation="validation"))
    assert set(judged.ids) < set(own.ids), "as asked, but said"
    assert "note: some images are in both" in capsys.readouterr().err
    with pytest.raises(UserError, match="--validation all leaves no image to train on"):
        few._split(options(data, validation="all"))


@pytest.mark.parametrize("place", ["itself", "a copy"])
def test_images_that_are_scored_are_not_mixed_in(place, tmp_path, capsys):
    data = write_discs(tmp_path / "mine", 12)
    old = data if place == "itself" else shutil.copytree(data, tmp_path / "copy")
    asked = options(data, mix=old)
    own, judged = few._split(asked)
    capsys.readouterr()
    mixed = few._old(asked, judged, None)
    assert len(judged) == 4 and not set(mixed.ids) & set(judged.ids) and len(mixed) > 5
    assert "are left out or scored as ordinary ones" in capsys.readouterr().err

    asked = options(data, mix=old, validation=ids(tmp_path / "few.txt", *own.ids[:3]), ordinary=old)
    own, judged = few._split(asked)
    ordinary = few._ordinary(asked, judged)
    mixed = few._old(asked, judged, ordinary)
    assert not set(mixed.ids) & {*judged.ids, *ordinary.ids} and mixed.ids


def test_other_images_with_the_same_ids_are_mixed_in(tmp_path, capsys):
    asked = options(write_discs(tmp_path / "mine", 12), mix=write_discs(tmp_path / "old", 9, 5))
    judged = few._split(asked)[1]
    assert len(few._old(asked, judged, None)) == 9
    assert "mixed in: without" not in capsys.readouterr().err


def test_nothing_left_to_mix_in_is_an_error(tmp_path):
    data = write_discs(tmp_path / "mine", 4)
    asked = options(data, mix=data, validation="none")
    whole = few._split(asked)[0]
    with pytest.raises(UserError, match="--mix .*mine: all its images are scored"):
        few._old(asked, whole, None)


@pytest.mark.parametrize("images", [2, 9, 12])
def test_one_set_to_mix_in_and_to_score_is_divided(images, tmp_path):
    old = write_discs(tmp_path / "old", images, 5)
    asked = options(write_discs(tmp_path / "mine", 3), mix=old, ordinary=f"{old}/../old")
    own, judged = few._split(asked)
    ordinary = few._ordinary(asked, own)
    mixed = few._old(asked, judged, ordinary)
    assert len(mixed) + len(ordinary) == images and not set(mixed.ids) & set(ordinary.ids)


def test_one_image_cannot_be_divided(tmp_path):
    old = write_discs(tmp_path / "old", 1, 5)
    asked = options(write_discs(tmp_path / "mine", 3), mix=old, ordinary=old)
    with pytest.raises(UserError, match="holds one image"):
        few._ordinary(asked, few._split(asked)[0])


def test_ordinary_images_are_not_those_that_are_trained_on(tmp_path, capsys):
    data = write_discs(tmp_path / "mine", 6)
    own, judged = few._split(options(data))
    assert few._ordinary(options(data, ordinary=data), own).ids == judged.ids
    assert "ordinary images: without 4 images that training learns from" in capsys.readouterr().err
    own = few._split(options(data, validation="none"))[0]
    with pytest.raises(UserError, match="--ordinary .*mine: all its images are trained on"):
        few._ordinary(options(data, ordinary=data), own)
    own = few._split(options("sample", validation="none"))[0]
    assert few._ordinary(options("sample"), own) is None
    assert "none are left; --ordinary names others" in capsys.readouterr().err


def test_old_and_ordinary_images_are_read_as_the_images_at_hand(tmp_path, capsys):
    data = write_channels(tmp_path / "mine", 3, ("x", "y"))
    old = write_channels(tmp_path / "old", 4, ("x", "z"))
    plain = write_discs(tmp_path / "plain", 2)
    asked = options(data, mix=old, ordinary=plain)
    asked.reading = {"channel": "1", "plane": None}
    own, judged = few._split(asked)
    mixed = few._old(asked, judged, None)
    assert len(mixed) == 4 and all(record.image.std() > 20 for record in mixed), "not channel 0"
    capsys.readouterr()
    assert len(few._ordinary(asked, own)) == 2, "a file with one channel has no other"
    assert f"{plain} is read without --channel" in capsys.readouterr().err
    asked.ordinary = None
    assert len(few._ordinary(asked, own)) > 2, "nor has the sample"
    asked.mix, asked.reading["channel"] = str(old), "7"
    with pytest.raises(UserError, match="channel 7"):
        few._old(asked, judged, None)


@pytest.fixture
def scored(monkeypatch):
    """No network: a list of what was scored, in place of a report."""
    found = []

    def score(model, dataset, name):
        found.append(name)
        values = dict.fromkeys(few.SHOWN, 50.0)
        counts = {"nuclei": 3, "images": len(dataset)}
        return SimpleNamespace(metrics=values, counts=counts, dataset="d", images=dataset.ids)

    model = SimpleNamespace(config=tiny_config(), start=None)
    monkeypatch.setattr(common, "open_model", lambda *_, **__: model)
    monkeypatch.setattr(few, "_score", score)
    return found


def train_with(monkeypatch, result):
    def train(model, dataset, **options):
        if isinstance(result, Exception):
            raise result
        options["run"].mkdir()
        return SimpleNamespace(stopped=result)

    monkeypatch.setattr("nucleus_course.training.train", train)


def run(*words):
    return terminal.run("train", "--fine-tune", *words)


def test_the_run_folder_is_looked_at_before_anything_is_scored(tmp_path, monkeypatch, scored):
    data, folder = write_discs(tmp_path / "mine", 3), tmp_path / "run"
    train_with(monkeypatch, "")
    result = run("--data", data, "--run", folder, "--validation none --data sample")
    assert result.exit_code == 0 and not scored, "nothing to score"
    result = run("--data", data, "--run", tmp_path / "other")
    assert result.exit_code == 0 and scored == ["left out", "ordinary"] * 2, result.output

    (folder / "checkpoint.npz").write_bytes(b"")
    scored.clear()
    result = run("--data", data, "--run", folder)
    one_line_error(result, "already holds a training", "choose another --run, or delete the folder")
    assert "--resume" not in result.stderr
    one_line_error(run("--data", data, "--run", data / "image00/images/image00.png"), "is a file")
    assert not scored


@pytest.mark.parametrize(
    ("result", "code", "line"),
    [
        ("interrupted", 130, "interrupted"),
        (TrainingDiverged("the loss was nan in epoch 1"), 2, "the loss was nan in epoch 1; "),
    ],
)
def test_a_training_that_does_not_end(result, code, line, tmp_path, monkeypatch, scored):
    train_with(monkeypatch, result)
    words = ("--data", write_discs(tmp_path / "mine", 3), "--run", tmp_path / "run")
    one_line_error(run(*words), line, code=code)
