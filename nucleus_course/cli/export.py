"""`nucleus-course export`: a model as ONNX or OpenVINO files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nucleus_course.backend import load_backend
from nucleus_course.cli import common


@common.friendly
def export(
    weights: str = "compact",
    format: str = "onnx",
    size: Annotated[int, typer.Option(min=32)] = 512,
    out: Path = Path("exported"),
    preset: str | None = None,
    backend: str | None = None,
) -> None:
    """Write a model as ONNX or OpenVINO files: fixed shapes, float32, from any backend.

    \b
    Example
      nucleus-course export --weights compact --format onnx --size 512

    \b
    Writes to DIR
      detector.onnx    image -> pyramid, boxes, scores (openvino: .xml, .bin)
      masks.onnx       pyramid, boxes -> masks, for any number of boxes
      export.json      inputs, outputs, preprocessing, scores and thresholds
      rescoring.json   the networks that correct the scores, if the model has them

    `nucleus-course predict --runtime openvino` needs no export. The packages: pip install openvino onnx

    Args:
        weights (W): A shipped name, a model folder or a weights file.
        format (FORMAT): onnx or openvino.
        size (PIXELS): Side of the network's input. The paper-… presets double images first: 512 fits images of 256.
        out (DIR): The folder for the files.
    """
    load_backend(backend)
    from nucleus_course.prediction.engines.export import export_model

    model = common.open_model(weights, preset)
    for file in export_model(model, common.output_folder(out), format, size):
        common.say(f"written: {file} ({file.stat().st_size / 1e6:.1f} MB)")
