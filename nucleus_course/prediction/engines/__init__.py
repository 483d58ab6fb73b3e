"""Ways to run a trained network: fast on the Keras backend, on OpenVINO, or exported to ONNX.

An engine has ``candidates(prepared)`` and ``masks(pyramid, boxes, prepared)``; see
:class:`~nucleus_course.prediction.engines.keras_fast.KerasEngine`. The packages ``onnx`` and
``openvino`` come with ``pip install "nucleus-course[openvino]"``.
"""


def need(package):
    """Import an optional package by name.

    Raises:
        UserError: it is not installed; the message says how to install it.
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
