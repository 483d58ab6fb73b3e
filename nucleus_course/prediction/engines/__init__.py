"""Other ways to run a trained model: ONNX files, and OpenVINO for CPUs.

Nothing here is imported by training or by Keras' own prediction; the packages ``onnx`` and ``openvino``
come with ``pip install "nucleus-course[openvino]"``.
"""

RUNTIMES = ("keras", "openvino")


def use_runtime(model, name, **options):
    """Make ``model.predict`` run on a runtime; the model is changed in place and returned.

    Args:
        model: :class:`~nucleus_course.models.MaskRCNN`.
        name: ``keras`` (the backend that is loaded) or ``openvino``.
        options: for :class:`~nucleus_course.prediction.engines.openvino.OpenVINOPredictor`.

    Raises:
        UserError: an unknown runtime, one that is not installed, or a model it cannot run.
    """
    from nucleus_course._util.errors import UserError

    if name not in RUNTIMES:
        raise UserError(f"unknown runtime '{name}': choose one of {', '.join(RUNTIMES)}")
    if name == "keras":
        if getattr(model, "_predictor", None) is not None:
            object.__setattr__(model, "_predictor", None)  # made again on the next prediction
        return model
    from nucleus_course.prediction.engines.openvino import OpenVINOPredictor

    object.__setattr__(model, "_predictor", OpenVINOPredictor(model, **options))
    return model


def need(package):
    """Import an optional package by name.

    Raises:
        UserError: it is not installed; the message says how to.
    """
    import importlib

    from nucleus_course._util.errors import UserError

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == package:
            raise UserError(
                f"the package '{package}' is not installed: pip install openvino onnx"
            ) from None
        raise
