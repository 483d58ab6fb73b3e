"""Notebooks under test run as on Binder, and their memory is measured.

The solutions run with the real images if they are there, the learners' notebooks with the embedded sample. Learners'
notebooks are tested with the solutions' claims in their places, so claims are held on both data sets; those that call what the learner is to write, only by the solution.

Each kernel gets the environment of ``binder/start``. After the last cell of a notebook, the largest
resident memory that its kernel had must be under :data:`LIMIT`, and so must that of every process that it
started. The figures stand in the summary at the end. They vary with the processor: :data:`ALLOWANCE`.
"""

import os
import re
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from nucleus_course._util.memory import Watch, peak_gib

collect_ignore = ["gpu"]  # an hour of a GPU, and a download
LIMIT = 1.5  # GiB
ALLOWANCE = 0.15  # GiB; the same notebook took 1.42 with one processor and 1.55 with another
BINDER = Path(__file__).resolve().parents[1] / "binder" / "start"
DROPPED = ("LD_PRELOAD", "GLIBC_TUNABLES")  # another allocator measures another thing
figures: dict[str, tuple[float, float]] = {}
watches: dict[Path, Watch] = {}


def environment(edition: str = "course") -> dict[str, str]:
    """What ``binder/start`` exports, with this checkout's package first, and a folder for each edition to write to."""
    exports = re.findall(r'export (\w+)="\$\{\w+:-([^}]*)\}"', BINDER.read_text(encoding="utf-8"))
    path = os.pathsep.join(filter(None, [str(BINDER.parents[1]), os.environ.get("PYTHONPATH")]))
    quiet = {"NUCLEUS_COURSE_WAITING": "off"}  # nbval would compare the line of a slow cell
    quiet["NUCLEUS_COURSE_WORK"] = str(BINDER.parents[1] / "out" / edition)
    data = {"NUCLEUS_COURSE_DATA": "sample"} if edition == "learners" else {}
    return {**dict(exports), **quiet, **data, "PYTHONPATH": path}


def too_much(name: str, kernel: float, other: float) -> str:
    """What to say of a notebook that needs too much memory; an empty string if it does not."""
    if max(kernel, other) < LIMIT + ALLOWANCE:
        return ""
    return (
        f"{name} needs {kernel:.2f} GiB, a process that it starts {other:.2f}: "
        f"a kernel may have {LIMIT} (and {ALLOWANCE} more with another processor), since the server and the rest share 2 with it"
    )


class LearnersFile(IPyNbFile):
    """A learner's notebook with the cells that only its solution has: the claims, compared with their stored outputs."""

    def collect(self):
        cells = list(super().collect())
        for cell in self._extra_or_own([item.cell.source for item in cells]):
            if cell is None:
                yield cells.pop(0)
            elif not needs_an_answer(cell):
                options = defaultdict(bool, check=True)
                yield IPyNbCell.from_parent(
                    self,
                    name=f"Claim {cell['id']}",
                    cell_num=int(cell["id"][3:]),
                    cell=cell,
                    options=options,
                )

    def _extra_or_own(self, sources):
        """In order: each cell that only the solution has, and None for each of the notebook's own."""
        solution = nbformat.read(self.path.parent / "solutions" / self.path.name, as_version=4)
        code = [cell for cell in solution.cells if cell.cell_type == "code"]
        extra = [cell for cell in code if only_in_the_solution(cell, sources)]
        for cell in code:
            yield cell if cell in extra else None
        if len(code) != len(sources) + len(extra):
            raise AssertionError(
                f"{self.path.name} and its solution do not fit: notebooks/build.py"
            )


def only_in_the_solution(cell, sources) -> bool:
    return "solution" not in cell.metadata.get("tags", []) and cell.source not in sources


def needs_an_answer(cell) -> bool:
    """Whether it calls what the learner is to write."""
    return "needs-answer" in cell.metadata.get("tags", [])


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    found = yield
    if file_path.parent != BINDER.parents[1] / "notebooks":
        return found
    return [
        LearnersFile.from_parent(parent, path=file_path) if isinstance(f, IPyNbFile) else f
        for f in found
    ]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """The first cell of a notebook starts its kernel."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(
            "course" if item.path.parent.name == "solutions" else "learners"
        ).items():
            patch.setenv(name, value)
        for name in DROPPED:
            patch.delenv(name, raising=False)
        result = yield
    kernel = getattr(item.parent, "kernel", None)
    if kernel is not None and item.path not in watches:
        watches[item.path] = Watch(kernel.km.provisioner.pid)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """After the last cell, before its kernel ends."""
    if nextitem is not None and nextitem.parent is item.parent:
        return (yield)
    watch = watches.get(item.path)
    kernel = peak_gib(watch.pid) if watch else 0.0
    result = yield
    if watch is None:  # the kernel did not start
        return result
    name = f"{item.path.parent.name}/{item.path.stem}"
    figures[name] = (kernel, watch.end())
    said = too_much(name, *figures[name])
    if said:
        pytest.fail(said, pytrace=False)
    return result


def pytest_sessionfinish(session):
    """A process of pytest-xdist hands its figures to the one that prints them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["memory"] = {n: list(v) for n, v in figures.items()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    figures.update(getattr(node, "workeroutput", {}).get("memory", {}))


def pytest_terminal_summary(terminalreporter):
    for name, (kernel, other) in sorted(figures.items()):
        terminalreporter.write_line(
            f"memory of {name}: {kernel:.2f} GiB, a process that it starts {other:.2f}"
        )
