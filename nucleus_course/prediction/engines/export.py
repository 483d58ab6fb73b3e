"""Export a model for other runtimes: as ONNX, or in OpenVINO's own format."""

import os
from dataclasses import asdict
from pathlib import Path

from nucleus_course._util.errors import UserError
from nucleus_course._util.files import write_file, write_json
from nucleus_course.config import to_dict
from nucleus_course.prediction import rescorer as rescoring
from nucleus_course.prediction.engines import need

FORMATS = ("onnx", "openvino")
GRAPHS = ("detector", "masks")


def export_model(model, folder, format="onnx", size=512):
    """Write ``detector`` and ``masks`` for images of one size, float32, and ``export.json``, which describes them.

    ``detector``: image (1, size, size, 3) from :func:`nucleus_course.data.preprocess.to_network`, window
    (1, 2) float32 height and width without padding -> p2..p5, boxes (P, 4) by falling score, scores (P,), before
    the final NMS. ``masks``: p2..p5 and the boxes (M, 4) that NMS kept -> masks (M, S, S). If the model has a
    rescorer, its ``rescoring.json`` is written too, because the score threshold applies to its scores.

    Args:
        model: :class:`~nucleus_course.prediction.segmenter.MaskRCNN` on any backend.
        folder: created if missing.
        format: ``onnx`` (.onnx) or ``openvino`` (.xml and .bin).
        size: side of the input in network pixels, which are image pixels times the preset's ``upsample``.

    Returns:
        Paths of the files written.

    Raises:
        UserError: unknown format, unsuitable size, missing packages, or not a Mask R-CNN.
    """
    from nucleus_course.prediction.engines.onnx_model import MaskRCNNWriter, require_mask_rcnn

    if format not in FORMATS:
        raise UserError(f"unknown format '{format}': choose one of {', '.join(FORMATS)}")
    require_mask_rcnn(model)
    multiple = model.config.pad_multiple
    if size <= 0 or size % multiple:
        near = max(1, round(size / multiple)) * multiple
        raise UserError(f"--size {size} is not a multiple of {multiple}: try {near}")
    for package in ("onnx",) + (("openvino",) if format == "openvino" else ()):
        need(package)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    writer = MaskRCNNWriter(model, size, size)
    files = []
    for name in GRAPHS:
        proto = getattr(writer, name)()
        files += (_save_onnx if format == "onnx" else _save_openvino)(proto, folder, name)
    if model.rescorer is not None:
        model.rescorer.save(folder)
        files.append(folder / rescoring.FILE)
    files.append(folder / "export.json")
    write_json(files[-1], description(model, format, size))
    return files


def description(model, format, size):
    """What a program needs to use the files: inputs, outputs, preprocessing, thresholds."""
    from nucleus_course import __version__

    return {
        "software": f"nucleus_course {__version__}",
        "format": format,
        "size": size,
        "detector": {
            "inputs": ["image", "window"],
            "outputs": ["p2", "p3", "p4", "p5", "boxes", "scores"],
        },
        "masks": {"inputs": ["p2", "p3", "p4", "p5", "boxes"], "outputs": ["masks"]},
        "boxes": "float32 (y1, x1, y2, x2), pixels of the input",
        "between": "drop low scores, then greedy NMS at thresholds.nms_iou",
        "scores": _scores(model),
        "thresholds": asdict(model.thresholds),
        "model": to_dict(model.config),
    }


def _scores(model):
    """How the detector's scores become those to which ``thresholds.score`` applies."""
    if model.rescorer is not None:
        call = "nucleus_course.prediction.rescorer.Rescorer.load(folder)(boxes, scores, masks)"
        return f"after the masks: {call}, from {rescoring.FILE}, with NumPy alone"
    if model.config.mask_scoring:
        return "times the mean of each mask's cells at 0.5 or more"
    return "as they are"


def _save_onnx(proto, folder, name):
    write_file(folder / f"{name}.onnx", proto.SerializeToString())
    return [folder / f"{name}.onnx"]


def _save_openvino(proto, folder, name):
    openvino = need("openvino")
    graph = openvino.Core().read_model(proto.SerializeToString())
    openvino.save_model(graph, folder / f"{name}.partial.xml", compress_to_fp16=False)
    files = []
    for suffix in (".bin", ".xml"):
        files.append(folder / f"{name}{suffix}")
        os.replace(folder / f"{name}.partial{suffix}", files[-1])
    return files
