"""Predictions on whole data sets, encoded image by image to save memory."""

import dataclasses

from nucleus_course._util.progress import track
from nucleus_course.prediction import flips
from nucleus_course.prediction.interchange import ImagePredictions, Predictions
from nucleus_course.prediction.pipeline import assemble, prepare, select


def predict_dataset(model, dataset, *, progress=True, **options):
    """Detections on every image of a data set.

    Args:
        model: :class:`~nucleus_course.prediction.segmenter.Segmenter`.
        dataset: :class:`~nucleus_course.data.Dataset`.
        options: for :meth:`~nucleus_course.prediction.segmenter.Segmenter.predict`.

    Returns:
        :class:`~nucleus_course.prediction.interchange.Predictions`; ``info["resized"]`` is the number of images
        that the network saw at another size.
    """
    found, resized = {}, 0
    for record in track(dataset, "predicting", show=progress):
        one = model.predict(record.raw, **options)
        resized += getattr(one, "scale", 1.0) != 1.0
        found[record.id] = image_predictions(one)
    predictions = _predictions(model, found)
    predictions.info["resized"] = resized
    return predictions


def predict_variants(model, dataset, nms_ious, mask_thresholds, *, progress=True):
    """Predictions of a Mask R-CNN at every pair of NMS IoU and mask threshold; the network runs once.

    Returns:
        {(nms_iou, mask_threshold): :class:`~nucleus_course.prediction.interchange.Predictions`}.
    """
    config = model.config
    if model.rescorer is not None:
        model.rescorer.check_flips(model.thresholds.flips)
    images = {(n, m): {} for n in nms_ious for m in mask_thresholds}
    for record in track(dataset, "predicting", show=progress):
        prepared = prepare(record.raw, config, flips.VIEWS[: model.thresholds.flips])
        pyramid, boxes, scores = model.engine.candidates(prepared)
        for nms_iou in nms_ious:
            kept = select(boxes, scores, nms_iou, config.max_detections)
            probs = model.engine.masks(pyramid, kept[0], prepared)
            for mask in mask_thresholds:
                thresholds = dataclasses.replace(model.thresholds, nms_iou=nms_iou, mask=mask)
                found = assemble(config, prepared.shape, *kept, probs, thresholds, model.rescorer)
                images[nms_iou, mask][record.id] = image_predictions(found)
    return {key: _predictions(model, found) for key, found in images.items()}


def image_predictions(found):
    """:class:`~nucleus_course.prediction.detections.Detections` as interchange's ImagePredictions."""
    size = found.height, found.width
    return ImagePredictions(*size, found.rles(), found.scores, found.boxes)


def _predictions(model, images):
    info = {"model": model.config.name, "min_area": model.thresholds.min_area}
    return Predictions(images=images, score_threshold=model.thresholds.score, info=info)
