"""The list of cases, running each in its own process, and the table of results."""

import json
import os
import platform
import subprocess
import sys
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from nucleus_course._util.cores import usable_cores
from nucleus_course._util.errors import UserError
from nucleus_course._util.files import write_json
from nucleus_course.backend import cpu_has_bfloat16

KINDS = ("machine", "predict", "startup", "train", "input", "decode", "evaluate", "slide", "tasks")
PACKAGES = (
    "keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "torchvision", "openvino", "numpy", "stardist",
)  # fmt: skip
SIDES = (256, 512, 1024)  # network pixels
COUNTS = (30, 400)  # detections
TIMEOUT = 1800  # seconds for one case


def runtimes():
    """Runtimes to measure, by name, and those that are not installed: ["keras", …], [("openvino", "…"), …]."""
    there, missing = ["keras"], []
    if cpu_has_bfloat16():
        there.append("keras bfloat16")
    lacking = [p for p in ("openvino", "onnx") if find_spec(p) is None]
    if lacking:
        missing.append(("openvino", f"not installed: pip install {' '.join(lacking)}"))
    else:
        there += ["openvino", "openvino float32"]
    for peer, package in (("torchvision", "torchvision"), ("stardist", "stardist")):
        if find_spec(package) is None:
            missing.append((peer, f"not installed: pip install {package}"))
        else:
            there.append(peer)
    return there, missing


def list_cases(quick=False, only=None, data="sample"):
    """The cases as dicts with a ``kind`` and its arguments; those that cannot run have the reason in ``skip``.

    Raises:
        UserError: an unknown kind in ``only``.
    """
    wanted = tuple(k.strip() for k in only.split(",") if k.strip()) if only else KINDS
    unknown = [k for k in wanted if k not in KINDS]
    if unknown:
        raise UserError(f"unknown kind '{unknown[0]}' in --only: choose from {', '.join(KINDS)}")
    cases = [{"kind": "machine"}] + _predict_cases(quick)
    cases.append({"kind": "startup", "preset": "compact"})
    training = {"kind": "train", "data": data}
    cases.append(training | {"preset": "compact", "steps": 4 if quick else 20})
    if not quick:
        cases.append(training | {"preset": "paper-resnet50", "steps": 3, "batch": 1})
    source = {"kind": "input", "batches": 5 if quick else 30, "data": data}
    for preset in ("compact",) if quick else ("compact", "paper-resnet50"):
        cases.append(source | {"preset": preset})
    cases.append({"kind": "decode", "data": data})
    images, detections = (10, 450) if quick else (67, 3000)
    cases.append({"kind": "evaluate", "images": images, "detections": detections})
    for megapixels in (1,) if quick else (1, 4, 16, 64):
        # At its own size: what a first look finds would change the work, not the number of pixels.
        cases.append({"kind": "slide", "megapixels": megapixels, "data": data, "diameter": "none"})
    tasks = {"kind": "tasks", "files": 100 if quick else 10_000}
    if find_spec("distributed") is None:
        tasks["skip"] = "not installed: pip install distributed"
    cases.append(tasks)
    return [case for case in cases if case["kind"] in wanted]


def _predict_cases(quick):
    there, missing = runtimes()
    rows = []
    if quick:
        sides, counts, presets = (256,), (30,), ("compact",)
        there = [r for r in there if r in ("keras", "openvino")]
    else:
        sides, counts, presets = SIDES, COUNTS, ("compact", "paper-resnet50")
    for side in sides:
        for runtime in there:
            names = ("",) if runtime in ("torchvision", "stardist") else presets
            case = {"kind": "predict", "runtime": runtime, "side": side}
            rows += [case | {"preset": p, "detections": n} for p in names for n in counts]
    skipped = {"kind": "predict", "preset": ""}
    return rows + [skipped | {"runtime": name, "skip": reason} for name, reason in missing]


def run_case(case, threads=None, timeout=TIMEOUT):
    """Run one case in its own process: returns the case with its numbers, or with ``error``, one line."""
    if "skip" in case:
        return dict(case)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OPENVINO_TELEMETRY": "0"}
    if threads:
        environment.update(OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
    words = [sys.executable, "-m", "nucleus_course.benchmark.case"]
    words.append(json.dumps({**case, "threads": threads}))
    options = {"env": environment, "capture_output": True, "text": True, "timeout": timeout}
    try:
        done = subprocess.run(words, **options)
    except subprocess.TimeoutExpired:
        return {**case, "error": f"took longer than {timeout} s"}
    if done.returncode:
        lines = [f"exit code {done.returncode}", *done.stderr.splitlines()]
        return {**case, "error": [line for line in lines if line.strip()][-1][:300]}
    return {**case, **json.loads(done.stdout.splitlines()[-1])}


def machine():
    """This machine: processor, cores, memory, versions."""
    import psutil

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "versions": versions,
    }


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        named = (line for line in lines if line.startswith("model name"))
        return next(named).split(":", 1)[1].strip()
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def run_benchmark(
    out="benchmark.json", *, quick=False, only=None, data="sample", threads=None, console=None
):
    """Run the cases, print the table and write it.

    Args:
        out: JSON file, written after each case: ``machine``, ``quick``, ``seconds``, ``cases`` (each with its
            arguments and numbers).
        quick: fewer and smaller cases, about a minute in all.
        only: kinds to run, separated by commas; all by default.
        data: data set for the input and decode cases.
        threads: CPU threads for every case.

    Returns:
        The dict that is written.

    Raises:
        UserError: an unknown kind, or ``out`` in a folder that does not exist.
    """
    from rich.console import Console

    out = Path(out)
    if not out.parent.is_dir() or out.is_dir():
        raise UserError(f"--out {out}: name a file in a folder that exists")
    console = console or Console(highlight=False)
    cases = list_cases(quick, only, data)
    here = machine()
    if here["load"] is not None and here["load"] > 0.5 * here["cores"]:
        busy = f"This machine is busy (load {here['load']}): times will be too long."
        console.print(f"[bold]{busy}[/bold]")
    report = {"machine": here, "quick": quick, "threads": threads, "seconds": 0.0, "cases": []}
    start = time.perf_counter()
    for number, case in enumerate(cases, start=1):
        with console.status(f"{describe(case)} ({number} of {len(cases)})"):
            report["cases"].append(run_case(case, threads))
        report["seconds"] = round(time.perf_counter() - start, 1)
        write_json(out, report)  # after each case: an interruption costs no finished ones
    console.print(table(report))
    console.print(f"written: {out}")
    return report


def describe(case):
    """A case in a few words."""
    words = [case["kind"], case.get("preset"), case.get("runtime")]
    words += [f"{case[name]} {name}" for name in ("megapixels", "files") if name in case]
    if "side" in case:
        words.append(f"{case['side']}x{case['side']}, {case['detections']} detections")
    return " ".join(w for w in words if w)


def table(report):
    """The rich table of a report."""
    from rich.table import Table

    here = report["machine"]
    title = f"{here['processor']}, {here['cores']} cores, {here['backend']}"
    table = Table(title=title, title_justify="left")
    table.add_column("case")
    for column in ("ms", "CPU ms", "peak MB"):
        table.add_column(column, justify="right")
    table.add_column("")
    for case in report["cases"]:
        note = case.get("error") or case.get("skip") or case.get("note", "")
        numbers = [_number(case.get(key)) for key in ("ms", "cpu_ms", "peak_mb")]
        table.add_row(describe(case), *numbers, note)
    return table


def _number(value):
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
