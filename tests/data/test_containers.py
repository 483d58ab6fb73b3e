"""zarr folders, written by zarr itself and by ``predict --export``, and vendors' files through bioio."""

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from zarrs import add_array, make_group, write_array

import nucleus_course as nc
from nucleus_course._util.errors import UserError
from nucleus_course.data.containers import VENDORS
from nucleus_course.data.listing import list_images
from nucleus_course.data.read import read_pixels
from nucleus_course.prediction.exports import write_exports
from nucleus_course.prediction.image_files import find_images

zarr = pytest.importorskip("zarr")
STACK = np.random.default_rng(4).integers(0, 4000, (2, 3, 20, 24)).astype(np.uint16)  # C, Z, Y, X
LETTERS = {"c": "channel", "z": "space", "y": "space", "x": "space", "t": "time"}


def ome_zarr(path, array, axes, version="0.4", names=(), units=True, levels=1):
    """An OME-Zarr image that follows the specification."""
    form = 2 if version == "0.4" else 3
    group = make_group(path, form)
    datasets = []
    for level in range(levels):
        part = array[..., :: 2**level, :: 2**level]
        add_array(group, str(level), part, (1,) * (array.ndim - 2) + (8, 8))
        scale = [1.0] * (array.ndim - 2) + [0.25 * 2**level] * 2
        datasets.append(
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        )
    unit = {"unit": "micrometer"} if units else {}
    listed = [{"name": a, "type": LETTERS[a], **(unit if a in "yx" else {})} for a in axes]
    about = {"multiscales": [{"version": version, "axes": listed, "datasets": datasets}]}
    if names:
        about["omero"] = {"channels": [{"label": name} for name in names]}
    group.attrs.update(about if version == "0.4" else {"ome": {"version": version, **about}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_planes_and_levels_of_ome_zarr(version, tmp_path, capsys):
    path = ome_zarr(tmp_path / "a.ome.zarr", STACK, "czyx", version, ["GFP", "DAPI"], levels=2)
    read = read_pixels(path, plane=1)
    assert np.array_equal(read.values, STACK[1, 1]) and (read.channel, read.pixel_size) == (
        "DAPI",
        0.25,
    )
    assert np.array_equal(nc.read_image(path, channel="gfp", plane="max"), STACK[0].max(axis=0))
    assert np.array_equal(nc.read_image(path, channel=0, plane=2, level=1), STACK[0, 2, ::2, ::2])
    assert read_pixels(path, channel=0, plane=0, level=1).pixel_size == 0.5
    with pytest.raises(UserError, match=r"a\.ome\.zarr: it holds 3 planes: choose plane 0 to 2"):
        nc.read_image(path, channel=0)
    with pytest.raises(UserError, match="channel 'TOMATO': the channels are GFP, DAPI"):
        nc.read_image(path, channel="TOMATO", plane=0)
    for option, line in (
        ({"level": 2}, "level 2: choose 0 to 1"),
        ({"series": 1}, "only one series"),
    ):
        with pytest.raises(UserError, match=line):
            nc.read_image(path, channel=0, plane=0, **option)


def test_what_predict_exports_is_read_again(tmp_path):
    image = STACK[0, 0]
    labels = (image > 3000).astype(np.int32)
    (path,) = write_exports(tmp_path, "a", labels, None, "ome-zarr", 0.5, image)
    read = read_pixels(path)
    assert np.array_equal(read.values, image) and read.pixel_size == 0.5
    assert np.array_equal(nc.read_image(path / "labels" / "nuclei"), labels)


def test_arrays_with_axes_without_and_of_two(tmp_path):
    for name, form in (("v2", 2), ("v3", 3)):
        data = np.moveaxis(STACK[:, 0], 0, -1)
        write_array(tmp_path / name, data, ["y", "x", "c"], form=form)
        assert np.array_equal(nc.read_image(tmp_path / name, channel=1), STACK[1, 0])
        write_array(tmp_path / f"{name}-plain", STACK[0, 0], form=form)
        assert np.array_equal(nc.read_image(tmp_path / f"{name}-plain"), STACK[0, 0])
        write_array(tmp_path / f"{name}-none", STACK[0], form=form)
        with pytest.raises(
            UserError, match=f"{name}-none: a zarr array of shape .3, 20, 24. without axes"
        ):
            nc.read_image(tmp_path / f"{name}-none", channel=0)


def test_groups_that_are_no_image_and_damage(tmp_path):
    path = ome_zarr(tmp_path / "a.zarr", STACK[:, 0], "cyx")
    attributes = json.loads((path / ".zattrs").read_text())
    chunk = next(
        p
        for p in sorted((path / "0").rglob("*"))
        if p.name == "1.1.1" or p.parts[-3:] == ("1", "1", "1")
    )
    good = chunk.read_bytes()
    chunk.write_bytes(b"garbage")
    assert np.array_equal(nc.read_image(path, channel=0), STACK[0, 0])
    with pytest.raises(UserError, match="a.zarr: damaged, a chunk cannot be read"):
        nc.read_image(path, channel=1)
    chunk.write_bytes(good)
    for change, line in (
        ({"axes": []}, "without axes"),
        ({"axes": [{"name": "y"}, {"name": "x"}]}, "its axes are YX, its shape"),
        ({"datasets": []}, "its largest level is missing"),
    ):
        about = {"multiscales": [attributes["multiscales"][0] | change]}
        (path / ".zattrs").write_text(json.dumps(about))
        with pytest.raises(UserError, match=f"a.zarr: .*{line}"):
            nc.read_image(path, channel=0)
    (path / ".zattrs").write_text("{}")
    with pytest.raises(UserError, match="without OME-Zarr's multiscales"):
        nc.read_image(path)
    (path / ".zattrs").write_text(json.dumps({"plate": {}}))
    with pytest.raises(UserError, match="a plate of many images"):
        nc.read_image(path)
    (path / ".zgroup").write_text("{")
    with pytest.raises(UserError, match="damaged zarr folder"):
        nc.read_image(path)


def test_pictures_in_a_group(tmp_path):
    make_group(tmp_path / "a.zarr")
    for number in range(2):
        ome_zarr(tmp_path / "a.zarr" / str(number), STACK[number, 0], "yx")
    with pytest.raises(UserError, match="2 pictures: choose series 0 to 1"):
        nc.read_image(tmp_path / "a.zarr")
    assert np.array_equal(nc.read_image(tmp_path / "a.zarr", series=1), STACK[1, 0])
    with pytest.raises(UserError, match="series 2: choose 0 to 1"):
        nc.read_image(tmp_path / "a.zarr", series=2)


def test_folders_list_zarr_as_images(tmp_path, capsys):
    path = ome_zarr(tmp_path / "in" / "a.zarr", STACK[0, 0], "yx")
    assert list(list_images(tmp_path / "in")) == [path]
    for given in (tmp_path / "in", path):
        (found,) = find_images([given])
        assert (found.path, found.stem, found.file_name) == (path, "a", "a.zarr")
    assert capsys.readouterr().err == ""


def test_without_zarr_the_line_says_how_to_get_it(tmp_path, monkeypatch):
    path = ome_zarr(tmp_path / "a.zarr", STACK[0, 0], "yx")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(
        UserError, match=r"a\.zarr: zarr images need the package zarr: pip install 'nucleus"
    ):
        nc.read_image(path)


# ---------------------------------------------------------------- vendors


class Stand:
    """What bioio's BioImage offers, over arrays: two scenes with axes T, C, Z, Y, X."""

    scenes, resolution_levels = ("Overview", "Field 1"), (0,)
    channel_names, dtype = ["GFP", "Hoechst"], STACK.dtype
    physical_pixel_sizes = SimpleNamespace(X=0.325, Y=0.325, Z=1.0)
    dims, shape = SimpleNamespace(order="TCZYX"), (1, *STACK.shape)

    def __init__(self, path):
        self.scene = 0

    def set_scene(self, name):
        self.scene = self.scenes.index(name)

    def get_image_dask_data(self, order, **chosen):
        data = STACK[None] + np.uint16(self.scene)
        return data[tuple(chosen.get(a, slice(None)) for a in "TCZYX")]


HEADS = {"czi": b"ZISRAWFILE", "lif": b"\x70\0\0\0\1", "nd2": b"\xda\xce\xbe\x0a"}


@pytest.mark.parametrize("kind", VENDORS)
def test_vendors_files_by_what_bioio_tells(kind, tmp_path, monkeypatch, capsys):
    path = tmp_path / f"a.{kind}"
    path.write_bytes(HEADS[kind] + bytes(60))
    monkeypatch.setitem(sys.modules, "bioio", None)
    called, package = VENDORS[kind]
    with pytest.raises(
        UserError, match=rf"a\.{kind}: {called} needs the packages bioio and {package}: pip"
    ):
        nc.read_image(path)
    bioio = ModuleType("bioio")
    bioio.BioImage = Stand
    monkeypatch.setitem(sys.modules, "bioio", bioio)
    with pytest.raises(UserError, match=r"2 pictures: choose a series \(0: Overview, 1: Field 1\)"):
        nc.read_image(path)
    read = read_pixels(path, series=1, plane="max")
    assert np.array_equal(read.values, STACK[1].max(axis=0) + 1)
    assert (read.channel, read.pixel_size) == ("Hoechst", 0.325)
    assert np.array_equal(nc.read_image(path, series=0, channel="gfp", plane=2), STACK[0, 2])
    with pytest.raises(UserError, match="channel 2: choose 0 to 1"):
        nc.read_image(path, series=0, channel=2, plane=0)
    with pytest.raises(UserError, match="unpack it first"):
        read_pixels(path.read_bytes(), path.name)
    assert list(list_images(tmp_path)) == [path]
    for error, line in ((ValueError("no\nblocks"), "cannot be read as .* .no blocks."), (type("UnsupportedFileFormatError", (Exception,), {})(), f"needs the package {package}")):  # fmt: skip
        bioio.BioImage = lambda path, error=error: (_ for _ in ()).throw(error)
        with pytest.raises(UserError, match=line):
            nc.read_image(path)


@pytest.mark.parametrize("kind", ["zarr", "czi"])
def test_training_images_and_their_annotations(kind, tmp_path, monkeypatch):
    """With a label image, a COCO file and in BBBC038's layout; the options are read_image's."""
    import tifffile

    labels = np.zeros(STACK.shape[-2:], np.uint8)
    labels[3:9, 4:12], labels[12:18, 10:20] = 1, 2
    first = np.uint8(255 * (labels == 1))
    bioio = ModuleType("bioio")
    bioio.BioImage = Stand
    monkeypatch.setitem(sys.modules, "bioio", bioio)
    how = {"channel": "GFP", "plane": 2, "progress": False}
    how |= {"series": 0} if kind == "czi" else {}

    def image(folder, stem):
        folder.mkdir(parents=True, exist_ok=True)
        if kind == "zarr":
            return ome_zarr(folder / f"{stem}.ome.zarr", STACK, "czyx", names=["GFP", "DAPI"])
        (folder / f"{stem}.czi").write_bytes(HEADS["czi"] + bytes(60))
        return folder / f"{stem}.czi"

    name = image(tmp_path / "labels", "a").name
    tifffile.imwrite(tmp_path / "labels" / "a_masks.tif", labels)
    image(tmp_path / "bbbc" / "b" / "images", "b")
    (tmp_path / "bbbc" / "b" / "masks").mkdir()
    tifffile.imwrite(tmp_path / "bbbc" / "b" / "masks" / "1.tif", first)
    image(tmp_path / "coco", "a")
    square = {"image_id": 0, "category_id": 1, "segmentation": [[4, 3, 12, 3, 12, 9, 4, 9]]}
    coco = {"images": [{"id": 0, "file_name": name, "height": 20, "width": 24}]}
    coco |= {"annotations": [{"id": 1, **square}], "categories": [{"id": 1, "name": "nucleus"}]}
    (tmp_path / "coco" / "x.json").write_text(json.dumps(coco))
    for place, wanted in (("labels", labels), ("bbbc", first > 0), ("coco", labels == 1)):
        (record,) = nc.load_dataset(tmp_path / place, **how)
        assert np.array_equal(record.labels, wanted), place
        assert np.array_equal(record.raw, STACK[0, 2]) and record.raw.dtype == np.uint16
    with pytest.raises(UserError, match=f"{name}.* choose "):
        nc.load_dataset(tmp_path / "labels", progress=False)
    with pytest.raises(UserError, match="channels are GFP"):
        nc.load_dataset(tmp_path / "labels", **how | {"channel": "tomato"})

    import shutil

    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "labels")
    with pytest.raises(UserError, match=f"{name}: .*from a folder, not from an archive: unpack it"):
        nc.load_dataset(packed, **how)
    if kind == "zarr":
        with pytest.raises(UserError, match="one zarr image: give the folder"):
            nc.load_dataset(tmp_path / "labels" / name, **how)
        changed = zarr.open_group(str(tmp_path / "labels" / name), mode="a")["0"]
        changed[0, 2] = 7  # the cache notices
        (record,) = nc.load_dataset(tmp_path / "labels", **how)
        assert (record.raw == 7).all()


def test_a_real_czi(tmp_path):
    pytest.importorskip("bioio_czi")
    from pylibCZIrw import czi

    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as document:
        for channel in range(2):
            document.write(data=STACK[channel, 0][..., None], plane={"C": channel, "Z": 0, "T": 0})
        names = {0: "GFP", 1: "DAPI"}
        document.write_metadata(channel_names=names, scale_x=0.5e-6, scale_y=0.5e-6)
    read = read_pixels(path)
    assert np.array_equal(read.values, STACK[1, 0])
    assert read.channel == "DAPI" and read.pixel_size == pytest.approx(0.5)
    assert np.array_equal(nc.read_image(path, channel=0), STACK[0, 0])
