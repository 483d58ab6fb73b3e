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

TABLE_ROWS = 25  # tables of more images are not printed


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
      labels/<stem>.tif    0 background, 1, 2, … the nuclei, best first;
                           16 bits, or 32 above 65,535 nuclei
      counts.csv           one row for each image: size, nuclei, median area,
                           how it was seen (polarity, stain, range),
                           novelty: at 1 or more, do not trust its nuclei;
                           warnings
      measurements.csv     one row for each nucleus: place, size, shape,
                           brightness, score, quality of its outline,
                           whether the edge may cut it
      overlays/<stem>.png  with --overlay: the image with its outlines
      <format>/<stem>.…    with --export: rois, geojson, …
      rows/<stem>.json     the rows of the tables, once an image is done

    Folders are searched with their subfolders. In BBBC038's layout the masks are skipped and the
    stem is the image id. If images share a stem, among themselves or with results in DIR, the results are named after the
    path or folder, with __ for /; a note says so.

    Results are written image by image. Ctrl-C (exit code 130) and SIGTERM (143) keep what is done, and --resume
    continues from there. An image that cannot be read or written, or does not fit into memory, is named in one line
    and skipped; the others are done, and the exit code is 1. Several processes may share one DIR, with or without --shard.
    One DIR holds results of one model and one score threshold.

    Args:
        images (IMAGE_OR_FOLDER...): Image files (PNG, TIFF, zarr, CZI, …: docs/formats.md) or folders of them.
        weights (W): A name that ships, a model folder or a weights file.
        out (DIR): The folder for the results.
        resume: Skip images whose results are already in DIR.
        overwrite: First remove the results that are in DIR.
        shard (I/N): Only every Nth image, starting with the Ith, for array jobs. Run `merge DIR` afterwards.
        score_threshold: Count detections with at least this score. Default: the one stored with the weights.
        tile (PIXELS): Side of the tiles of a large image; 0: no tiles. Default: chosen automatically.
        overlap (PIXELS): How many pixels neighbouring tiles share.
        diameter (PX|auto|none): Median diameter of the nuclei in image pixels. The image is scaled so that the nuclei have the size
            that the weights know best. auto: measured in a first pass; none: no scaling.
        overlay: Also draw the outlines on each image.
        export (FORMATS): Also write these formats, separated by commas: rois (Fiji), geojson (QuPath), ome-tiff,
            ome-zarr (napari), parquet.
        pixel_size (UM): Side of a pixel in micrometres; it only changes units. Default: what the file says.
        properties (NAMES): Also measure these properties of skimage.measure.regionprops, such as perimeter,orientation.
        runtime (NAME): keras, or openvino: faster on a CPU (pip install openvino onnx).
        scheduler (ADDRESS): Spread the images over the workers of this Dask scheduler (tcp://host:8786). They must
            see DIR too.
        polarity (HOW): Whether nuclei are bright or dark on their background; auto decides for each image.
        seen (VIEW): canonical (grey, nuclei bright) or colour. Default: as the weights were trained.
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
    finally:  # also after Ctrl-C and SIGTERM
        if shard is None and len(results):
            job.tables()
    if not job.counts and not job.passed:
        raise UserError(f"none of the {pluralize(len(mine), 'image')} could be processed")
    if 1 < len(job.counts) <= TABLE_ROWS:
        common.out().print(_table(job.counts))
    if job.passed:
        common.note(f"{pluralize(job.passed, 'image')} done before")
    source = f"stored with {weights}" if score_threshold is None else "chosen by --score-threshold"
    total = sum(row["nuclei"] for row in job.counts)
    common.say(
        f"{pluralize(total, 'nucleus', 'nuclei')} in {pluralize(len(job.counts), 'image')} "
        f"with a score of at least {threshold:.2f} ({source})"
    )
    strange = [row["image"] for row in job.counts if (row["novelty"] or 0) >= 1]
    if strange:
        names = ", ".join(strange[:3]) + (", …" if len(strange) > 3 else "")
        common.note(
            f"unlike anything {weights} was trained on, do not trust: "
            f"{pluralize(len(strange), 'image')} of {len(job.counts)} ({names})"
        )
    common.note_renamed(job.renamed, out)
    job.say_scales(weights)
    job.say_where()
    if shard is not None:
        common.say(f"next, when all shards are done: nucleus-course merge {out}")
    if job.failed:
        common.fail(f"{job.failed} of {pluralize(len(mine), 'image')} could not be processed", 1)
    if job.no_tables:
        common.fail("the tables could not be written", 1)


def _here(recipe: Recipe, files: list[ImageFile], resume: bool, overwrite: bool):
    """(outcomes, results folder) for the files, in this process."""
    from nucleus_course.prediction.cluster import in_turn

    # OpenVINO builds its own graphs, with a precision that suits the processor.
    dtype, runtime = recipe.dtype, recipe.runtime
    model = common.open_model(recipe.weights, recipe.preset, dtype or _fastest(runtime))
    polarity, seen = recipe.how["polarity"], recipe.how["input"]
    if polarity != "auto" and (seen or model.config.input) == "colour":
        raise UserError(
            f"--polarity {polarity} is for the canonical input, but {recipe.weights} sees colour: add --input canonical"
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
    """(outcomes, results folder) for the files, on the workers of a scheduler."""
    from nucleus_course.prediction import cluster
    from nucleus_course.prediction.results import ResultsFolder

    client = cluster.connect(address)
    recipe = cluster.portable(recipe)
    settings = cluster.begin(client, recipe, overwrite)
    results = ResultsFolder(recipe.out, {k: settings[k] for k in ("info", "options")})
    return cluster.spread(client, recipe, files, resume), results


def _shard(files: list[ImageFile], shard: str | None) -> list[ImageFile]:
    """The files of ``shard`` (``3/8``: the third of eight parts).

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
    """The rows of counts.csv as a table for a terminal."""
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
