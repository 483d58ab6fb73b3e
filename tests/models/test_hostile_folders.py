"""Model folders, run folders and checkpoints with any content: a result or one line, and nothing is unpickled."""

import json
import pickle
import zipfile

import h5py
import numpy as np
import pytest

from nucleus_course._util.errors import UserError
from nucleus_course.config import Thresholds, UNetConfig, from_dict, to_dict
from nucleus_course.models.weights.folder import read_config
from nucleus_course.models.weights.shards import (
    SUMS,
    check_sums,
    read_h5,
    weight_files,
    write_weights,
)
from nucleus_course.training.checkpoint import read_meta
from nucleus_course.training.run import read_run_config

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies
fuzzed = hypothesis.settings(
    max_examples=80, deadline=None, database=None, derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip
leaf = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=6)
)
tree = st.recursive(
    leaf,
    lambda x: st.one_of(st.lists(x, max_size=3), st.dictionaries(st.text(max_size=5), x, max_size=3)),
    max_leaves=8,
)  # fmt: skip


def refused(call, *arguments):
    """The result, or None where a UserError of one line came instead."""
    try:
        return call(*arguments)
    except UserError as error:
        assert str(error) and "\n" not in str(error)


def changed(data, document):
    """The document with one of its values replaced."""
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], (dict, list)) and place[key] and data.draw(st.integers(0, 3)):
            place = place[key]
        else:
            place[key] = data.draw(tree)
            return document


def model_documents():
    config, thresholds = json.loads(json.dumps([to_dict(UNetConfig()), to_dict(Thresholds())]))
    return {"format": 1, "kind": "unet", "model": config}, thresholds


@fuzzed
@hypothesis.given(st.data(), st.booleans())
def test_a_model_folder_with_any_value_anywhere(data, which):
    documents = list(model_documents())
    documents[which] = changed(data, documents[which])
    for name, document in zip(("config.json", "thresholds.json"), documents):
        (FOLDER / name).write_text(json.dumps(document))
    found = refused(read_config, FOLDER)
    if found is not None:
        assert isinstance(found[0].max_nuclei, int) and 0 <= found[1].score <= 1


@fuzzed
@hypothesis.given(st.data())
def test_a_run_folder_with_any_value_anywhere(data):
    values = {"model": {"kind": "unet"}, "training": {"crop": 64}, "augment": {"blur": [0, 1]}, "thresholds": {"score": 0.5},
              "stages": [{"name": "all", "epochs": 2}], "minutes": None}  # fmt: skip
    (FOLDER / "config.json").write_text(json.dumps(changed(data, values)))
    run = refused(read_run_config, FOLDER)
    if run is not None:
        refused(lambda: (run.preset, run.stages, run.minutes))


def test_what_a_config_cannot_hold_is_named():
    for values, word in (
        ({"score": 7}, "score is 7: give a number from 0 to 1"),
        ({"flips": 9}, "flips=9: choose 1 "),
        ({"score": "0.5"}, "Thresholds.score is '0.5', not a number"),
        ({"min_area": 1.5}, "min_area is 1.5, not a whole number"),
        ([1], "an object was expected"),
    ):
        with pytest.raises(UserError, match=word):
            from_dict(Thresholds, values)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder, {"a/kernel": np.arange(12.0).reshape(3, 4), "a/bias": np.ones(4)})
    return folder


@fuzzed
@hypothesis.given(st.data())
def test_damaged_weights(weights, data):
    """A changed byte is found by the SHA-256; without the sums nothing but a UserError comes out."""
    content = bytearray((weights / "weights.h5").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (FOLDER / "weights.h5").write_bytes(content)
    refused(read_h5, FOLDER / "weights.h5")
    (FOLDER / SUMS).write_bytes((weights / SUMS).read_bytes())
    if content != (weights / "weights.h5").read_bytes():
        with pytest.raises(UserError, match="weights.h5 does not match SHA256SUMS"):
            check_sums(weight_files(FOLDER))
    (FOLDER / SUMS).unlink()


def test_sums_follow_the_files(weights, tmp_path):
    check_sums(weight_files(weights))
    arrays = {f"{i}/kernel": np.zeros((50, 50)) for i in range(3)}
    write_weights(tmp_path, arrays, max_mb=0.02)
    check_sums(weight_files(tmp_path))
    assert len(weight_files(tmp_path)) == 3 == len((tmp_path / SUMS).read_text().splitlines())


def test_the_weights_that_ship_are_those_that_were_published():
    from nucleus_course.models.weights.folder import shipped_weights

    for folder in shipped_weights().values():
        assert (folder / SUMS).is_file()
        check_sums(weight_files(folder))


def test_hdf5_reads_no_other_file_and_no_objects(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(48))
    for name, options in (
        ("outside", {"external": [(str(tmp_path / "secret"), 0, 48)], "shape": (12,), "dtype": "f4"}),
        ("text", {"data": ["a", "b"]}),
        ("huge", {"shape": (2**40,), "dtype": "f4", "chunks": True, "compression": "gzip"}),
    ):  # fmt: skip
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("a/kernel", **options)
        with pytest.raises(UserError, match=f"{name}.h5 cannot be read: a/kernel"):
            read_h5(tmp_path / f"{name}.h5")


class Bomb:
    def __reduce__(self):
        return (FOLDER.joinpath("ran").touch, ())


@fuzzed
@hypothesis.given(st.data())
def test_checkpoints(data):
    path = FOLDER / "checkpoint.npz"
    meta = {"epoch": 1, "elapsed": 2.0, "best": None, "rows": []}
    with open(path, "wb") as file:
        np.savez(file, meta=np.frombuffer(json.dumps(meta).encode(), "uint8"), v00000=np.ones(3))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    refused(read_meta, path)


def test_a_checkpoint_is_never_unpickled(tmp_path):
    path = tmp_path / "checkpoint.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.npy", pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="cannot be read"):
        read_meta(path)
    np.savez(path, meta=np.array([Bomb()], object))
    with pytest.raises(UserError, match="cannot be read"):
        read_meta(path)
    np.savez(path, meta=np.frombuffer(b"[1]", "uint8"))
    with pytest.raises(UserError, match="does not hold the state of a training"):
        read_meta(path)
    assert not (FOLDER / "ran").exists()


@pytest.fixture(autouse=True)
def folder(tmp_path):
    global FOLDER
    FOLDER = tmp_path
