"""Large images read in pieces: TIFF, OME-TIFF, pyramids, zarr."""

import numpy as np
import pytest
import tifffile
from zarrs import add_array, make_group, write_array

from nucleus_course._util.errors import UserError
from nucleus_course.data import slides as planes


@pytest.fixture
def small(monkeypatch):
    """Images of 10,000 pixels or more count as large."""
    monkeypatch.setattr(planes, "LARGE", 10_000)


def tiff(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize(
    "options",
    (
        {"tile": (64, 64), "compression": "zlib"},
        {"tile": (32, 48)},
        {"rowsperstrip": 7, "compression": "zlib"},
        {},
        {"bigtiff": True, "byteorder": ">"},
    ),
)
@pytest.mark.parametrize("colour", (False, True))
def test_pieces_of_tiffs(small, tmp_path, options, colour):
    shape = (300, 211, 3) if colour else (300, 211)
    array = np.random.default_rng(0).integers(0, 60000, shape).astype("uint16")
    kind = {"photometric": "rgb"} if colour else {}
    plane = planes.open_plane(tiff(tmp_path / "a.tif", array, **options, **kind))
    assert plane.shape == (300, 211) and plane.dtype.itemsize == 2
    np.testing.assert_array_equal(plane.read(10, 20, 150, 211), array[10:150, 20:211])
    plane.close()


def test_the_channel_of_an_ome_tiff_and_a_level_of_a_pyramid(small, tmp_path):
    array = np.random.default_rng(0).integers(0, 60000, (2, 300, 200)).astype("uint16")
    names = {"axes": "CYX", "Channel": {"Name": ["GFP", "DAPI"]}, "PhysicalSizeX": 0.5}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        options = {"tile": (64, 64)}
        file.write(array, subifds=1, metadata=names, **options)
        file.write(array[:, ::2, ::2], subfiletype=1, **options)
    plane = planes.open_plane(tmp_path / "a.ome.tif")
    assert plane.channel == "DAPI" and plane.pixel_size == 0.5 and "GFP, DAPI" in plane.notes[0]
    np.testing.assert_array_equal(plane.read(100, 3, 290, 99), array[1, 100:290, 3:99])
    half = planes.open_plane(tmp_path / "a.ome.tif", channel=0, level=1)
    np.testing.assert_array_equal(half.read(0, 0, 150, 100), array[0, ::2, ::2])


def test_only_the_tiles_that_are_needed_are_read(small, tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (256, 256)).astype("uint8")
    path = tiff(tmp_path / "a.tif", array, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as file:
        place = file.pages[0].dataoffsets[-1]
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(b"\xff" * 32)  # the last tile is damaged
    plane = planes.open_plane(path)
    np.testing.assert_array_equal(plane.read(0, 0, 256, 192), array[:, :192])
    with pytest.raises(Exception, match="(?i)zlib|decompress|invalid|incorrect"):
        plane.read(192, 192, 256, 256)


def test_pieces_of_zarr(small, tmp_path):
    array = np.random.default_rng(0).integers(0, 60000, (2, 1, 300, 200)).astype("uint16")
    group = make_group(tmp_path / "a.zarr")
    add_array(group, "0", array, (1, 1, 64, 64))
    axes = [{"name": n} for n in "cz"] + [{"name": n, "unit": "micrometer"} for n in "yx"]
    scales = [{"type": "scale", "scale": [1, 1, 0.25, 0.25]}]
    datasets = [{"path": "0", "coordinateTransformations": scales}]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": datasets}]
    group.attrs["omero"] = {"channels": [{"label": "Hoechst"}, {"label": "actin"}]}
    plane = planes.open_plane(tmp_path / "a.zarr")
    assert plane.channel == "Hoechst" and plane.pixel_size == 0.25
    np.testing.assert_array_equal(plane.read(5, 6, 70, 80), array[0, 0, 5:70, 6:80])
    with pytest.raises(UserError, match="channel"):
        planes.open_plane(tmp_path / "a.zarr", channel="DAPI")
    group.attrs["multiscales"] = [{"datasets": datasets}]
    with pytest.raises(UserError, match="axes"):
        planes.open_plane(tmp_path / "a.zarr")


def test_what_is_no_slide_is_read_whole(small, tmp_path):
    assert planes.open_plane(tiff(tmp_path / "a.tif", np.zeros((90, 90), "uint8"))) is None
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert planes.open_plane(tmp_path / "a.png") is None
    turned = tiff(
        tmp_path / "b.tif", np.zeros((200, 90), "uint8"), extratags=[(274, 3, 1, 6, True)]
    )
    assert planes.open_plane(turned) is None


def test_a_slide_that_is_cut_short_is_refused(small, tmp_path):
    path = tiff(tmp_path / "a.tif", np.ones((200, 200), "uint16"))
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(UserError, match="a.tif.*cut short"):
        planes.open_plane(path)


def test_a_damaged_tile_is_named_with_its_place(small, tmp_path):
    image = np.random.default_rng(0).integers(0, 60000, (200, 200)).astype("uint16")
    path = tiff(tmp_path / "a.tif", image, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as file:
        start, size = (getattr(file.pages[0], n)[5] for n in ("dataoffsets", "databytecounts"))
    data = bytearray(path.read_bytes())
    data[start : start + size] = b"x" * size
    path.write_bytes(data)
    write_array(tmp_path / "a.zarr", image, chunks=(64, 64), form=2)
    (tmp_path / "a.zarr" / "1.1").write_bytes(b"garbage")
    for name in ("a.tif", "a.zarr"):
        plane = planes.open_plane(tmp_path / name)
        np.testing.assert_array_equal(plane.read(0, 0, 64, 200), image[:64])  # others are intact
        with pytest.raises(UserError, match=f"{name}: damaged, rows 60 to 90 and columns 0 to 80"):
            plane.read(60, 0, 90, 80)
        plane.close()
