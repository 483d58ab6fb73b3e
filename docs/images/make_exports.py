"""Draw docs/images/exports.png: what `predict --export` writes, as each format's own library reads it.

    python docs/images/make_exports.py

An image of the embedded sample (synthetic) with its drawn nuclei; roifile reads Fiji's ROIs and draws them itself,
shapely QuPath's GeoJSON, tifffile the OME-TIFF, zarr the OME-Zarr, pyarrow the Parquet table.
"""

import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import roifile
import shapely
import tifffile
import zarr

from nucleus_course.data import load_dataset
from nucleus_course.figures.style import panels, picture
from nucleus_course.prediction.exports import FORMATS, write_exports
from nucleus_course.prediction.picture import colour_labels

PLACE = Path(__file__).with_name("exports.png")
POSITION = 1


def main():
    record = load_dataset("sample", progress=False)[POSITION]
    figure, axes = panels(len(FORMATS), len(FORMATS), side=2.4, ratio=1.12)
    with tempfile.TemporaryDirectory() as folder:
        scores = np.linspace(0.9, 0.5, record.count)
        image = record.image[..., 0]
        paths = write_exports(folder, "a", record.labels, scores, tuple(FORMATS), 0.5, image)
        rois, geojson, ome_tiff, ome_zarr, parquet = paths
        for axis, (name, reader) in zip(
            axes, zip(FORMATS, ("roifile", "shapely", "tifffile", "zarr", "pyarrow"))
        ):
            title = f"{name}, read by {reader}"
            if name == "ome-tiff":
                picture(axis, colour_labels(tifffile.imread(ome_tiff)), title)
            elif name == "ome-zarr":
                group = zarr.open_group(str(ome_zarr), mode="r")
                picture(axis, np.asarray(group["0"]), title)
                axis.contour(
                    np.asarray(group["labels/nuclei/0"]) > 0, [0.5], colors="orange", linewidths=0.8
                )
            else:
                picture(axis, np.repeat(image[..., None], 3, axis=2), title)
        for roi in roifile.roiread(rois):
            ring = np.vstack([roi.coordinates(), roi.coordinates()[:1]]) - 0.5
            axes[0].plot(*ring.T, color="orange", linewidth=0.8)
        for feature in json.loads(geojson.read_text())["features"]:
            shape = shapely.from_geojson(json.dumps(feature["geometry"]))
            for part in getattr(shape, "geoms", [shape]):
                axes[1].plot(
                    *(np.array(part.exterior.coords).T - 0.5), color="orange", linewidth=0.8
                )
        table = pyarrow.parquet.read_table(parquet).to_pydict()
        size = np.sqrt(table["area_px"])
        axes[4].scatter(table["centroid_column"], table["centroid_row"], size, color="orange")
    figure.savefig(PLACE, dpi=90, facecolor="white")
    print(f"written: {PLACE}")


if __name__ == "__main__":
    main()
