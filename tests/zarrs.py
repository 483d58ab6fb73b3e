"""zarr folders for tests, written by zarr 3 or, on Python 3.10, by zarr 2."""

import numpy as np
import pytest


def make_group(path, form=2):
    """A new group in zarr's format 2 or 3; the test is skipped where zarr does not know the format."""
    zarr = pytest.importorskip("zarr")
    if hasattr(zarr, "create_array"):
        return zarr.open_group(str(path), mode="w", zarr_format=form)
    if form != 2:
        pytest.skip("zarr 2 has no format 3")
    return zarr.open_group(str(path), mode="w")


def add_array(group, name, data, chunks=None):
    """An array in a group."""
    if hasattr(group, "create_array"):
        options = {"shape": data.shape, "dtype": data.dtype, "chunks": chunks or data.shape}
        stored = group.create_array(name, **options)
        stored[...] = data
        return stored
    return group.create_dataset(name, data=data, chunks=chunks or data.shape)


def write_array(path, data, axes=None, chunks=None, form=3):
    """An array without a group, with names of its axes: those of format 3, or xarray's for format 2."""
    zarr = pytest.importorskip("zarr")
    chunks, named = chunks or data.shape, {"_ARRAY_DIMENSIONS": list(axes)} if axes else {}
    if not hasattr(zarr, "create_array"):
        stored = zarr.open_array(
            str(path), mode="w", shape=data.shape, chunks=chunks, dtype=data.dtype
        )
        stored[:] = np.asarray(data)
        stored.attrs.update(named)
    elif form == 2:
        zarr.create_array(str(path), data=data, chunks=chunks, zarr_format=2, attributes=named)
    else:
        zarr.create_array(str(path), data=data, chunks=chunks, dimension_names=axes)
