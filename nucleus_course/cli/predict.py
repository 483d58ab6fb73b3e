"""`nucleus-course predict`: nuclei in your own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from nucleus_course._util.errors import UserError
from nucleus_course._util.text import pluralize
from nucleus_course.backend import devices, has_bfloat16, load_backend
from nucleus_course.cli import common
from nucleus_course.cli.inputs import (
    Channel,
    ImageFile,
    Level,
    Plane,
    Series,
    Time,
    find_images,
)
from nucleus_course.cli.outputs import Export, Outputs, PixelSize, Properties
from nucleus_course.cli.predict_job import Job
from nucleus_course.data.canonical import POLARITIES
from nucleus_course.data.preprocess import INPUTS

TABLE_ROWS = 25  # more images than that are in counts.csv alone


@common.friendly
def predict(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE_OR_FOLDER...",
            help="Image files (PNG, TIFF, JPEG, BMP) or folders of them.",
        ),
    ],
    weights: Annotated[
        str,
        typer.Option(metavar="W", help="A name that ships, a model folder or a weights file."),
    ] = "compact",
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder for the results.")] = Path(
        "predictions"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Pass over images whose results are in DIR already.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove the results that are in DIR first.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Only every Nth image from the Ith on, for array jobs; then run `merge DIR`.",
        ),
    ] = None,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Count detections from this score on; default: the one stored with the weights.",
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            min=0,
            help="Side of the tiles of a large image; 0: no tiles; default: as it needs.",
        ),
    ] = None,
    overlap: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", min=0, help="What neighbouring tiles share."),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also draw the outlines on each image.")
    ] = False,
    export: Export = "",
    pixel_size: PixelSize = None,
    properties: Properties = "",
    runtime: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="keras, or openvino: faster on a CPU (pip install openvino onnx).",
        ),
    ] = "keras",
    channel: Channel = None,
    plane: Plane = None,
    time: Time = None,
    series: Series = None,
    level: Level = None,
    polarity: Annotated[
        str,
        typer.Option(
            metavar="HOW",
            help="How nuclei look: auto (decided image by image), bright or dark on their background.",
        ),
    ] = "auto",
    seen: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="VIEW",
            help="canonical (grey, nuclei bright) or colour; default: as the weights learned.",
        ),
    ] = None,
    flips: common.Flips = None,
    dtype: common.PredictionDtype = None,
    preset: common.BarePreset = None,
    backend: common.Backend = None,
) -> None:
    """Find the nuclei in your images: 8- or 16-bit, grey, RGB or RGBA, of any size, one page a file.

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
                           how it was seen (polarity, stain, range), and
                           novelty: from 1 on, do not trust its nuclei
      measurements.csv     one row for each nucleus: place, size, shape,
                           brightness, score, whether the edge may cut it
      overlays/<stem>.png  with --overlay: the image with its outlines
      <format>/<stem>.…    with --export: rois, geojson, …
      rows/<stem>.json     what the tables say of an image, once it is done

    Folders are searched with their subfolders; in BBBC038's layout the masks are passed over and the
    stem is the image id. Images that share a stem are called by their path, with __ for /.

    Results are written image by image. Ctrl-C (exit code 130) and SIGTERM (143) keep what is done, and --resume
    goes on from there. An image that cannot be read, does not fit into memory or cannot be written is named in one line
    and skipped: the others go on, and the exit code is 1. Several processes may share one DIR, with or without --shard;
    DIR keeps to one model and one score threshold.
    """
    reading = {
        "channel": channel, "plane": plane, "time": time, "series": series, "level": level,
    }  # fmt: skip
    if polarity not in POLARITIES:
        raise UserError(f"unknown --polarity '{polarity}': choose one of {', '.join(POLARITIES)}")
    if seen is not None and seen not in INPUTS:
        raise UserError(f"unknown --input '{seen}': choose {' or '.join(INPUTS)}")
    how = {"tile": tile, "overlap": overlap, "polarity": polarity, "input": seen, "flips": flips}
    outputs = Outputs(export, pixel_size, properties)
    files = find_images(images, exclude=out)
    mine = _shard(files, shard)
    if not mine:
        common.note(f"shard {shard} of {pluralize(len(files), 'image')} is empty: nothing to do")
        return
    load_backend(backend)
    folder = common.output_folder(out)
    # OpenVINO makes its own graphs, by default in what the processor computes in.
    model = common.open_model(weights, preset, dtype or _fastest(runtime))
    if polarity != "auto" and (seen or model.config.input) == "colour":
        raise UserError(
            f"--polarity {polarity} is for the canonical input, and {weights} sees colour: "
            "add --input canonical"
        )
    precise = {"precision": dtype.removeprefix("mixed_")} if dtype and runtime == "openvino" else {}
    model.use_engine(runtime, **precise)
    threshold = model.thresholds.score if score_threshold is None else score_threshold
    if score_threshold is None and not model.thresholds.chosen:
        common.note(
            f"the score threshold {threshold:.2f} was not chosen for {weights}: "
            "`nucleus-course thresholds` chooses it on annotated images"
        )

    from nucleus_course.prediction.results import ResultsFolder

    settings = _settings(model, weights, threshold, reading | how | outputs.settings())
    results = ResultsFolder(folder, settings, overwrite)
    job = Job(model, results, threshold, overlay, reading, how, outputs)
    try:
        job.run(mine, resume)
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
    job.say_where()
    if shard is not None:
        common.say(f"next, when all shards are done: nucleus-course merge {folder}")
    if job.failed:
        common.fail(f"{job.failed} of {pluralize(len(mine), 'image')} could not be done", 1)


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


def _fastest(runtime: str) -> str:
    """mixed_bfloat16 where Keras is the faster for it: on GPUs, and with TensorFlow on CPUs that compute in it."""
    import keras

    backend = keras.backend.backend()
    native = has_bfloat16(backend) and (backend == "tensorflow" or devices(backend) != ["cpu"])
    return "mixed_bfloat16" if runtime == "keras" and native else "float32"


def _settings(model, weights: str, threshold: float, asked: dict) -> dict[str, Any]:
    """What predictions.json says of the model, and what must be equal for results to share a folder."""
    import dataclasses

    from nucleus_course import __version__
    from nucleus_course.prediction.results import weights_digest

    info = {
        "model": str(weights),
        "preset": model.config.name,
        "min_area": model.thresholds.min_area,
    }
    info |= {"software": f"nucleus_course {__version__}", "score_threshold": float(threshold)}
    point = dataclasses.asdict(model.thresholds)
    options = {name: point[name] for name in ("nms_iou", "mask", "flips")}
    options |= asked | {"weights": weights_digest(model)}
    return {"info": info, "options": options}


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
