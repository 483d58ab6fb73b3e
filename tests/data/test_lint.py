"""The lint: each fault is found, named, and repaired or refused; the other images are kept."""

import numpy as np
import pytest
from bbbc_files import png, square_mask, tiny_files, write_folder, write_zip

from nucleus_course._util.errors import UserError
from nucleus_course.data import load_dataset
from nucleus_course.data.dataset import lint_dataset

SHAPE = (24, 30)
FIRST = square_mask(SHAPE, 2, 3, 5)


def damaged(data):
    return data[:50] + bytes([data[50] ^ 255]) + data[51:]


# name: (changes to image "b"'s files; None removes), kind, action, named file, nuclei left in "b"
CASES = {
    "wrong shape": (
        {"b/masks/m1.png": png(square_mask((30, 24), 2, 3, 5))},
        "wrong shape",
        "refused",
        "b/masks/m1.png",
        None,
    ),
    "empty mask": (
        {"b/masks/m1.png": png(np.zeros(SHAPE, np.uint8))},
        "empty mask",
        "repaired",
        "b/masks/m1.png",
        1,
    ),
    "duplicate": (
        {"b/masks/m3.png": png(FIRST)},
        "duplicate mask",
        "repaired",
        "b/masks/m3.png",
        2,
    ),
    "three channels": (
        {"b/masks/m1.png": png(np.dstack([FIRST] * 3))},
        "channels",
        "repaired",
        "b/masks/m1.png",
        2,
    ),
    "alpha": (
        {"b/masks/m1.png": png(np.dstack([FIRST] * 3 + [np.full_like(FIRST, 255)]))},
        "channels",
        "repaired",
        "b/masks/m1.png",
        2,
    ),
    "covered": (
        {
            "b/masks/m3.png": png(square_mask(SHAPE, 2, 3, 3)),
            "b/masks/m1.png": png(square_mask(SHAPE, 2, 3, 3) + square_mask(SHAPE, 5, 3, 2)),
            "b/masks/m4.png": png(square_mask(SHAPE, 5, 3, 2)),
        },
        "covered mask",
        "repaired",
        "b/masks/m1.png",
        3,
    ),
    "no masks folder": (
        {"b/masks/m1.png": None, "b/masks/m2.png": None},
        "no masks",
        "refused",
        "b/images/b.png",
        None,
    ),
    "masks without image": (
        {"b/images/b.png": None},
        "masks without image",
        "refused",
        "b/masks",
        None,
    ),
    "image not readable": (
        {"b/images/b.png": b"words"},
        "unreadable image",
        "refused",
        "b/images/b.png",
        None,
    ),
    "image damaged": (
        {"b/images/b.png": damaged(png(np.zeros(SHAPE, np.uint8)))},
        "unreadable image",
        "refused",
        "b/images/b.png",
        None,
    ),
    "mask damaged": (
        {"b/masks/m2.png": damaged(png(FIRST))},
        "unreadable mask",
        "refused",
        "b/masks/m2.png",
        None,
    ),
    "mask empty file": (
        {"b/masks/m2.png": b""},
        "unreadable mask",
        "refused",
        "b/masks/m2.png",
        None,
    ),
    "second image": (
        {"b/images/other.png": png(np.zeros(SHAPE, np.uint8))},
        "extra image",
        "noted",
        "b/images/other.png",
        2,
    ),
    "none of two is it": (
        {
            "b/images/b.png": None,
            "b/images/one.png": png(np.zeros(SHAPE, np.uint8)),
            "b/images/two.png": png(np.zeros(SHAPE, np.uint8)),
        },
        "several images",
        "refused",
        "b/images/one.png",
        None,
    ),
    "mask of another kind": (
        {"b/masks/m2.webp": b"RIFF\0\0\0\0WEBPVP8 "},
        "unreadable mask",
        "refused",
        "b/masks/m2.webp",
        None,
    ),
    "image of another kind": (
        {"b/images/b.png": None, "b/images/b.gif": b"GIF89a" + bytes(20)},
        "unreadable image",
        "refused",
        "b/images/b.gif",
        None,
    ),
    "annotation of another kind": (
        {"b/masks/m1.png": None, "b/masks/m2.png": None, "b/masks/b.json": b"{}"},
        "no masks",
        "refused",
        "b/masks/b.json",
        None,
    ),
    "stray file": ({"b/masks/notes.txt": b"x"}, "not an image", "noted", "b/masks/notes.txt", 2),
    "same id twice": (
        {"z/b/images/b.png": png(np.zeros(SHAPE, np.uint8))},
        "duplicate id",
        "refused",
        "z/b/images/b.png",
        2,
    ),
}


