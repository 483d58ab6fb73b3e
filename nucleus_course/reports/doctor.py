"""What this machine has for the course, and what to do about what is missing.

    nucleus-course doctor

`find_bbbc038` is how the notebooks and the tests decide whether real images are at hand.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
DATA_VARIABLE = "NUCLEUS_COURSE_DATA"
# Places that may hold BBBC038, relative to the current folder, its parent and the checkout.
CANDIDATES = ("data/bbbc038", "bbbc038")
# At least these, or the demo and the notebooks get slow or fail.
ENOUGH_MEMORY_GB = 1.8
ENOUGH_DISK_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One line of the report: ``state`` is ok, note (works without) or mend (does not work without)."""

    section: str
    name: str
    value: str
    state: str = "ok"
    mend: str = ""


def find_bbbc038() -> Path | None:
    """A zip or folder with BBBC038's stage 1 training images, or None.

    Where the environment variable NUCLEUS_COURSE_DATA is set, it alone decides ("sample" asks for the
    embedded images, so gives None); otherwise the ``CANDIDATES`` are looked at in turn, then
    ``bbbc038`` in the folders beside the checkout, where several share one copy. A folder counts when it holds stage1_train.zip, stage1_train/, or image folders `<id>/images/`.
    """
    named = os.environ.get(DATA_VARIABLE, "").strip()
    if named:
        return None if named == "sample" else _as_bbbc038(Path(named).expanduser())
    bases, beside = [Path.cwd(), Path.cwd().parent], []
    if (CHECKOUT / "pyproject.toml").exists():
        bases.append(CHECKOUT)
        beside = sorted(CHECKOUT.parent.glob("*/bbbc038"))
    places = [*(base / candidate for base in bases for candidate in CANDIDATES), *beside]
    return next((found for found in map(_as_bbbc038, places) if found), None)


def _as_bbbc038(path: Path) -> Path | None:
    if path.is_file():
        return path.resolve() if path.suffix.lower() == ".zip" else None
    for inner in (path / "stage1_train.zip", path / "stage1_train"):
        if inner.exists():
            return inner.resolve()
    return path.resolve() if path.is_dir() and any(path.glob("*/images")) else None


def diagnose(backend: str | None = None) -> list[Finding]:
    """Every finding, the backend's included (loading it takes some seconds)."""
    from nucleus_course.backend import configured_backend

    return [*_machine(), *_packages(), *_backend(backend or configured_backend()), *_data()]


def _machine() -> list[Finding]:
    import psutil

    cores, limit = _cores()
    note = f"{cores} usable of {os.cpu_count()}" + (f", limited to {limit:g}" if limit else "")
    findings = [
        Finding(
            "machine",
            "system",
            f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        )
    ]
    capped = os.environ.get("OMP_NUM_THREADS") or os.environ.get("TF_NUM_INTRAOP_THREADS")
    if limit and limit < cores and not capped:
        mend = f"cap the threads: export OMP_NUM_THREADS={max(1, round(limit))} TF_NUM_INTRAOP_THREADS={max(1, round(limit))}"
        findings.append(Finding("machine", "cores", note, "note", mend))
    else:
        findings.append(Finding("machine", "cores", note))
    memory = psutil.virtual_memory()
    total, free = memory.total / 2**30, memory.available / 2**30
    ceiling = _memory_limit_gb()
    text = f"{free:.1f} GB free of {total:.1f} GB" + (
        f", limited to {ceiling:.1f} GB" if ceiling and ceiling < total else ""
    )
    usable = min(free, ceiling or free)
    if usable < ENOUGH_MEMORY_GB:
        findings.append(
            Finding(
                "machine",
                "memory",
                text,
                "note",
                "close other programs and other notebooks' kernels",
            )
        )
    else:
        findings.append(Finding("machine", "memory", text))
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    state, mend = (
        ("ok", "")
        if disk > ENOUGH_DISK_GB
        else ("note", "free some disk space: run folders and caches need about 1 GB")
    )
    findings.append(Finding("machine", "disk here", f"{disk:.1f} GB free", state, mend))
    return findings


def _cores() -> tuple[int, float | None]:
    """Cores this process may run on, and the container's share of them where one is set."""
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return usable, None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return usable, None


