"""`nucleus-course export`: a model as ONNX or OpenVINO files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucleus_course.backend import load_backend
from nucleus_course.cli import common


@common.friendly
def export(
    weights: Annotated[
        str,
        typer.Option(
            "--weights", metavar="W", help="A name that ships, a model folder or a weights file."
        ),
    ] = "compact",
    format: Annotated[str, typer.Option(metavar="FORMAT", help="onnx or openvino.")] = "onnx",
    size: Annotated[
        int,
        typer.Option(
            "--size",
            metavar="PIXELS",
            min=32,
            help="Side of the network's input; paper-… presets double images first.",
        ),
    ] = 512,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder for the files.")] = Path(
        "exported"
    ),
    preset: common.BarePreset = None,
    backend: common.Backend = None,
) -> None:
    """Write a model for other runtimes: static shapes, float32, from any backend.

    \b
    Example
      nucleus-course export --weights compact --format onnx --size 512

    \b
    Writes to DIR
      detector.onnx    image -> pyramid, boxes, scores (openvino: .xml, .bin)
      masks.onnx       pyramid, boxes -> masks, for any number of boxes
      export.json      inputs, outputs, preprocessing, scores and thresholds
      rescoring.json   what makes the scores of them, where the model has it

    `nucleus-course predict --runtime openvino` needs no export. Packages: pip install openvino onnx
    """
    load_backend(backend)
    from nucleus_course.prediction.engines.export import export_model

    model = common.open_model(weights, preset)
    for file in export_model(model, common.output_folder(out), format, size):
        common.say(f"written: {file} ({file.stat().st_size / 1e6:.1f} MB)")
