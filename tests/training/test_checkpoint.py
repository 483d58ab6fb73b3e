"""Checkpoints and run folders: what is kept, refused and named."""

from types import SimpleNamespace

import numpy as np
import pytest
from toy import Toy, dataset, preset

from nucleus_course._util.errors import UserError
from nucleus_course.training import train
from nucleus_course.training.checkpoint import RunFolder

QUIET = {"progress": False}


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
    RunFolder(tmp_path / "run", resume=True).close()  # neither error left it locked


def test_a_run_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="run folder .*run is a file"):
        train(Toy(), dataset(), preset=preset(), run=tmp_path / "run", **QUIET)


def test_the_checkpoint_of_another_model_is_refused_and_nothing_lost(tmp_path):
    train(Toy(units=3), dataset(), preset=preset(), run=tmp_path, epochs=1, **QUIET)
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match="checkpoint .*checkpoint.npz belongs to another model"):
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
