"""Splits: the protocol's rule, Matterport's list, files, lists, groups."""

import numpy as np
import pytest

from nucleus_course._util.errors import UserError
from nucleus_course.data.splits import (
    matterport_validation_ids,
    protocol_ids,
    read_split_file,
    split_ids,
)

IDS = [f"{number:03d}" for number in np.random.default_rng(0).permutation(664)]


def test_the_rule_of_tens():
    validation, train = split_ids(IDS, "validation"), split_ids(IDS, "train")
    assert validation == tuple(f"{number:03d}" for number in range(0, 664, 10))
    assert (len(validation), len(train)) == (67, 597)
    assert sorted(validation + train) == list(split_ids(IDS, "all")) == sorted(IDS)
    assert split_ids(IDS, "test") == split_ids(IDS)


def test_split_file_and_list(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("# mine\n005\n\n 001 \n005\n")
    assert read_split_file(path) == ["005", "001"]
    assert (
        split_ids(IDS, path)
        == split_ids(IDS, str(path))
        == split_ids(IDS, ["005", "001"])
        == ("001", "005")
    )


@pytest.mark.parametrize(
    "split, message",
    [
        ("trian", "unknown split 'trian'.*validation"),
        (["001", "x", "y"], "no image 'x' and 1 more"),
        ([], "no ids"),
        ("matterport-train", "stage1_train"),
        ("grouped-train", "groups"),
    ],
)
def test_bad_splits(split, message):
    with pytest.raises(UserError, match=message) as caught:
        split_ids(IDS, split)
    assert "\n" not in str(caught.value)


def test_quoted_ids_and_file_names(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text('"a"\n"b.png"\n\'c.tif\'\n"b"\n')
    assert split_ids(["a", "b", "c.tif", "c", "d"], path) == ("a", "b", "c.tif")
    for other in ("e.png", "a.2"):  # the name of a field or plane of an image is not the image's
        with pytest.raises(UserError, match=rf"no image '{other}'"):
            split_ids(["a"], [other])
    path.write_text("5'\n'6\n")
    assert split_ids(["5'", "'6"], path) == ("'6", "5'")


def test_split_file_without_ids_or_text(tmp_path):
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(UserError, match="empty.txt: holds no ids"):
        split_ids(IDS, tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="binary.txt"):
        split_ids(IDS, tmp_path / "binary.txt")


def test_matterport_pair():
    listed = matterport_validation_ids()
    assert len(listed) == len(set(listed)) == 25
    ids = listed + IDS
    validation, train = split_ids(ids, "matterport-validation"), split_ids(ids, "matterport-train")
    assert validation == tuple(sorted(listed)) and train == tuple(sorted(IDS))


def test_the_original_release_gives_the_same_splits():
    from importlib.resources import files

    listed = read_split_file(files("nucleus_course.data") / "splits" / "stage1-train.txt")
    assert len(listed) == len(set(listed)) == 664 and listed == sorted(listed)
    withdrawn = ["0" * 64, "f" * 64]
    for split in ("all", "train", "validation", "matterport-train", "matterport-validation"):
        assert split_ids(listed + withdrawn, split) == split_ids(listed, split)
    assert split_ids(listed + withdrawn, withdrawn) == tuple(withdrawn)
    assert set(matterport_validation_ids()) <= set(listed)


def test_grouped_split_keeps_groups_together():
    groups = {image_id: int(image_id) // 4 for image_id in IDS}
    train = split_ids(IDS, "grouped-train", groups=groups)
    validation = split_ids(IDS, "grouped-validation", groups=groups)
    assert sorted(train + validation) == sorted(IDS)
    assert not {groups[i] for i in train} & {groups[i] for i in validation}
    assert 60 <= len(validation) <= 72


def test_grouped_split_leaves_giant_groups_to_training():
    groups = {image_id: 0 if int(image_id) < 300 else int(image_id) for image_id in IDS}
    validation = split_ids(IDS, "grouped-validation", groups=groups)
    assert all(int(i) >= 300 for i in validation) and 30 <= len(validation) <= 70


def test_real_ids(stage1):
    assert len(stage1) == 664
    assert tuple(protocol_ids(stage1.ids)) == stage1.ids
    assert (
        len(stage1.subset("validation")) == 67 and len(stage1.subset("matterport-validation")) == 25
    )