@pytest.mark.parametrize("container", ["folder", "zip"])
@pytest.mark.parametrize("case", CASES)
def test_each_trouble(case, container, tmp_path):
    changes, kind, action, file, nuclei = CASES[case]
    files = {name: data for name, data in {**tiny_files(), **changes}.items() if data is not None}
    source = (
        write_folder(tmp_path / "d", files)
        if container == "folder"
        else write_zip(tmp_path / "d.zip", files)
    )
    report = lint_dataset(source)
    found = [issue for issue in report if issue.kind == kind]
    assert [(issue.action, issue.file) for issue in found] == [(action, file)]
    assert file in str(found[0]) and found[0].image_id == "b"
    dataset = load_dataset(source, progress=False)
    assert {"a", "c"} <= set(dataset.ids) and ("b" in dataset) == (nuclei is not None)
    if nuclei is not None:
        labels = dataset["b"].labels
        assert np.unique(labels).tolist() == list(range(nuclei + 1)), "ids stay 1..n"
    if action == "refused":
        with pytest.raises(UserError, match=file) as caught:
            load_dataset(source, strict=True, progress=False)
        assert "\n" not in str(caught.value)
    else:
        assert len(load_dataset(source, strict=True, progress=False)) == 3


def test_content_counts_and_not_the_ending(tmp_path):
    """Masks and images with meaningless or misleading names are read like the others."""
    files = tiny_files(["a", "b", "c"])
    files["b/masks/m2"] = files.pop("b/masks/m2.png")
    files["c/images/c.dat"] = files.pop("c/images/c.png")
    dataset = load_dataset(write_zip(tmp_path / "x.zip", files), progress=False)
    assert dataset.counts == {"a": 2, "b": 2, "c": 2} and not dataset.lint.issues


def test_all_images_in_one_folder_are_not_taken_for_one_image(tmp_path):
    files = {f"images/{name}.png": png(FIRST) for name in ("a", "b")}
    files["masks/m1.png"] = png(FIRST)
    with pytest.raises(
        UserError, match="2 images lie together, none called 'flat': each needs its own folder"
    ):
        load_dataset(write_folder(tmp_path / "flat", files), progress=False)


def test_overlap_is_counted_and_goes_to_the_smaller(tmp_path):
    files = tiny_files(["a"])
    files["a/masks/m1.png"] = png(square_mask(SHAPE, 2, 2, 10))
    files["a/masks/m2.png"] = png(square_mask(SHAPE, 8, 8, 6))  # 4 x 4 pixels in common
    files["a/masks/m3.png"] = png(square_mask(SHAPE, 3, 3, 2))  # entirely inside the first
    dataset = load_dataset(write_zip(tmp_path / "x.zip", files), progress=False)
    (issue,) = dataset.lint.issues
    assert (
        issue.kind == "overlap"
        and issue.action == "repaired"
        and issue.message.startswith("20 pixels")
    )
    assert dataset["a"].areas.tolist() == [100 - 20, 36, 4]


def test_an_empty_masks_folder_means_no_nuclei(tmp_path):
    files = tiny_files()
    folder = write_folder(tmp_path / "d", files)
    for mask in (folder / "b" / "masks").iterdir():
        mask.unlink()
    dataset = load_dataset(folder, progress=False)
    assert (
        dataset["b"].count == 0
        and [i.kind for i in dataset.lint] == ["no masks"]
        and not dataset.lint.refused
    )


def test_all_masks_empty_means_no_nuclei(tmp_path):
    files = tiny_files()
    for name in ("m1", "m2"):
        files[f"b/masks/{name}.png"] = png(np.zeros(SHAPE, np.uint8))
    dataset = load_dataset(write_zip(tmp_path / "x.zip", files), progress=False)
    assert dataset["b"].count == 0 and len(dataset.lint.repaired) == 2


def test_soft_edges_are_cut_at_half(tmp_path):
    mask = square_mask(SHAPE, 4, 4, 6, 100) // 100 * 90
    mask[5:9, 5:9] = 255
    files = tiny_files(["a"]) | {"a/masks/m1.png": png(mask)}
    assert load_dataset(write_zip(tmp_path / "x.zip", files), progress=False)["a"].boxes[
        0
    ].tolist() == [5, 5, 9, 9]


def test_junk_is_ignored(tmp_path):
    files = tiny_files() | {
        "__MACOSX/a/images/._a.png": b"x",
        "a/images/.DS_Store": b"x",
        ".git/images/x.png": b"x",
    }
    assert not load_dataset(write_zip(tmp_path / "x.zip", files), progress=False).lint.issues


def test_outside_names_are_reported_by_name(tmp_path):
    path = write_zip(tmp_path / "x.zip", {**tiny_files(), "../evil.png": b"x", "/abs.png": b"x"})
    report = lint_dataset(path)
    assert [i.file for i in report.refused] == ["../evil.png", "/abs.png"] and report.images == 3


def test_report(tmp_path, capsys):
    files = tiny_files() | {
        "b/images/b.png": b"words",
        "c/masks/m1.png": png(np.zeros(SHAPE, np.uint8)),
    }
    dataset = load_dataset(write_zip(tmp_path / "x.zip", files))
    assert "left out: b/images/b.png" in capsys.readouterr().err
    report = dataset.lint
    assert report.kinds == {"empty mask": 1, "unreadable image": 1} and len(report) == 2
    assert "1 repairs, 1 refusals" in report.summary() and "2 images" in report.summary()
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    console.print(report.table())
    assert "b/images/b.png" in console.export_text()
    assert [i.kind for i in dataset.subset(["a"]).lint] == ["unreadable image"], (
        "a subset keeps what was left out"
    )
