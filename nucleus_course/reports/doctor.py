"""`nucleus-course doctor`: what this machine has for the course, and what to do about what is missing.

`find_bbbc038` tells notebooks and tests whether the real images are available.
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

from nucleus_course._util.cores import usable_cores
from nucleus_course._util.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[2]
DATA_VARIABLE = "NUCLEUS_COURSE_DATA"
# Places that may hold BBBC038, relative to the current folder, its parent and the checkout.
CANDIDATES = ("data/bbbc038", "bbbc038")
# With less, the demo and the notebooks get slow or fail.
ENOUGH_MEMORY_GB = 1.8
ENOUGH_DISK_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        section, name, value: what was checked, and the result.
        state: ok, note (works all the same) or missing (does not work).
        advice: what to do about it.
    """

    section: str
    name: str
    value: str
    state: str = "ok"
    advice: str = ""


def find_bbbc038() -> Path | None:
    """A zip or folder with BBBC038's stage 1 training images, or None.

    If the environment variable NUCLEUS_COURSE_DATA is set, it alone decides ("sample" means the embedded
    images and gives None). Otherwise the ``CANDIDATES`` are tried in turn, then ``bbbc038`` in the folders
    beside the checkout. A folder counts if it holds stage1_train.zip, stage1_train/, or image folders
    `<id>/images/`.
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


def _noted(section, name, value, advice, fine=False):
    """A finding with a note and advice, unless it is ``fine``."""
    return Finding(section, name, value, *(() if fine else ("note", advice)))


def _machine() -> list[Finding]:
    import psutil

    cores, limit = usable_cores(), _cpu_share()
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    found = f"{cores} usable of {os.cpu_count()}" + (f", limited to {limit:g}" if limit else "")
    capped = os.environ.get("OMP_NUM_THREADS") or os.environ.get("TF_NUM_INTRAOP_THREADS")
    count = max(1, round(limit or cores))
    threads = f"cap the threads: export OMP_NUM_THREADS={count} TF_NUM_INTRAOP_THREADS={count}"
    memory = psutil.virtual_memory()
    total, free, ceiling = memory.total / 2**30, memory.available / 2**30, _memory_limit_gb()
    limited = f", limited to {ceiling:.1f} GB" if ceiling and ceiling < total else ""
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    room = f"{free:.1f} GB free of {total:.1f} GB{limited}"
    space = f"free some disk space: run folders and caches need about {ENOUGH_DISK_GB:g} GB"
    enough = min(free, ceiling or free) >= ENOUGH_MEMORY_GB
    others = "close other programs and other notebooks' kernels"
    return [
        Finding("machine", "system", system),
        _noted("machine", "cores", found, threads, not limit or limit >= cores or bool(capped)),
        _noted("machine", "memory", room, others, enough),
        _noted("machine", "disk here", f"{disk:.1f} GB free", space, disk > ENOUGH_DISK_GB),
    ]


def _limit(name: str) -> list[int]:
    """The numbers of a container's limit; empty without a limit or a container."""
    try:
        return [int(n) for n in Path(f"/sys/fs/cgroup/{name}").read_text().split()]
    except (OSError, ValueError):  # "max"
        return []


def _cpu_share() -> float | None:
    """The container's share of the cores, if one is set."""
    limit = _limit("cpu.max")
    return limit[0] / limit[1] if len(limit) == 2 else None


def _memory_limit_gb() -> float | None:
    limit = _limit("memory.max")
    return limit[0] / 2**30 if limit else None


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
        absent = (name, "not installed", "missing", f"pip install {name}")
        findings.append(Finding("packages", *((name, version) if version else absent)))
    try:
        findings.append(Finding("packages", "OpenCV", importlib.import_module("cv2").__version__))
    except ImportError as error:
        advice = explain_import(error) or "pip install opencv-python-headless"
        findings.append(Finding("packages", "OpenCV", "does not load", "missing", advice))
    jupyter = _version("jupyterlab")
    advice = 'for the notebooks: pip install "nucleus-course[course]"'
    value = jupyter or "not installed"
    return [*findings, _noted("packages", "jupyterlab", value, advice, bool(jupyter))]


