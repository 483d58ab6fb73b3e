"""`nucleus-course predict`: nuclei in your own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import write_atomically
from nucleus_course._util.progress import progress
from nucleus_course._util.text import pluralize
from nucleus_course.backend import devices, has_bfloat16, load_backend
from nucleus_course.cli import common
from nucleus_course.cli.inputs import (
    Channel,
    Level,
    Plane,
    Series,
    Time,
    find_images,
    read_picture,
)

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
        typer.Option(
            "--weights", metavar="W", help="A name that ships, a model folder or a weights file."
        ),
    ] = "compact",
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder for the results.")
    ] = Path("predictions"),
    score_threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Count detections from this score on; default: the one stored with the weights.",
        ),
    ] = None,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also draw the outlines on each image.")
    ] = False,
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime",
            metavar="NAME",
            help="keras, or openvino: faster on a CPU (pip install openvino onnx).",
        ),
    ] = "keras",
    channel: Channel = None,
    plane: Plane = None,
    time: Time = None,
    series: Series = None,
    level: Level = None,
    dtype: common.PredictionDtype = None,
    preset: common.BarePreset = None,
    backend: common.Backend = None,
) -> None:
    """Find the nuclei in your images: 8- or 16-bit, grey, RGB or RGBA, of any size, one page a file.

    \b
    Example
      nucleus-course predict slides/ --weights compact --out results --overlay

    \b
    Writes to DIR
      predictions.json     every detection with its score, COCO style
      labels/<stem>.tif    0 background, 1, 2, … a nucleus each, best first;
                           16 bits, or 32 above 65,535 nuclei
      counts.csv           a row an image: size, nuclei, their median area
      measurements.csv     a row a nucleus: place, size, shape, brightness
      overlays/<stem>.png  with --overlay: the image with its outlines

    Folders are searched with their subfolders; in BBBC038's layout the masks are passed over and the
    stem is the image id. Images that share a stem are called by their path, with __ for /.
    An image that cannot be read is named and skipped: the others go on, and the exit code is 1.
    """

    wanted = dict(channel=channel, plane=plane, time=time, series=series, level=level)
    load_backend(backend)
    files = find_images(images, exclude=out)
    folder = common.output_folder(out)
    # OpenVINO makes its own graphs, by default in what the processor computes in.
    model = common.open_model(weights, preset, dtype or _fastest(runtime))
    precision = (
        {"precision": dtype.removeprefix("mixed_")} if dtype and runtime == "openvino" else {}
    )
    model.use_engine(runtime, **precision)
    threshold = model.thresholds.score if score_threshold is None else score_threshold
    done, nuclei, failed = {}, {}, []
    try:
        with progress() as bar:
            task = bar.add_task("detecting", total=len(files))
            for file in files:
                try:
                    done[file.stem], nuclei[file.stem] = _one(
                        model, file, folder, threshold, overlay, wanted
                    )
                except UserError as error:
                    failed.append(file)
                    bar.console.print(Text(f"skipped: {error}", style="bold red"), soft_wrap=True)
                bar.advance(task)
    finally:  # Ctrl-C keeps what is done
        if done:
            _save(done, model, weights, threshold, folder)
            counts = _save_tables(done, nuclei, folder)
    if not done:
        raise UserError(f"none of the {len(files)} images could be read")
    if 1 < len(counts) <= TABLE_ROWS:
        common.out().print(_table(counts))
    source = (
        "chosen by --score-threshold" if score_threshold is not None else f"stored with {weights}"
    )
    common.out().print(
        f"{pluralize(sum(map(len, nuclei.values())), 'nucleus', 'nuclei')} in {pluralize(len(done), 'image')} at scores of {threshold:.2f} and up ({source})"
    )
    pictures = f", {folder / 'overlays'}/" if overlay else ""
    written = ", ".join(
        str(folder / name) for name in ("predictions.json", "counts.csv", "measurements.csv")
    )
    common.out().print(Text(f"written: {written}, {folder / 'labels'}/{pictures}"), soft_wrap=True)
    if failed:
        common.fail(f"{len(failed)} of {len(files)} images could not be read and were skipped", 1)


def _fastest(runtime: str) -> str:
    """mixed_bfloat16 where Keras is the faster for it: on GPUs, and with TensorFlow on CPUs that compute in it."""
    import keras

    backend = keras.backend.backend()
    native = has_bfloat16(backend) and (backend == "tensorflow" or devices(backend) != ["cpu"])
    return "mixed_bfloat16" if runtime == "keras" and native else "float32"


def _one(model, file, folder: Path, threshold: float, overlay: bool, wanted: dict):
    """Detect on one file and write its label image: (ImagePredictions, a dict of measurements for each nucleus)."""
    from nucleus_course.data import to_rgb8
    from nucleus_course.prediction.interchange import ImagePredictions
    from nucleus_course.prediction.label_images import write_labels, write_overlay
    from nucleus_course.prediction.measurements import measure_nuclei

    values = read_picture(file.path, **wanted)
    image = to_rgb8(values)
    try:
        detections = model.predict(image)
    except MemoryError:
        raise UserError(
            f"{file.path}: too large for this machine's memory; cut it into tiles"
        ) from None
    rles = detections.rles()  # first: the label image then has the masks pasted already
    labels = detections.label_image(score_threshold=threshold)
    write_labels(folder / "labels" / f"{file.stem}.tif", labels)
    if overlay:
        write_overlay(folder / "overlays" / f"{file.stem}.png", image, labels)
    height, width = image.shape[:2]
    scores, boxes = detections.scores, detections.boxes
    found = ImagePredictions(height, width, rles, scores, boxes, file.file_name)
    return found, measure_nuclei(labels, values)


def _save(images: dict, model, weights: str, threshold: float, folder: Path) -> None:
    from nucleus_course import __version__
    from nucleus_course.prediction.interchange import Predictions

    info = {
        "model": str(weights),
        "preset": model.config.name,
        "min_area": model.thresholds.min_area,
    }
    info["software"] = f"nucleus_course {__version__}"
    Predictions(images, float(threshold), info).save(folder / "predictions.json")


def _save_tables(images: dict, nuclei: dict, folder: Path) -> list[dict]:
    """Write counts.csv and measurements.csv; gives the rows of the first."""
    from nucleus_course.prediction.measurements import PROPERTIES, count_image, to_csv

    counts = [
        count_image(i.file_name, (i.height, i.width), nuclei[stem]) for stem, i in images.items()
    ]
    rows = [
        {"image": images[stem].file_name, **row} for stem, found in nuclei.items() for row in found
    ]
    for name, text in (
        ("counts.csv", to_csv(counts, list(counts[0]))),
        ("measurements.csv", to_csv(rows, ["image", *PROPERTIES])),
    ):
        write_atomically(
            folder / name, lambda place, text=text: place.write_text(text, encoding="utf-8")
        )
    return counts


def _table(counts: list[dict]):
    """The rows of counts.csv for a terminal."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("image", overflow="ellipsis", no_wrap=True)
    for name in ("size, px", "nuclei", "median area, px"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in counts:
        area = f"{row['median_area_px']:.0f}" if row["nuclei"] else "-"
        table.add_row(
            Text(row["image"]), f"{row['height']} x {row['width']}", str(row["nuclei"]), area
        )
    return table
