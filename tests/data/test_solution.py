"""stage1_test's truth from its table of run lengths."""

import numpy as np
import pytest
from bbbc_files import tiny_files, write_folder, write_zip

from nucleus_course._util.errors import UserError
from nucleus_course.data import load_dataset
from nucleus_course.data.solution import NAME, decode_runs


def encode(mask):
    """Runs by a loop over the columns, from 1."""
    runs, flat = [], mask.T.ravel()
    for position, value in enumerate(flat):
        if value and (position == 0 or not flat[position - 1]):
            runs += [position + 1, 0]
        if value:
            runs[-1] += 1
    return runs


@pytest.fixture
def data(tmp_path):
    files = {name: content for name, content in tiny_files().items() if "/masks/" not in name}
    rng = np.random.default_rng(0)
    truth = {image_id: [np.zeros((24, 30), bool) for _ in range(2)] for image_id in "ab"}
    lines = ["ImageId,EncodedPixels,Height,Width,Usage"]
    for image_id, masks in truth.items():
        for number, mask in enumerate(masks):
            mask[number * 12 : number * 12 + 8, 4:20] = rng.random((8, 16)) < 0.8
            lines.append(f"{image_id},{' '.join(map(str, encode(mask)))},24,30,Public")
    (tmp_path / NAME).write_text("\n".join(lines) + "\n")
    return write_zip(tmp_path / "stage1_test.zip", files), truth


def test_masks_come_from_the_table(data, tmp_path):
    path, truth = data
    dataset = load_dataset(path, "test", progress=False)
    assert dataset.ids == ("a", "b") and [(i.image_id, i.kind) for i in dataset.lint] == [
        ("c", "no masks")
    ]
    for image_id, masks in truth.items():
        for label, mask in enumerate(masks, 1):
            assert np.array_equal(dataset[image_id].labels == label, mask)
    (tmp_path / NAME).write_text("ImageId,EncodedPixels,Height,Width,Usage\nc,1 3,24,30,Public\n")
    assert load_dataset(path, progress=False).ids == ("c",), "a changed table is read anew"


def test_folder_with_its_table_inside(data, tmp_path):
    files = {name: content for name, content in tiny_files().items() if "/masks/" not in name}
    folder = write_folder(tmp_path / "elsewhere" / "stage1_test", files)
    (folder / NAME).write_bytes((tmp_path / NAME).read_bytes())
    assert load_dataset(folder, progress=False).counts == {"a": 2, "b": 2}


def test_own_masks_win(data, tmp_path):
    path = write_zip(tmp_path / "stage1_train.zip", tiny_files())
    assert load_dataset(path, progress=False).counts == {"a": 2, "b": 2, "c": 2}


@pytest.mark.parametrize("runs", ["0 3", "1 0", "719 3", "1 2 3", "x y"])
def test_runs_that_do_not_fit_refuse_the_image(runs, data, tmp_path):
    (tmp_path / NAME).write_text(
        f"ImageId,EncodedPixels,Height,Width,Usage\na,{runs},24,30,P\nb,1 4,24,30,P\n"
    )
    dataset = load_dataset(data[0], progress=False)
    assert dataset.ids == ("b",) and dataset["b"].areas.tolist() == [4]
    assert any(issue.kind == "unreadable mask" and issue.image_id == "a" for issue in dataset.lint)


def test_a_table_of_another_kind(data, tmp_path):
    (tmp_path / NAME).write_text("name,age\nx,3\n")
    with pytest.raises(UserError, match=NAME):
        load_dataset(data[0], progress=False)


def test_decode_runs_round_trip():
    mask = np.random.default_rng(1).random((7, 11)) < 0.5
    assert np.array_equal(decode_runs(encode(mask), 7, 11), mask)
