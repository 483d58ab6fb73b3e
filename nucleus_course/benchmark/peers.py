"""Other detectors for comparison: torchvision's Mask R-CNN and StarDist, with random weights, on the same image sizes."""

import numpy as np


def torchvision_mask_rcnn(side, detections, threads=None):
    """``maskrcnn_resnet50_fpn`` with two classes, at most ``detections`` detections, and pasted masks."""
    import torch

    note = register_operators()
    import torchvision

    from nucleus_course.benchmark.case import measure

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=side, max_size=side,
        box_score_thresh=0.0, box_nms_thresh=0.999, box_detections_per_img=detections,
    ).eval()  # fmt: skip
    image = torch.rand(3, side, side)
    found = []

    def run():
        with torch.inference_mode():
            found.append(len(model([image])[0]["scores"]))

    numbers = measure(run)
    return numbers | {"note": f"{found[-1]} detections; {note}"}


def register_operators():
    """Make sure that torchvision's operators exist; returns a note on which are used.

    Its GPU wheels do not load without CUDA. RoIAlign is then torch's ``grid_sample`` at the same points
    and NMS is OpenCV's; both are compiled code.
    """
    import torch

    try:
        import torchvision  # noqa: F401

        torch.ops.torchvision.nms  # noqa: B018
        return "its own operators"
    except (RuntimeError, AttributeError, ImportError, OSError):
        import sys

        for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    register_operators.library = library  # operators disappear with it
    for name in ("nms", "qnms"):  # torchvision needs both on import
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    library.impl("nms", nms, "CPU")
    library.impl("roi_align", roi_align, "CPU")
    import torchvision.extension

    torchvision.extension._has_ops = lambda: True
    return "CPU operators put in its own operators' place"


def nms(boxes, scores, iou_threshold):
    """Indices that greedy NMS keeps, by falling score: boxes (N, 4) x1, y1, x2, y2."""
    import cv2
    import torch

    if len(boxes) == 0:
        return torch.zeros(0, dtype=torch.int64)
    flat = boxes.detach().numpy().astype("float64")
    flat = np.concatenate([flat[:, :2], flat[:, 2:] - flat[:, :2]], axis=1)
    order = np.argsort(-scores.detach().numpy(), kind="stable")
    ranks = np.linspace(1.0, 0.5, len(order), dtype="float32")  # OpenCV drops scores of 0 and below
    kept = np.asarray(cv2.dnn.NMSBoxes(flat[order], ranks, 0.0, float(iou_threshold)), int).reshape(
        -1
    )
    return torch.from_numpy(order[kept].astype("int64"))


def roi_align(features, rois, spatial_scale, height, width, sampling_ratio, aligned):
    """RoIAlign as torchvision defines it: rois (N, 5) batch index, x1, y1, x2, y2."""
    import torch
    from torch.nn import functional

    samples = max(1, sampling_ratio)
    boxes = rois[:, 1:] * spatial_scale - (0.5 if aligned else 0.0)
    size = boxes[:, 2:] - boxes[:, :2]
    size = size if aligned else size.clamp(min=1.0)

    def points(low, extent, bins, cells):
        steps = (torch.arange(bins * samples, dtype=boxes.dtype) + 0.5) / (bins * samples)
        position = (low[:, None] + extent[:, None] * steps).clamp(0, cells - 1)
        return (2 * position + 1) / cells - 1  # grid_sample's units, (N, bins * samples)

    out = features.new_empty((len(rois), features.shape[1], height, width))
    for index in range(len(features)):
        own = torch.nonzero(rois[:, 0] == index)[:, 0]
        if len(own) == 0:
            continue
        y = points(boxes[own, 1], size[own, 1], height, features.shape[2])
        x = points(boxes[own, 0], size[own, 0], width, features.shape[3])
        grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)
        grid = grid.reshape(1, -1, grid.shape[2], 2)  # all boxes stacked vertically
        crops = functional.grid_sample(
            features[index : index + 1], grid, padding_mode="border", align_corners=False
        )
        crops = crops.reshape(features.shape[1], len(own) * height, samples, width, samples).mean(
            dim=(2, 4)
        )
        out[own] = crops.reshape(features.shape[1], len(own), height, width).transpose(0, 1)
    return out


def stardist_2d(side, detections, threads=None):
    """StarDist's default 2D model: its network, then its NMS and drawing for exactly ``detections`` polygons."""
    from stardist.geometry import polygons_to_label
    from stardist.models import Config2D, StarDist2D
    from stardist.nms import non_maximum_suppression

    from nucleus_course.benchmark.case import measure, set_threads

    set_threads(threads)
    model = StarDist2D(Config2D(n_rays=32, n_channel_in=1), name=None, basedir=None)
    image = np.random.default_rng(0).random((side, side), "float32")
    probability, distances = fixed_stars(detections, side)
    found = []

    def run():
        model.predict(image, show_tile_progress=False)
        points, scores, rays = non_maximum_suppression(
            distances, probability, prob_thresh=0.5, nms_thresh=0.4
        )
        polygons_to_label(rays, points, image.shape, prob=scores)
        found.append(len(points))

    numbers = measure(run)
    if set(found) != {detections}:
        raise RuntimeError(f"{set(found)} polygons instead of {detections}")
    return numbers


def fixed_stars(count, side, rays=32):
    """An output of StarDist's network of which its NMS keeps exactly ``count``.

    Random weights see an object in every pixel. Here each of ``count`` cells of a grid has nine sure pixels.

    Returns:
        probability (side, side) float32, distances (side, side, rays) float32, pixels.
    """
    across = int(np.ceil(np.sqrt(count)))
    step = side / across
    centres = ((np.stack(np.divmod(np.arange(count), across), axis=1) + 0.5) * step).astype(int)
    probability = np.zeros((side, side), "float32")
    for rank, (y, x) in enumerate(centres):
        probability[y - 1 : y + 2, x - 1 : x + 2] = 0.9 - 0.3 * rank / count
    return probability, np.full((side, side, rays), min(0.4 * step, 24.0), "float32")


PEERS = {"torchvision": torchvision_mask_rcnn, "stardist": stardist_2d}
