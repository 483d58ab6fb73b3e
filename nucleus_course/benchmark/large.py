"""Large images and many images: time and memory by megapixels, and the overhead of tasks."""

import math
import tempfile
import time
from pathlib import Path

import numpy as np

STEP = 1024  # pixels; the mosaic's period
KINDS = ("small fluorescent", "large fluorescent")


def mosaic(data):
    """uint8 (1024, 1024) of a data set's fluorescence images, side by side and cut to squares of 256 pixels."""
    from nucleus_course.data import load_dataset

    dataset = load_dataset(data, "all", progress=False)
    pieces = []
    for image_id in dataset.ids:
        if dataset.types[image_id] in KINDS:
            grey = dataset[image_id].image[:256, :256].mean(axis=2).astype("uint8")
            if grey.shape == (256, 256):
                pieces.append(grey)
        if len(pieces) == 16:
            break
    if not pieces:
        return np.zeros((STEP, STEP), "uint8")
    whole = np.resize(np.stack(pieces), (4, 4, 256, 256))  # repeated if there are too few
    return whole.transpose(0, 2, 1, 3).reshape(STEP, STEP)


def slide(megapixels, data="sample", threads=None, **options):
    """`predict` on a mosaic in a tiled TIFF, from opening it to the tables.

    ``options`` are those of :meth:`~nucleus_course.prediction.segmenter.Segmenter.predict`.
    """
    import tifffile

    from nucleus_course.benchmark.case import set_threads
    from nucleus_course.prediction.cluster import predict_many

    set_threads(threads)
    number = max(1, round(math.sqrt(megapixels)))
    block, side = mosaic(data), number * STEP
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        tiles = (block for _ in range(number**2))
        layout = {"shape": (side, side), "tile": (STEP, STEP)}
        tifffile.imwrite(path, tiles, dtype="uint8", compression="zlib", **layout)
        wall, cpu = time.perf_counter(), time.process_time()
        found = predict_many(path, Path(folder) / "out", progress=False, **options)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "ms": round(1000 * wall), "cpu_ms": round(1000 * cpu), "nuclei": found.nuclei,
        "note": f"{side}x{side}, {found.nuclei} nuclei",
    }  # fmt: skip


def nothing(file, recipe, resume):
    """A task that does nothing."""
    from nucleus_course.prediction.cluster import Outcome

    return Outcome(passed=True)


def tasks(files, workers=2, threads=None):
    """The overhead of Dask's scheduler per file: tasks that do nothing, on processes of this machine."""
    from distributed import Client, LocalCluster

    from nucleus_course.prediction.cluster import spread
    from nucleus_course.prediction.image_files import ImageFile
    from nucleus_course.prediction.many import Recipe

    given = [ImageFile(Path(f"{n:06d}.tif"), f"{n:06d}.tif", f"{n:06d}") for n in range(files)]
    cluster = LocalCluster(workers, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster) as client:
        client.wait_for_workers(workers)
        wall, cpu = time.perf_counter(), time.process_time()
        outcomes = spread(client, Recipe("."), given, True, nothing)
        done = sum(outcome.passed for _, outcome in outcomes)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if done != files:
        raise RuntimeError(f"{done} of {files} tasks done")
    return {
        "ms": round(1000 * wall, 1), "cpu_ms": round(1000 * cpu, 1),
        "note": f"{files} tasks on {workers} workers: {1000 * wall / files:.2f} ms each, "
        f"{1000 * cpu / files:.2f} of the scheduler's and client's processor",
    }  # fmt: skip
