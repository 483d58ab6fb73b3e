"""Which backend Keras will load, what to do if it cannot, and loading it quietly.

Importing this module loads none."""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import json
import logging
import os
import sys
import tempfile
from pathlib import Path

from nucleus_course._util.errors import UserError

BACKENDS = ("tensorflow", "jax", "torch")
TITLES = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch", "keras": "Keras"}

# Distributions with another name than their module.
DISTRIBUTIONS = {
    "imgaug": "imaug", "cv2": "opencv-python-headless", "skimage": "scikit-image", "PIL": "pillow", "yaml": "pyyaml",
}  # fmt: skip


def explain_import(error: ImportError) -> str | None:
    """One line on what to do about a failed import; None if it looks like a bug of this package."""
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").split(".")[0]
        if not name or name == "nucleus_course":
            return None
        if name in TITLES:
            return missing_backend(name)
        return f"the package '{name}' is not installed: pip install {DISTRIBUTIONS.get(name, name)}"
    if "libGL" in str(error) or "libgthread" in str(error):
        return (
            "OpenCV needs libGL, which this machine lacks: "
            'pip install --force-reinstall --no-deps "opencv-python-headless<4.13"'
        )
    return None


def missing_backend(name: str) -> str:
    """What to do if the backend's package is not installed."""
    remedy = {
        "tensorflow": "pip install tensorflow (tensorflow-cpu is smaller, without GPU)",
        "jax": "pip install jax (jax[cuda12] for an NVIDIA GPU)",
        "torch": "pip install torch",
        "keras": "pip install keras",
    }[name]
    others = [b for b in BACKENDS if b != name and _installed(b)]
    choice = f", or use --backend {others[0]}" if others and name != "keras" else ""
    return f"{TITLES[name]} is not installed: {remedy}{choice}"


def configured_backend() -> str:
    """The backend Keras will load: KERAS_BACKEND, else its configuration file, else TensorFlow."""
    named = os.environ.get("KERAS_BACKEND")
    if named:
        return named
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return json.loads((home / "keras.json").read_text()).get("backend", "tensorflow")
    except (OSError, ValueError, AttributeError):
        return "tensorflow"


def use_backend(name: str | None) -> str:
    """Set the backend before anything loads Keras, and check that it is installed.

    Raises:
        UserError: an unknown backend, one that is not installed, or another than this process has
            loaded already.
    """
    backend = name or configured_backend()
    if backend not in BACKENDS:
        source = "--backend" if name else "KERAS_BACKEND"
        raise UserError(
            f"unknown backend '{backend}' ({source}): choose one of {', '.join(BACKENDS)}"
        )
    loaded = sys.modules.get("keras")
    if loaded is not None and loaded.backend.backend() != backend:
        raise UserError(
            f"Keras runs on {loaded.backend.backend()} in this process: set KERAS_BACKEND={backend} before"
        )
    for package in ("keras", backend):
        if not _installed(package):
            raise UserError(missing_backend(package))
    os.environ["KERAS_BACKEND"] = backend
    # TensorFlow's errors are Python exceptions; its log is not needed.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns about many image sizes
    return backend


def load_backend(name: str | None) -> str:
    """Set the backend with :func:`use_backend`, and import it and Keras quietly.

    TensorFlow writes to the process's standard error before its log level takes effect, so that stream is
    redirected during the import, and printed if the import fails. JAX, if it is installed, is not loaded with it.
    """
    backend = use_backend(name)
    if backend != "tensorflow" or "tensorflow" in sys.modules:
        importlib.import_module("keras")
        return backend
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            with _without_jax():
                importlib.import_module("keras")
        except BaseException:
            aside.seek(0)
            os.write(stderr, aside.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
    return backend


@contextlib.contextmanager
def _without_jax():
    """TensorFlow imports JAX for a converter that is not used here: 0.15 GB and half a second."""
    if "jax" in sys.modules:
        yield
        return
    # An import of it now raises ImportError, which TensorFlow expects.
    sys.modules["jax"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop("jax", None)


def devices(backend: str) -> list[str]:
    """The backend's devices, e.g. ["cpu"] or ["gpu: NVIDIA …"]. Loads the backend."""
    module = importlib.import_module(backend)
    if backend == "tensorflow":
        gpus = module.config.list_physical_devices("GPU")
        names = [
            module.config.experimental.get_device_details(g).get("device_name", g.name)
            for g in gpus
        ]
        return [f"gpu: {name}" for name in names] or ["cpu"]
    if backend == "jax":
        return [
            d.platform if d.platform == "cpu" else f"{d.platform}: {d.device_kind}"
            for d in module.devices()
        ]
    if module.cuda.is_available():
        return [f"gpu: {module.cuda.get_device_name(i)}" for i in range(module.cuda.device_count())]
    return ["cpu"]


def has_bfloat16(backend: str) -> bool:
    """Whether the backend's device has native bfloat16. If emulated, it is slower than float32."""
    return devices(backend) != ["cpu"] or cpu_has_bfloat16()


def cpu_has_bfloat16() -> bool:
    """Whether the processor has bfloat16 instructions, according to Linux; loads no backend."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Python or a backend ran out of memory; each backend has its own exception."""
    text = f"{type(error).__name__} {error}"
    signs = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "OutOfMemory", "out of memory", "OOM when")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


def _installed(package: str) -> bool:
    if sys.modules.get(package) is not None:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def explain(error: BaseException) -> str | None:
    """One line for an error of the machine that a user can correct; None if it looks like a bug."""
    if isinstance(error, MemoryError):
        return "out of memory: close other programs, or try fewer or smaller images (train: --batch-size, --crop)"
    if isinstance(error, ImportError):
        return explain_import(error)
    if not isinstance(error, OSError):
        return None
    where = f" ({error.filename})" if getattr(error, "filename", None) else ""
    if is_full_disk(error):
        return f"the disk is full{where}: free some space or write to another folder; finished files are intact"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission{where}: choose another folder, or change its rights"
    if error.errno is not None and where:
        return f"{error.strerror or error}{where}"
    return None


def is_full_disk(error: BaseException) -> bool:
    """Whether the disk or a quota is full. HDF5 gives the reason only as text."""
    number = getattr(error, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)


def fastest_dtype(runtime: str) -> str:
    """mixed_bfloat16 if it makes Keras faster: on GPUs, and with TensorFlow on CPUs with native bfloat16."""
    import keras

    backend = keras.backend.backend()
    native = has_bfloat16(backend) and (backend == "tensorflow" or devices(backend) != ["cpu"])
    return "mixed_bfloat16" if runtime == "keras" and native else "float32"
