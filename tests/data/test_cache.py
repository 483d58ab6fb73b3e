"""The cache: tied to its source, complete or absent, optional."""

import errno
import hashlib
import io
import os
import pickle
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from bbbc_files import png, square_mask, tiny_files, write_folder, write_zip

from nucleus_course._util.errors import UserError
from nucleus_course.data import build, cache, load_dataset


@pytest.fixture
def decoded(monkeypatch):
    """The ids that were decoded, in order."""
    seen = []
    original = build.decode_entry

    def watched(entry, *args):
        seen.append(entry.image_id)
        return original(entry, *args)

    monkeypatch.setattr(build, "decode_entry", watched)
    return seen


def caches():
    return sorted(cache.cache_folder().glob("*"))


def same(one, other):
    return all(
        np.array_equal(a.image, b.image) and np.array_equal(a.labels, b.labels)
        for a, b in zip(one, other)
    )


@pytest.mark.parametrize("container", ["folder", "zip"])
def test_decoded_once(container, tmp_path, decoded):
    source = (
        write_folder(tmp_path / "d", tiny_files())
        if container == "folder"
        else write_zip(tmp_path / "d.zip", tiny_files())
    )
    first = load_dataset(source, progress=False)
    again = load_dataset(source, progress=False)
    assert sorted(decoded) == ["a", "b", "c"] and same(first, again) and len(caches()) == 1
    assert again.lint.issues == first.lint.issues


def test_grey_is_one_channel_and_labels_are_small(tmp_path):
    files = {
        "a/images/a.png": png(np.dstack([square_mask((300, 300), 50, 50, 100)] * 3)),
        "a/masks/m.png": png(square_mask((300, 300), 50, 50, 100)),
    }
    load_dataset(write_zip(tmp_path / "x.zip", files), progress=False)
    with zipfile.ZipFile(caches()[0]) as archive:
        assert cache.decode(archive.read("0.image.png")).ndim == 2
        labels = cache.decode(archive.read("0.labels.png"))
        assert labels.dtype == np.uint16 and archive.getinfo("0.labels.png").file_size < 3000


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
def test_encoding_round_trip(shape):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(cache.decode(cache.encode(array)), array)
    wide = np.random.default_rng(0).integers(0, 65536, (7, 9)).astype(np.uint16)
    assert np.array_equal(cache.decode(cache.encode(wide)), wide)


@pytest.mark.parametrize("container", ["folder", "zip"])
def test_a_changed_source_is_decoded_anew(container, tmp_path, decoded):
    files = tiny_files()
    write = write_folder if container == "folder" else write_zip
    source = write(tmp_path / "d", files)
    load_dataset(source, progress=False)
    files["a/masks/m1.png"] = png(square_mask((24, 30), 0, 0, 2))
    write(tmp_path / "d", files)
    os.utime(tmp_path / "d" / "a/masks/m1.png" if container == "folder" else source, ns=(1, 1))
    assert load_dataset(source, progress=False)["a"].areas[0] == 4
    assert len(decoded) == 6 and len(caches()) == 1, "the old cache is gone"


def test_a_new_format_does_not_read_old_caches(tmp_path, decoded, monkeypatch):
    source = write_zip(tmp_path / "d.zip", tiny_files())
    load_dataset(source, progress=False)
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    load_dataset(source, progress=False)
    assert len(decoded) == 6


def odd_files():
    """{path: bytes} of files that earlier versions decoded differently, and of plain images and masks."""
    rng = np.random.default_rng(7)

    def tiff(array, **options):
        data = io.BytesIO()
        tifffile.imwrite(data, array, **options)
        return data.getvalue()

    mask = square_mask((24, 30), 2, 3, 5)
    colours = rng.integers(0, 256, (24, 30, 4)).astype(np.uint8)
    files = tiny_files()
    files |= {
        "transparent/images/i.tif": tiff(colours, photometric="rgb", extrasamples=["unassalpha"]),
        "transparent/masks/m.png": png(mask),
    }
    files |= {"bool/images/i.png": png(colours), "bool/masks/m.tif": tiff(mask > 0)}
    files |= {
        "wide/images/i.tif": tiff(colours[..., 0].astype(np.uint16) * 16),
        "wide/masks/m.png": png(mask.astype(np.uint16) * 257),
    }
    files |= {
        "odd/images/i.png": png(colours[..., :3]),
        "odd/masks/empty.png": png(mask * 0),
        "odd/masks/other.png": png(mask[:9]),
    }
    files |= {f"rivals/images/{name}.png": png(mask) for name in "xy"} | {
        "rivals/masks/m.png": png(mask)
    }
    overlapping = {
        "one": mask,
        "same": mask,
        "over": square_mask((24, 30), 4, 4, 9),
        "rgb": np.dstack([mask.T[:24, :].repeat(2, 1)[:, :30]] * 3),
    }
    return (
        files
        | {"overlap/images/i.png": png(colours[..., 2])}
        | {f"overlap/masks/{k}.png": png(m) for k, m in overlapping.items()}
    )


# The digest of what the present format holds of them. When it changes, existing caches no longer agree with what
# decoding gives: raise cache.FORMAT, and put the new pair here.
KNOWN = {9: "a409f032ea8e3739"}


