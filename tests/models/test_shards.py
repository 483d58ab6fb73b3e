"""Weights in several files: every file small enough, nothing lost, no file of an earlier save left."""

import numpy as np
import pytest
from tiny import tiny_config

from nucleus_course._util.errors import UserError
from nucleus_course.models.weights.folder import load_into, named_variables
from nucleus_course.models.weights.shards import pack, weight_files, write_weights
from nucleus_course.prediction.segmenter import MaskRCNN, build


@pytest.fixture(scope="module")
def model():
    return build(tiny_config(), seed=1)


def parts(folder):
    return sorted(path.name for path in folder.glob("weights*.h5"))


def test_packing_fills_in_order_and_never_over():
    sizes = {"a": 4, "b": 5, "c": 2, "d": 9, "e": 10, "f": 1}
    assert pack(sizes, 10) == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]
    assert pack(sizes, 100) == [list(sizes)]
    with pytest.raises(UserError, match="e alone has 0.0 MB"):
        pack(sizes, 9)


@pytest.mark.parametrize("half", [False, True])
def test_round_trip_in_small_files(model, tmp_path, half):
    model.save(tmp_path / "whole")
    limit = 0.15
    model.save(tmp_path / "parts", half=half, max_mb=limit)
    files = weight_files(tmp_path / "parts")
    count = len(files)
    names = [f"weights-{i:05d}-of-{count:05d}.h5" for i in range(1, count + 1)]
    assert count > 2 and [f.name for f in files] == names
    assert parts(tmp_path / "parts") == [f.name for f in files]
    assert all(f.stat().st_size < limit * 1e6 for f in files)
    loaded = MaskRCNN.load(tmp_path / "parts")
    for name, variable in named_variables(model.network).items():
        kept = np.array(variable)
        if half and kept.ndim > 1:
            kept = kept.astype("float16").astype("float32")
        np.testing.assert_array_equal(named_variables(loaded.network)[name], kept, err_msg=name)


def test_a_second_save_leaves_nothing_of_the_first(model, tmp_path):
    model.save(tmp_path, max_mb=0.15)
    (tmp_path / "weights-notes.h5").write_bytes(b"somebody's")
    model.save(tmp_path, max_mb=0.3)
    ends = {name.split("-of-")[1] for name in parts(tmp_path) if "-of-" in name}
    assert ends == {f"{len(weight_files(tmp_path)):05d}.h5"}
    model.save(tmp_path)
    assert parts(tmp_path) == ["weights-notes.h5", "weights.h5"]


def test_a_missing_part_is_named(model, tmp_path):
    model.save(tmp_path, max_mb=0.15)
    files = weight_files(tmp_path)
    files[1].unlink()
    lacking = f"lacks {files[1].name}, one of the 4 files of its weights: copy all"
    with pytest.raises(UserError, match=lacking):
        load_into(model.network, tmp_path)
    for file in files[:1] + files[2:]:
        file.unlink()
    with pytest.raises(UserError, match="has no weights.h5"):
        weight_files(tmp_path)


def test_a_damaged_part_is_named(model, tmp_path):
    model.save(tmp_path, max_mb=0.15)
    file = weight_files(tmp_path)[-1]
    file.write_bytes(b"cut")
    with pytest.raises(UserError, match=f"{file.name} does not match SHA256SUMS"):
        load_into(model.network, tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    with pytest.raises(UserError, match=f"{file.name} cannot be read"):
        load_into(model.network, tmp_path)


def test_a_limit_below_one_variable_writes_nothing(tmp_path):
    with pytest.raises(UserError, match="big/kernel alone has 0.4 MB"):
        write_weights(tmp_path, {"big/kernel": np.zeros((100, 1000), "float32")}, max_mb=0.1)
    assert parts(tmp_path) == []
