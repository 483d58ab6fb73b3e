"""The package as a whole: imports, environments, metadata, Makefile, wheel."""

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

import nucleus_course

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).resolve().parents[1]
HEAVY = (
    "tensorflow",
    "jax",
    "torch",
    "keras",
    "matplotlib",
    "skimage",
    "imgaug",
    "cv2",
    "scipy",
    "pycocotools",
)


def pyproject():
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        tomllib = pytest.importorskip("tomli")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_import_loads_no_backend():
    code = (
        "import sys, time; before = time.perf_counter(); import nucleus_course, nucleus_course.cli.app\n"
        "print(f'imported in {time.perf_counter() - before:.2f} s', file=sys.stderr)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    print(run.stderr)
    assert run.stdout.strip() == "[]"


def test_tensorflow_does_not_bring_jax():
    """It would import JAX where it is installed, at 0.15 GB; afterwards JAX can be imported all the same."""
    pytest.importorskip("jax")
    code = (
        "import sys; from nucleus_course.backend import load_backend; load_backend('tensorflow')\n"
        "print('jax' in sys.modules)\nimport jax; print(jax.numpy.ones(2).sum())"
    )
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.split() == ["False", "2.0"]


BEFORE_THE_MODEL = [
    "config",
    "presets",
    "backend",
    "geometry",
    "data",
    "evaluation",
    "evaluation.errors",
    "reports.doctor",
    "cli.app",
]


def backends_after(code):
    """The backends that are loaded once ``code`` has run in a new process."""
    code += "\nimport sys; print([m for m in ('tensorflow', 'jax', 'torch', 'keras') if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


@pytest.mark.parametrize("module", BEFORE_THE_MODEL)
def test_rooms_before_the_model_load_no_backend(module):
    """Every public name can be fetched; lazy ones load their modules only then."""
    code = f"from nucleus_course.{module} import *; import nucleus_course.{module} as m"
    assert backends_after(code + "; [getattr(m, name) for name in dir(m)]") == "[]"


def test_the_test_above_can_fail():
    assert "keras" in backends_after("from nucleus_course.data.batches import TrainingBatches")


def test_public_names_all_resolve():
    for name in nucleus_course.__all__:
        assert getattr(nucleus_course, name) is not None, name
        assert name in dir(nucleus_course)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        nucleus_course.nonsense


def test_nothing_imports_a_backend_by_name_at_module_top():
    """keras alone may be imported at a module's top, and only in the rooms that need it."""
    for path in sorted((ROOT / "nucleus_course").rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            names = _imported(node)
            assert not names & {"tensorflow", "jax", "torch"}, path


def _imported(node):
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return {(node.module or "").split(".")[0]}
    return set()


def test_every_import_is_a_declared_dependency():
    """A package that is only installed because another needs it may be missing one day."""
    project = pyproject()["project"]
    declared = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    names = {re.split(r"[<>=\[; ]", d)[0].lower() for d in declared}
    # the benchmark measures them if they are installed
    peers = {"stardist", "torchvision", "csbdeep"}
    modules = {
        "skimage": "scikit-image",
        "PIL": "pillow",
        "yaml": "pyyaml",
        "imgaug": "imaug",
        "cv2": "opencv-python-headless",
    }
    for path in sorted((ROOT / "nucleus_course").rglob("*.py")):
        used = set().union(*(_imported(node) for node in ast.walk(ast.parse(path.read_text()))))
        for module in used - set(sys.stdlib_module_names) - peers - {"nucleus_course"}:
            assert modules.get(module, module).lower() in names | {"ipython", "nbformat"}, (
                f"{path}: {module}"
            )


# -------------------------------------------------------------------------------- environments


def packages(path):
    """Names and bounds of a conda environment file: {name: bounds}, pip's included."""
    found = Counter()
    for item in yaml.safe_load(path.read_text())["dependencies"]:
        for spec in item["pip"] if isinstance(item, dict) else [item]:
            name, bound = re.fullmatch(r"([A-Za-z0-9_.-]+?)([<>=].*)?", spec).groups()
            found[name.lower(), bound or ""] += 1
    return found


def test_binder_has_the_root_environment_but_for_tensorflow_cpu():
    root, binder = packages(ROOT / "environment.yml"), packages(ROOT / "binder" / "environment.yml")
    (cpu,) = (key for key in binder if key[0] == "tensorflow-cpu")
    del binder[cpu]
    binder["tensorflow", cpu[1]] += 1
    assert binder == root


def test_environment_has_the_dependencies_of_pyproject():
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    wanted = Counter({("python", project["requires-python"]): 1, ("pip", ""): 1})
    for spec in project["dependencies"] + extras["course"] + extras["jax"]:
        name, bound = re.fullmatch(r"([A-Za-z0-9_.-]+?)([<>=].*)?", spec).groups()
        wanted[name.lower(), bound or ""] += 1
    assert packages(ROOT / "environment.yml") == wanted


def test_binder_scripts_are_sound():
    for name in ("postBuild", "start"):
        path = ROOT / "binder" / name
        assert path.stat().st_mode & 0o111, f"{name} must be executable"
        subprocess.run(["bash", "-n", str(path)], check=True)
    start = (ROOT / "binder" / "start").read_text()
    assert start.rstrip().endswith('exec "$@"')
    run = subprocess.run(
        ["bash", str(ROOT / "binder" / "start"), "printenv", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_CPP_MIN_LOG_LEVEL"],
        capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert run.stdout.split() == ["2", "2", "3"]


def test_postbuild_never_fails(tmp_path):
    """Neither a failing pip nor a missing network may fail the image; stubs stand in for both."""
    for name in ("python", "nucleus-course"):
        stub = tmp_path / name
        stub.write_text("#!/bin/sh\nexit 1\n")
        stub.chmod(0o755)
    run = subprocess.run(
        ["bash", str(ROOT / "binder" / "postBuild")],
        capture_output=True, text=True, cwd=tmp_path, env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )  # fmt: skip
    assert run.returncode == 0
    assert "embedded sample" in run.stdout


# -------------------------------------------------------------------------------- metadata and Makefile


def test_citation_is_valid_and_has_the_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    # the keys that version 1.2.0 requires
    for key in ("cff-version", "message", "title", "authors"):
        assert citation[key]
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == nucleus_course.__version__
    assert citation["license"] == "MIT"
    for reference in citation["references"]:
        assert {"type", "authors", "title"} <= set(reference)
    assert any(
        reference.get("doi") == "10.48550/arXiv.1805.00500" for reference in citation["references"]
    )


def test_makefile_has_its_targets():
    text = (ROOT / "Makefile").read_text()
    for target in ("setup", "demo", "test", "test-fast", "lab", "clean"):
        assert re.search(rf"^{target}:", text, re.MULTILINE), target


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_sets_up_first(target, tmp_path):
    run = subprocess.run(
        ["make", "-n", target, f"VENV={tmp_path}/venv"], cwd=ROOT, capture_output=True, text=True
    )
    if run.returncode == 127:
        pytest.skip("no make here")
    assert run.returncode == 0, run.stderr
    steps = run.stdout
    assert (
        steps.index("-m venv")
        < steps.index("pip install")
        < steps.index("nucleus-course demo" if target == "demo" else "-m pytest")
    )
    assert "torch" not in steps


def test_ci_is_make_check_and_make_test():
    last = (ROOT / ".ci" / "run").read_text().splitlines()[-2:]
    assert last[0].startswith("make check") and last[1].startswith("make test ")
    assert "--cov=nucleus_course" in last[1], "the figure is printed"
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


def test_wheel_holds_sample_splits_and_weights(tmp_path):
    """Built from a copy of the checkout with one more set of weights in data/weights/."""
    pytest.importorskip("hatchling")
    copy = tmp_path / "checkout"
    shutil.copytree(
        ROOT / "nucleus_course",
        copy / "nucleus_course",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    (copy / "data" / "weights" / "mine").mkdir(parents=True)
    for name in ("config.json", "thresholds.json", "rescoring.json", "novelty.json", "weights.h5"):
        (copy / "data" / "weights" / "mine" / name).write_text("{}")
    run = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=copy,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("config.json", "thresholds.json", "rescoring.json", "novelty.json", "weights.h5"):
        assert f"nucleus_course/_weights/mine/{name}" in names
    assert "nucleus_course/data/sample.zip" in names
    assert "nucleus_course/data/splits/matterport-validation.txt" in names
    assert "nucleus_course/data/splits/sources.csv" in names
    entry = next(name for name in names if name.endswith("entry_points.txt"))
    assert b"nucleus_course.cli:main" in zipfile.ZipFile(wheel).read(entry)

    installed = tmp_path / "installed"  # installing a pure wheel is unpacking it
    zipfile.ZipFile(wheel).extractall(installed)
    code = (
        "import nucleus_course as nc; from nucleus_course.models.weights.folder import shipped_weights\n"
        "print(nc.__file__, shipped_weights()['mine'], len(nc.load_dataset('sample', 'all', progress=False)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    where, weights, count = run.stdout.split()
    assert where.startswith(str(installed)) and weights == str(
        installed / "nucleus_course" / "_weights" / "mine"
    )
    assert int(count) > 0


# -------------------------------------------------------------------------------- README


def test_readme_links_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if not link.startswith("http"):
            assert (ROOT / link).exists(), link


def test_readme_names_every_command_of_its_table():
    from nucleus_course.cli.app import app

    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    named = set(re.findall(r"`nucleus-course ([a-z]+)", (ROOT / "README.md").read_text()))
    assert named <= names


@pytest.mark.parametrize("number", range(7))
def test_course_table_agrees_with_the_notebooks(number):
    """Minutes and exercises in the README are those that the notebook itself states."""
    import json

    (path,) = (ROOT / "notebooks").glob(f"{number:02d}_*.ipynb")
    cells = json.loads(path.read_text())["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    minutes = re.search(r"What you need:\*\* (\d+) minutes", text).group(1)
    exercises = len(set(re.findall(rf"Exercise ({number}\.\d+)", text)))
    row = next(line for line in (ROOT / "README.md").read_text().splitlines() if path.name in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert (cells[2], cells[4]) == (minutes, str(exercises))


def test_results_table_keeps_its_markers_and_keys():
    from nucleus_course.evaluation import KEYS

    text = (ROOT / "README.md").read_text()
    table = text.split("<!-- results:begin -->")[1].split("<!-- results:end -->")[0]
    header = table.strip().splitlines()[0]
    assert list(re.findall(r"`(\w+)`", header)) == list(KEYS)
    assert "56.06" in table and "66.98" in table and "59.40" in table and "70.54" in table
