"""The one way to list images: by content, with a line about the files it skips."""

import os
import shutil

import cv2
import numpy as np
import pytest
import tifffile

import nucleus_course as nc
from nucleus_course._util.errors import UserError
from nucleus_course.prediction.image_files import find_images, read_picture

LABELS = np.zeros((96, 96), np.uint16)
for number in range(9):
    centre = (number % 3 * 30 + 18, number // 3 * 30 + 18)
    cv2.circle(LABELS, centre, 9, number + 1, -1)
PICTURE = cv2.GaussianBlur(np.where(LABELS > 0, 160, 14).astype(np.float32), (0, 0), 1).astype(
    np.uint8
)


def write(path, data=PICTURE):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, data)
    elif path.suffix.lower() in (".tif", ".tiff"):
        tifffile.imwrite(path, data)
    else:
        path.write_bytes(cv2.imencode(".png", data)[1].tobytes())


def listed(folder):
    return [path.relative_to(folder).as_posix() for path in nc.list_images(folder)]


def test_a_folder_as_cellpose_leaves_it(tmp_path, capsys):
    for number in range(4):
        write(tmp_path / f"img_{number}.tif")
        write(tmp_path / f"img_{number}_masks.tif", LABELS)
        write(tmp_path / f"img_{number}_cp_masks.png", LABELS)
        write(tmp_path / f"img_{number}_cp_outlines.png", PICTURE)
        write(tmp_path / f"img_{number}_seg.npy", LABELS)
    assert listed(tmp_path) == [f"img_{number}.tif" for number in range(4)]
    assert "passed over: 16 files (label image or outline" in capsys.readouterr().err


@pytest.mark.parametrize("tables", [True, False])
def test_an_earlier_result(tables, tmp_path, capsys):
    for number in range(3):
        write(tmp_path / f"img_{number}.tif")
        write(tmp_path / "again" / "results" / "labels" / f"img_{number}.tif", LABELS)
    if tables:
        for name in ("predictions.json", "counts.csv"):
            (tmp_path / "again" / "results" / name).write_text("")
    assert listed(tmp_path) == [f"img_{number}.tif" for number in range(3)]
    assert "results" in capsys.readouterr().err or not tables


def test_images_in_a_folder_called_labels_stay(tmp_path):
    write(tmp_path / "labels" / "a.png")
    assert listed(tmp_path) == ["labels/a.png"]


def test_an_image_called_mask_stays_where_it_is_the_only_one(tmp_path):
    write(tmp_path / "face_mask.png")
    assert listed(tmp_path) == ["face_mask.png"]


def test_hidden_files_and_folders(tmp_path):
    write(tmp_path / "a.png")
    write(tmp_path / ".ipynb_checkpoints" / "a-checkpoint.png")
    write(tmp_path / "__MACOSX" / "a.png")
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (tmp_path / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (tmp_path / "._a.png").write_bytes(b"\0\5\x16\7")
    images = {path.stem: nc.read_image(path) for path in nc.list_images(tmp_path)}
    assert list(images) == ["a"]


def test_content_counts_and_what_is_unknown_is_named(tmp_path, capsys):
    write(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "no ending")
    write(tmp_path / "b.npy")
    (tmp_path / "slide.czi").write_bytes(b"ZISRAWFILE" + bytes(30))
    (tmp_path / "slide.pdf").write_bytes(b"%PDF-1.7" + bytes(30))
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "broken.png").write_bytes(b"words")
    assert listed(tmp_path) == ["b.npy", "broken.png", "no ending", "slide.czi"]
    said = capsys.readouterr().err
    assert (
        "1 file (not an image: notes.txt), 1 file (a PDF: export the picture in it as PNG: slide.pdf)"
        in said
    )


def test_no_file_is_passed_over_in_silence(tmp_path, capsys):
    write(tmp_path / "a.png")
    for name in ("a.txt", "b.txt", "readme.md", "a.csv", "a.json", "a.roi", "film.avi"):
        (tmp_path / name).write_text("words")
    (tmp_path / "b.webp").write_bytes(b"RIFF\0\0\0\0WEBPVP8 ")
    assert listed(tmp_path) == ["a.png"]
    said = capsys.readouterr().err
    for word in ("7 files (not an image", "a.txt", "readme.md", "a.csv", "a.json", "a.roi", "film.avi",
                 "WebP or video file: save it as PNG: b.webp"):  # fmt: skip
        assert word in said


def test_a_label_image_is_not_looked_at_as_a_picture(tmp_path):
    write(tmp_path / "a.tif", LABELS)
    with pytest.raises(UserError, match="a.tif: a label image"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_followed_once(tmp_path):
    write(tmp_path / "d" / "a.png")
    (tmp_path / "d" / "loop").symlink_to(tmp_path / "d")
    (tmp_path / "d" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    write(tmp_path / "far" / "b.png")
    (tmp_path / "d" / "far").symlink_to(tmp_path / "far")
    assert listed(tmp_path / "d") == ["a.png", "nowhere.png", "far/b.png"]


def test_long_names_and_names_that_meet(tmp_path):
    plate = "Plate 3 rep 2 2024-05-17 HeLa siRNA library Hoechst 40x NA0.95 Measurement 1"
    names = ["A-" + "x" * 248 + ".png", "Zellkerne München [1] 100%.PNG", "last.Tif"]
    names += [f"{plate}/{plate} B/{plate} {c}/field 01 Hoechst.png" for c in (7, 8)]
    for name in names:
        write(tmp_path / name)
    files = find_images([tmp_path])
    stems = {file.stem for file in files}
    assert len(files) == len(stems) == 5
    for file in files:
        assert len(os.fsencode(file.stem + ".tif")) <= 255
        assert read_picture(file.path).values.shape == (96, 96)
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / f"{file.stem}.tif").write_bytes(b"")
    shutil.rmtree(tmp_path / "out")
    assert [file.stem for file in find_images([tmp_path])] == [file.stem for file in files]


def test_no_such_folder(tmp_path):
    with pytest.raises(UserError, match="gone: no such folder"):
        nc.list_images(tmp_path / "gone")