def _memory_limit_gb() -> float | None:
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        return None if text == "max" else int(text) / 2**30
    except (OSError, ValueError):
        return None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages() -> list[Finding]:
    from nucleus_course import __version__
    from nucleus_course.backend import explain_import

    findings = [Finding("packages", "nucleus_course", __version__)]
    for name in ("keras", "numpy", "scikit-image", "imaug", "pycocotools"):
        version = _version(name)
        if version:
            findings.append(Finding("packages", name, version))
        else:
            findings.append(
                Finding("packages", name, "not installed", "mend", f"pip install {name}")
            )
    try:
        findings.append(Finding("packages", "OpenCV", importlib.import_module("cv2").__version__))
    except ImportError as error:
        mend = explain_import(error) or "pip install opencv-python-headless"
        findings.append(Finding("packages", "OpenCV", "does not load", "mend", mend))
    jupyter = _version("jupyterlab")
    mend = "" if jupyter else 'for the notebooks: pip install "nucleus-course[course]"'
    findings.append(
        Finding(
            "packages", "jupyterlab", jupyter or "not installed", "ok" if jupyter else "note", mend
        )
    )
    return findings


def _backend(backend: str) -> list[Finding]:
    from nucleus_course._util.errors import UserError
    from nucleus_course.backend import BACKENDS, TITLES, devices, load_backend

    others = []
    for other in BACKENDS:
        version = _version(other) or (_version("tensorflow-cpu") if other == "tensorflow" else None)
        if version:
            others.append(f"{TITLES[other]} {version}")
    findings = [
        Finding("backend", "installed", ", ".join(others) or "none", "ok" if others else "mend")
    ]
    try:
        load_backend(backend)
        found = devices(backend)
    except UserError as error:
        return [*findings, Finding("backend", "in use", backend, "mend", str(error))]
    except (
        Exception
    ) as error:  # a broken installation can fail in any way; the report must still come out
        reason = str(error).strip().splitlines()
        mend = f"reinstall it: {reason[0] if reason else type(error).__name__}"
        return [
            *findings,
            Finding("backend", "in use", f"{TITLES[backend]} does not load", "mend", mend),
        ]
    findings.append(Finding("backend", "in use", f"{TITLES[backend]} (KERAS_BACKEND={backend})"))
    gpu = any(not d.lower().startswith("cpu") for d in found)
    if not gpu and shutil.which("nvidia-smi"):
        mend = 'there is an NVIDIA GPU: pip install "nucleus-course[gpu]", and --backend jax for training'
        findings.append(Finding("backend", "device", ", ".join(found), "note", mend))
    else:
        findings.append(Finding("backend", "device", ", ".join(found)))
    return findings


def _data() -> list[Finding]:
    from nucleus_course.data import load_dataset
    from nucleus_course.models.weights.folder import shipped_weights

    findings = []
    try:
        sample = load_dataset("sample", "all", progress=False)
        findings.append(Finding("data", "sample", f"{len(sample)} synthetic images, embedded"))
    except Exception as error:
        findings.append(
            Finding("data", "sample", "unreadable", "mend", f"reinstall nucleus_course: {error}")
        )
    found, named = find_bbbc038(), os.environ.get(DATA_VARIABLE, "").strip()
    if found:
        findings.append(Finding("data", "BBBC038", str(found)))
    elif named and named != "sample":
        mend = f"{DATA_VARIABLE} is set to '{named}', which holds no BBBC038 images: correct it or unset it"
        findings.append(Finding("data", "BBBC038", "not where it was said to be", "mend", mend))
    else:
        mend = f"for real nuclei: nucleus-course download (or set {DATA_VARIABLE} to your copy)"
        findings.append(Finding("data", "BBBC038", "not found; the sample stands in", "note", mend))
    weights = shipped_weights()
    if weights:
        findings.append(Finding("weights", "shipped", ", ".join(weights)))
    else:
        mend = "nucleus-course train --data DATA --run runs/mine makes some; use them as --weights runs/mine/weights"
        findings.append(Finding("weights", "shipped", "none here", "note", mend))
    return findings


def report(findings: list[Finding] | None = None, console=None) -> bool:
    """Print the findings as a table, then what to do; True where everything needed is there."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    findings = diagnose() if findings is None else findings
    console = console or Console(highlight=False, file=sys.stdout)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    styles = {"ok": "green", "note": "yellow", "mend": "bold red"}
    last = ""
    for f in findings:
        table.add_row(
            f.section if f.section != last else "",
            f.name,
            Text(f.state, style=styles[f.state]),
            Text(f.value),
        )
        last = f.section
    console.print(table)
    todo = [f for f in findings if f.mend]
    broken = any(f.state == "mend" for f in findings)
    if todo:
        console.print("\nWhat to do")
        for f in todo:
            console.print(Text(f"  {f.name}: {f.mend}"), soft_wrap=True)
    console.print(
        "\n"
        + (
            "Something needed is missing."
            if broken
            else "Ready: `nucleus-course demo` will run here."
        )
    )
    return not broken
