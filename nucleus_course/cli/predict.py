"""`nucleus-course predict`: nuclei in your own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from nucleus_course._util.errors import UserError
from nucleus_course._util.text import pluralize
from nucleus_course.backend import fastest_dtype as _fastest
from nucleus_course.backend import load_backend
from nucleus_course.cli import common
from nucleus_course.cli.predict_job import Job
from nucleus_course.data.canonical import POLARITIES
from nucleus_course.data.preprocess import INPUTS
from nucleus_course.prediction.image_files import ImageFile, find_images
from nucleus_course.prediction.many import Recipe
from nucleus_course.prediction.scale import check_diameter

TABLE_ROWS = 25  # more images than that are in counts.csv alone


@common.friendly
def predict(
    images: Annotated[list[Path], typer.Argument()],
    weights: str = "compact",
    out: Path = Path("predictions"),
    resume: bool = False,
    overwrite: bool = False,
    shard: str | None = None,
    score_threshold: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    tile: Annotated[int | None, typer.Option(min=0)] = None,
    overlap: Annotated[int | None, typer.Option(min=0)] = None,
    diameter: str = "auto",
    overlay: bool = False,
    export: str = "",
    pixel_size: float | None = None,
    properties: str = "",
    runtime: str = "keras",
    scheduler: str | None = None,
    reading: common.Reading = None,
    polarity: str = "auto",
    seen: Annotated[str | None, typer.Option("--input")] = None,
    flips: common.Flips = None,
    dtype: str | None = None,
    preset: str | None = None,
    backend: str | None = None,
) -> None:
    """Find the nuclei in your images: 8- or 16-bit, grey, RGB or RGBA, of any size.

    \b
    Examples
      nucleus-course predict slides/ --weights compact --out results --overlay
      nucleus-course predict slides/ --out results --resume
      nucleus-course predict slides/ --out results --resume --shard 3/8

    \b
    Writes to DIR
      predictions.json     every detection with its score, COCO style
      labels/<stem>.tif    0 background, 1, 2, … a nucleus each, best first;
                           16 bits, or 32 above 65,535 nuclei
      counts.csv           one row for each image: size, nuclei, median area,
                           how it was seen (polarity, stain, range),
                           novelty: from 1 on, do not trust its nuclei;
                           warnings
      measurements.csv     one row for each nucleus: place, size, shape,
                           brightness, score, quality of its outline,
                           whether the edge may cut it
      overlays/<stem>.png  with --overlay: the image with its outlines
      <format>/<stem>.…    with --export: rois, geojson, …
      rows/<stem>.json     what the tables say of an image, once it is done

    Folders are searched with their subfolders; in BBBC038's layout the masks are passed over and the
    stem is the image id. Images that share a stem are called by their path or folder, with __ for /, and so is one whose
    stem another image's results in DIR have; a line says so.

    Results are written image by image. Ctrl-C (exit code 130) and SIGTERM (143) keep what is done, and --resume
    goes on from there. An image that cannot be read, does not fit into memory or cannot be written is named in one line
    and skipped: the others go on, and the exit code is 1. Several processes may share one DIR, with or without --shard;
    DIR keeps to one model and one score threshold.

    Args:
        images (IMAGE_OR_FOLDER...): Image files (PNG, TIFF, zarr, CZI, …: docs/formats.md) or folders of them.
        weights (W): A name that ships, a model folder or a weights file.
        out (DIR): The folder for the results.
        resume: Pass over images whose results are in DIR already.
        overwrite: Remove the results that are in DIR first.
        shard (I/N): Only every Nth image from the Ith on, for array jobs; then run `merge DIR`.
        score_threshold: Count detections from this score on; default: the one stored with the weights.
        tile (PIXELS): Side of the tiles of a large image; 0: no tiles; default: as it needs.
        overlap (PIXELS): What neighbouring tiles share.
        diameter (PX|auto|none): Median diameter of the nuclei in image pixels: the image is looked at so much
            smaller or larger that they have the size the weights know best. auto: by a first look; none: as it
            is.
        overlay: Also draw the outlines on each image.
        export (FORMATS): Also write rois (Fiji), geojson (QuPath), ome-tiff, ome-zarr (napari), parquet: a list
            with commas.
        pixel_size (UM): Side of a pixel in micrometres, for units alone; default: what the file says.
        properties (NAMES): Also measure these properties of skimage.measure.regionprops: perimeter,orientation.
        runtime (NAME): keras, or openvino: faster on a CPU (pip install openvino onnx).
        scheduler (ADDRESS): Spread the images over the workers of this Dask scheduler (tcp://host:8786), which
            see DIR too.
        polarity (HOW): How nuclei look: auto (decided image by image), bright or dark on their background.
        seen (VIEW): canonical (grey, nuclei bright) or colour; default: as the weights learned.
    """
    if polarity not in POLARITIES:
        raise UserError(f"unknown --polarity '{polarity}': choose one of {', '.join(POLARITIES)}")
    if seen is not None and seen not in INPUTS:
        raise UserError(f"unknown --input '{seen}': choose {' or '.join(INPUTS)}")
    how = {
        "tile": tile, "overlap": overlap, "polarity": polarity, "input": seen, "flips": flips,
        "diameter": check_diameter(diameter),
    }  # fmt: skip
    recipe = Recipe(
        str(out), weights, preset, dtype, runtime, backend, None, score_threshold, overlay, reading, how,
        export, pixel_size, properties,
    )  # fmt: skip
    outputs = recipe.outputs()
    files = find_images(images, exclude=out)
    mine = _shard(files, shard)
    if not mine:
        common.note(f"shard {shard} of {pluralize(len(files), 'image')} is empty: nothing to do")
        return
    if scheduler is None:
        load_backend(backend)
    common.output_folder(out)
    if scheduler is None:
        outcomes, results = _here(recipe, mine, resume, overwrite)
    else:
        outcomes, results = _on_workers(recipe, mine, resume, overwrite, scheduler)
    threshold = results.settings["info"]["score_threshold"]
    job = Job(recipe, results, outputs.formats)
    try:
        job.run(outcomes, len(mine))
    finally:  # Ctrl-C and SIGTERM keep what is done
        if shard is None and len(results):
            job.tables()
    if not job.counts and not job.passed:
        raise UserError(f"none of the {pluralize(len(mine), 'image')} could be done")
    if 1 < len(job.counts) <= TABLE_ROWS:
        common.out().print(_table(job.counts))
    if job.passed:
        common.note(f"{pluralize(job.passed, 'image')} done before")
    source = f"stored with {weights}" if score_threshold is None else "chosen by --score-threshold"
    total = sum(row["nuclei"] for row in job.counts)
    common.say(
        f"{pluralize(total, 'nucleus', 'nuclei')} in {pluralize(len(job.counts), 'image')} "
        f"at scores of {threshold:.2f} and up ({source})"
    )
    strange = [row["image"] for row in job.counts if (row["novelty"] or 0) >= 1]
    if strange:
        names = ", ".join(strange[:3]) + (", …" if len(strange) > 3 else "")
        common.note(
            f"unlike anything {weights} learned from, do not trust: "
            f"{pluralize(len(strange), 'image')} of {len(job.counts)} ({names})"
        )
    common.note_renamed(job.renamed, out)
    job.say_scales(weights)
    job.say_where()
    if shard is not None:
        common.say(f"next, when all shards are done: nucleus-course merge {out}")
    if job.failed:
        common.fail(f"{job.failed} of {pluralize(len(mine), 'image')} could not be done", 1)
    if job.no_tables:
        common.fail("the tables are not written", 1)


def _here(recipe: Recipe, files: list[ImageFile], resume: bool, overwrite: bool):
    """(outcomes, results folder) of the files in this process."""
    from nucleus_course.prediction.cluster import in_turn

    # OpenVINO makes its own graphs, by default in what the processor computes in.
    dtype, runtime = recipe.dtype, recipe.runtime
    model = common.open_model(recipe.weights, recipe.preset, dtype or _fastest(runtime))
    polarity, seen = recipe.how["polarity"], recipe.how["input"]
    if polarity != "auto" and (seen or model.config.input) == "colour":
        raise UserError(
            f"--polarity {polarity} is for the canonical input, and {recipe.weights} sees colour: add --input canonical"
        )
    precise = {"precision": dtype.removeprefix("mixed_")} if dtype and runtime == "openvino" else {}
    model.use_engine(runtime, **precise)
    if recipe.score_threshold is None and not model.thresholds.chosen:
        common.note(
            f"the score threshold {model.thresholds.score:.2f} was not chosen for {recipe.weights}: "
            "`nucleus-course thresholds` chooses it on annotated images"
        )
    work = recipe.open(model, overwrite)
    return in_turn(work, files, resume), work.results


def _on_workers(
    recipe: Recipe, files: list[ImageFile], resume: bool, overwrite: bool, address: str
):
    """(outcomes, results folder) of the files on the workers of a scheduler."""
    from nucleus_course.prediction import cluster
    from nucleus_course.prediction.results import ResultsFolder

    client = cluster.connect(address)
    recipe = cluster.portable(recipe)
    settings = cluster.begin(client, recipe, overwrite)
    results = ResultsFolder(recipe.out, {k: settings[k] for k in ("info", "options")})
    return cluster.spread(client, recipe, files, resume), results


def _shard(files: list[ImageFile], shard: str | None) -> list[ImageFile]:
    """The part of the files that ``shard`` (``3/8``: the third of eight) names.

    Raises:
        UserError: not two whole numbers I/N with 1 <= I <= N.
    """
    if shard is None:
        return files
    number, slash, count = shard.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--shard {shard}: write I/N, with I from 1 to N, such as 3/8")
    return files[int(number) - 1 :: int(count)]


def _table(counts: list[dict[str, Any]]):
    """The rows of counts.csv for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("image", overflow="ellipsis", no_wrap=True)
    for name in ("size, px", "nuclei", "median area, px"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in counts:
        area = f"{row['median_area_px']:.0f}" if row["nuclei"] else "-"
        size = f"{row['height']} x {row['width']}"
        table.add_row(Text(row["image"]), size, str(row["nuclei"]), area)
    return table