def _backend(backend: str) -> list[Finding]:
    from nucleus_course.backend import BACKENDS, TITLES, devices, load_backend

    others = []
    for other in BACKENDS:
        version = _version(other) or (_version("tensorflow-cpu") if other == "tensorflow" else None)
        if version:
            others.append(f"{TITLES[other]} {version}")
    state = "ok" if others else "missing"
    installed = Finding("backend", "installed", ", ".join(others) or "none", state)
    try:
        load_backend(backend)
        found = devices(backend)
    except UserError as error:
        return [installed, Finding("backend", "in use", backend, "missing", str(error))]
    except Exception as error:  # a broken installation may fail in any way
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        broken = f"{TITLES[backend]} does not load"
        advice = f"reinstall it: {reason}"
        return [installed, Finding("backend", "in use", broken, "missing", advice)]
    gpu = any(not d.lower().startswith("cpu") for d in found)
    fine = gpu or not shutil.which("nvidia-smi")
    install = 'pip install "nucleus-course[gpu]", and --backend jax for training'
    return [
        installed,
        Finding("backend", "in use", f"{TITLES[backend]} (KERAS_BACKEND={backend})"),
        _noted("backend", "device", ", ".join(found), f"there is an NVIDIA GPU: {install}", fine),
    ]


def _data() -> list[Finding]:
    from nucleus_course.data import load_dataset
    from nucleus_course.models.weights.folder import shipped_weights

    try:
        sample = load_dataset("sample", "all", progress=False)
        findings = [Finding("data", "sample", f"{len(sample)} synthetic images, embedded")]
    except Exception as error:
        advice = f"reinstall nucleus_course: {error}"
        findings = [Finding("data", "sample", "unreadable", "missing", advice)]
    found, named = find_bbbc038(), os.environ.get(DATA_VARIABLE, "").strip()
    if found or named in ("", "sample"):
        advice = f"for real nuclei: nucleus-course download (or set {DATA_VARIABLE} to your copy)"
        value = str(found or "not found; the sample stands in")
        findings.append(_noted("data", "BBBC038", value, advice, bool(found)))
    else:
        advice = f"{DATA_VARIABLE} is set to '{named}', which holds no BBBC038 images: correct it or unset it"
        findings.append(Finding("data", "BBBC038", "not where it should be", "missing", advice))
    weights = shipped_weights()
    advice = "nucleus-course train --data DATA --run runs/mine makes some; use them as --weights runs/mine/weights"
    names = ", ".join(weights) or "none here"
    return [*findings, _noted("weights", "shipped", names, advice, bool(weights))]


def report(findings: list[Finding] | None = None, console=None) -> bool:
    """Print the findings as a table, then what to do; True if everything needed is there."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    findings = diagnose() if findings is None else findings
    console = console or Console(highlight=False, file=sys.stdout)
    table = Table(box=None, pad_edge=False, show_header=False)
    for look in ({"style": "bold"}, {}, {}):
        table.add_column(no_wrap=True, **look)
    table.add_column(overflow="fold")
    styles = {"ok": "green", "note": "yellow", "missing": "bold red"}
    last = ""
    for f in findings:
        state = Text(f.state, style=styles[f.state])
        table.add_row(f.section if f.section != last else "", f.name, state, Text(f.value))
        last = f.section
    console.print(table)
    advice = [f"  {f.name}: {f.advice}" for f in findings if f.advice]
    if advice:
        console.print("\nWhat to do")
        console.print(Text("\n".join(advice)), soft_wrap=True)
    broken = any(f.state == "missing" for f in findings)
    ready = "Ready: `nucleus-course demo` will run here."
    console.print("\n" + ("Something needed is missing." if broken else ready))
    return not broken