def test_what_is_decoded_otherwise_has_a_new_format(tmp_path):
    dataset = load_dataset(write_folder(tmp_path / "odd.files", odd_files()), progress=False)
    digest = hashlib.sha256(
        repr((dataset.name, dataset.types, dataset.sizes, dataset.counts)).encode()
    )
    for record in dataset:
        digest.update(record.image.tobytes() + record.labels.astype("<i4").tobytes())
        digest.update(record.raw.astype("<u2").tobytes())
    digest.update(
        repr(sorted((i.image_id, i.file, i.kind, i.action) for i in dataset.lint.issues)).encode()
    )
    assert KNOWN.get(cache.FORMAT) == digest.hexdigest()[:16]


def test_two_sources_do_not_mix(tmp_path, decoded):
    for name in ("one", "two"):
        load_dataset(
            write_zip(
                tmp_path / name / "d.zip" if (tmp_path / name).mkdir() is None else None,
                tiny_files(),
            ),
            progress=False,
        )
    assert len(caches()) == 2


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"words"])
def test_a_damaged_cache_is_replaced(damage, tmp_path, decoded):
    source = write_zip(tmp_path / "d.zip", tiny_files())
    first = list(load_dataset(source, progress=False))
    path = caches()[0]
    path.write_bytes(damage(path.read_bytes()))
    assert same(load_dataset(source, progress=False), first) and len(decoded) == 6


def test_a_cache_damaged_inside_is_named(tmp_path):
    source = write_zip(tmp_path / "d.zip", tiny_files())
    load_dataset(source, progress=False)
    path = caches()[0]
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 8] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{path.name}.*delete"):
        load_dataset(source, progress=False).preload()


def test_where_caches_lie(tmp_path, monkeypatch):
    source = write_zip(tmp_path / "d.zip", tiny_files())
    load_dataset(source, progress=False, cache_dir=tmp_path / "here")
    assert len(list((tmp_path / "here").glob("d-*.zip"))) == 1 and not caches()
    monkeypatch.delenv("NUCLEUS_COURSE_CACHE")
    assert cache.cache_folder().name == "nucleus_course"


def failing(code):
    def write(place, *args):
        place.write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    return write


def test_full_disk_goes_on_in_memory(tmp_path, monkeypatch, decoded):
    monkeypatch.setattr(cache, "_write_zip", failing(errno.ENOSPC))
    source = write_zip(tmp_path / "d.zip", tiny_files())
    with pytest.warns(
        UserWarning, match="No space left.*continuing in memory.*NUCLEUS_COURSE_CACHE"
    ):
        dataset = load_dataset(source, progress=False)
    assert dataset["a"].count == 2 and dataset.subset(["b"]).preload()["b"].count == 2
    assert not caches(), "no half file is left"


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="cannot write the cache"):
        dataset = load_dataset(
            write_zip(tmp_path / "d.zip", tiny_files()),
            progress=False,
            cache_dir=tmp_path / "file" / "x",
        )
    assert len(list(dataset)) == 3


def test_what_a_kill_left_is_swept(tmp_path):
    source = write_zip(tmp_path / "d.zip", tiny_files())
    load_dataset(source, progress=False)
    whole = caches()[0]
    old, fresh = (whole.with_name(f".{name}.partial.zip") for name in ("old", "new"))
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    whole.unlink()
    load_dataset(source, progress=False)
    assert not old.exists() and fresh.exists() and whole.exists()


@pytest.mark.skipif(os.name == "nt", reason="no permissions of that kind")
def test_a_folder_for_a_whole_class(tmp_path):
    """Other users may read the cache like any new file."""
    load_dataset(write_zip(tmp_path / "d.zip", tiny_files()), progress=False)
    (tmp_path / "usual").write_text("")
    assert caches()[0].stat().st_mode == (tmp_path / "usual").stat().st_mode


SCRIPT = "import sys; from nucleus_course.data import load_dataset; print(sum(r.count for r in load_dataset(sys.argv[1], progress=False)))"


def test_two_processes_at_once(tmp_path):
    source = write_zip(tmp_path / "d.zip", tiny_files([f"{n:02d}" for n in range(40)]))
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(source)], stdout=subprocess.PIPE, env=environment
        )
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in running] == [b"80", b"80"]
    assert [path.suffix for path in caches()] == [".zip"]


def test_a_kill_while_writing(tmp_path):
    """A process killed inside the write leaves no cache, and the next one starts afresh."""
    source = write_zip(tmp_path / "d.zip", tiny_files())
    script = (
        "import os, sys, signal; from nucleus_course.data import cache, load_dataset\n"
        "def write(place, *args): place.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "cache._write_zip = write; load_dataset(sys.argv[1], progress=False)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    assert (
        subprocess.run([sys.executable, "-c", script, str(source)], env=environment).returncode != 0
    )
    assert [".partial" in path.name for path in caches()] == [True]
    assert load_dataset(source, progress=False)["a"].count == 2


def test_a_dataset_travels_to_another_process(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = load_dataset(write_zip(tmp_path / "d.zip", tiny_files()), progress=False)
        copy = pickle.loads(pickle.dumps(dataset))
    assert same(copy, dataset)


def test_real_cache_is_small_and_opens_without_decoding(stage1, stage1_zip, decoded):
    path = stage1._store.path
    assert path.stat().st_size < 60e6
    assert len(load_dataset(stage1_zip, "train", cache_dir=path.parent, progress=False)) > 500
    assert decoded == []
