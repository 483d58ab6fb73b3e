"""Build the course's notebooks from their sources, and run them.

Each ``notebooks/src/NAME.py`` (percent format: cells begin with ``# %%``) gives two notebooks:

* ``notebooks/NAME.ipynb``, the learner's: the code between ``### BEGIN SOLUTION`` and
  ``### END SOLUTION`` is replaced by ``raise NotImplementedError``, what was seen is folded, and no
  output is stored, so that nothing gives a prediction away;
* ``notebooks/solutions/NAME.ipynb``: solutions and answers, run, with outputs.

Exercises therefore cannot drift from their solutions. Cell options, after ``# %%``:

* ``[markdown]`` the cell is text (each line begins with ``# ``);
* ``tags=["nbval-check-output"]`` notebook tags;
* ``only="exercise"`` or ``only="solution"`` the cell goes to one of the two.

    python notebooks/build.py              write the notebooks, keeping outputs of unchanged cells
    python notebooks/build.py --check      say which notebooks differ from their sources (exit code 1)
    python notebooks/build.py --execute    write them and run the solutions, storing outputs
    python notebooks/build.py --execute 04 run those whose name contains 04
    python notebooks/build.py --keep       pack the predictions of notebooks 4 and 5 for the learners
"""

import argparse
import ast
import gzip
import os
import re
import sys
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # this file may be loaded from elsewhere
from notebook_outputs import execute, keep_outputs  # noqa: E402

SOURCES = HERE / "src"
VARIANTS = ("exercise", "solution")
GPU = "gpu/train_on_a_gpu"  # from src/gpu.py: no exercises, so no solution; not run without a GPU
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
CELL = re.compile(r"^# %%(?P<options>.*)$")
COMMAND = re.compile(r"^# !", re.M)  # a command line, which is no Python
OPTION = re.compile(r"""(\w+)=("[^"]*"|\[[^\]]*\])""")
HOW_TO_RUN = """

**To run a cell**, click it and press Shift+Enter. Run the cells in order, from the top: each one needs those above it."""
ADDRESS = re.compile(r'^repository = "(https://github\.com/[\w.-]+/[\w.-]+)"', re.M)
COLAB = """\
# Google Colab starts with nothing: there, install the course (two minutes). Elsewhere this cell does nothing.
import subprocess
import sys

if "google.colab" in sys.modules:
    course = "nucleus-course[course] @ git+{address}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", course], check=True)"""


def parse(text: str) -> list[dict]:
    """Percent-format text -> cells ``{"kind", "source", "tags", "only"}``, in order."""
    cells: list[dict] = []
    for line in text.splitlines():
        match = CELL.match(line)
        if match:
            options = {
                key: ast.literal_eval(value) for key, value in OPTION.findall(match["options"])
            }
            unknown = set(options) - {"tags", "only"}
            if unknown:
                raise ValueError(f"unknown cell option {sorted(unknown)} in: {line}")
            kind = "markdown" if "[markdown]" in match["options"] else "code"
            cells.append(
                {
                    "kind": kind,
                    "lines": [],
                    "tags": options.get("tags", []),
                    "only": options.get("only"),
                }
            )
        elif cells:
            cells[-1]["lines"].append(line)
        elif line.strip():
            raise ValueError(f"text before the first cell: {line}")
    for cell in cells:
        lines = cell.pop("lines")
        if cell["kind"] == "markdown":
            lines = [
                line[2:] if line.startswith("# ") else line[1:] if line.startswith("#") else line
                for line in lines
            ]
        cell["source"] = "\n".join(lines).strip("\n")
    return cells


def has_solution(source: str) -> bool:
    return BEGIN in source


def stub(source: str) -> str:
    """The learner's version of a cell: each solution region becomes one ``raise NotImplementedError``."""
    out, inside = [], False
    for line in source.splitlines():
        if line.strip() == BEGIN:
            indent = line[: len(line) - len(line.lstrip())]
            out += [f"{indent}# Your code here.", f"{indent}raise NotImplementedError"]
            inside = True
        elif line.strip() == END:
            inside = False
        elif not inside:
            out.append(line)
    if inside:
        raise ValueError("a solution region is not closed")
    return "\n".join(out)


def keep_solution(source: str) -> str:
    return "\n".join(line for line in source.splitlines() if line.strip() not in (BEGIN, END))


def fold(markdown: str, heading: str, summary: str) -> str:
    """Each paragraph that begins with ``**heading.**`` put behind a line that opens when it is clicked."""
    return re.sub(
        rf"^\*\*{heading}\.\*\* (.+?)(?=\n\n|\Z)",
        rf"<details><summary><b>{summary}</b></summary>\n\n\1\n\n</details>",
        markdown,
        flags=re.M | re.S,
    )


def address() -> str:
    """The repository's address, from pyproject.toml, the one place that holds it; "" while it has none."""
    found = ADDRESS.search((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    return found[1] if found else ""


def doors(name: str) -> str:
    """Links that open a notebook on Binder and on Colab; "" while the repository has no address."""
    if not address():
        return ""
    place = address().removeprefix("https://github.com/")
    colab = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{name}.ipynb"
    if name == GPU:  # Binder has none
        return f"\n\n[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})"
    binder = f"https://mybinder.org/v2/gh/{place}/main?labpath=notebooks%2F{name}.ipynb"
    badges = (
        "https://colab.research.google.com/assets/colab-badge.svg",
        "https://mybinder.org/badge_logo.svg",
    )
    return (
        f"\n\n[![Open in Colab]({badges[0]})]({colab}) [![Open in Binder]({badges[1]})]({binder})"
    )


def text_cell(source: str, variant: str, first: bool) -> str:
    """A markdown cell's text in one variant: what gives an answer away is folded, links are moved."""
    if variant == "solution":
        return relink(fold(source, "Answer", "Answer"))
    source = fold(source, "What was seen", "What was seen (open it after you have run the cell)")
    return source + HOW_TO_RUN if first and HOW_TO_RUN[:22] not in source else source


def relink(markdown: str) -> str:
    """Relative links as seen from ``solutions/``, one folder further down."""
    markdown = re.sub(r"\[Solutions\]\(solutions/", "[This notebook without answers](../", markdown)
    markdown = re.sub(r"\]\(solutions/", "](../", markdown).replace("](gpu/", "](../gpu/")
    return re.sub(
        r"\]\(\.\./(?=docs|README|data|nucleus_course|tests|LICENSE)", "](../../", markdown
    )


def build(name: str, variant: str) -> nbformat.NotebookNode:
    """The notebook ``name`` in one variant, without outputs."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    text = (SOURCES / f"{name.split('/')[0]}.py").read_text(encoding="utf-8")
    for cell in parse(text):
        if cell["only"] not in (None, variant):
            continue
        tags = list(cell["tags"])
        source = cell["source"]
        if cell["kind"] == "markdown":
            first = not notebook.cells
            text = text_cell(source, variant, first)
            if first and variant == "exercise":
                text += doors(name)
            new = nbformat.v4.new_markdown_cell(text)
        else:
            if has_solution(source):
                tags.insert(0, variant)
                source = stub(source) if variant == "exercise" else keep_solution(source)
            if variant == "exercise":  # no stored output to compare with
                tags = [tag for tag in tags if not tag.startswith("nbval-")]
            new = nbformat.v4.new_code_cell(COMMAND.sub("!", source))
        if tags:
            new.metadata["tags"] = tags
        new["id"] = f"{name[:2]}-{len(notebook.cells):02d}"
        notebook.cells.append(new)
        if len(notebook.cells) == 1 and variant == "exercise" and address():
            set_up = nbformat.v4.new_code_cell(COLAB.format(address=address()))
            set_up["id"] = f"{name[:2]}-colab"
            notebook.cells.append(set_up)
    return notebook


def target(name: str, variant: str) -> Path:
    return HERE / f"{name}.ipynb" if variant == "exercise" else HERE / "solutions" / f"{name}.ipynb"


def names(pattern: str = "") -> list[str]:
    return sorted(path.stem for path in SOURCES.glob("[0-9]*.py") if pattern in path.stem)


def essence(notebook) -> list[tuple]:
    """What must agree between a source and its committed notebook: everything but the outputs."""
    return [
        (cell["id"], cell.cell_type, cell.source, tuple(cell.metadata.get("tags", [])))
        for cell in notebook.cells
    ]


def drifted() -> list[str]:
    """Names of committed notebooks that differ from what the sources give (missing ones included)."""
    out = []
    for name in [*names(), GPU]:
        for variant in VARIANTS[: 1 if name == GPU else 2]:
            path = target(name, variant)
            if not path.exists() or essence(nbformat.read(path, as_version=4)) != essence(
                build(name, variant)
            ):
                out.append(str(path.relative_to(HERE)))
    return out


def keep() -> list[str]:
    """Pack what notebooks 4 and 5 computed with the shipped weights into ``kept/``; drop what is stale."""
    from nucleus_course import course

    key = course.find_weights(verbose=False).key
    folder = HERE / "kept"
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.gz"):
        if f"-{key}-" not in path.name:
            path.unlink()
    found = sorted(course.work_folder().glob(f"*-{key}-*"))
    for path in found:
        packed = gzip.compress(path.read_bytes(), 9, mtime=0)
        (folder / f"{path.name}.gz").write_bytes(packed)
    return [f"{path.name}: {path.stat().st_size / 1000:.0f} kB" for path in folder.glob("*.gz")]


def write(notebook, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".ipynb.partial")
    nbformat.write(notebook, partial)
    os.replace(partial, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "pattern", nargs="?", default="", help="only notebooks whose name contains this"
    )
    parser.add_argument(
        "--check", action="store_true", help="compare only; exit code 1 if a notebook has drifted"
    )
    parser.add_argument(
        "--execute", action="store_true", help="run the solutions and store their outputs"
    )
    parser.add_argument(
        "--keep", action="store_true", help="pack the predictions of notebooks 4 and 5"
    )
    parser.add_argument(
        "--timeout", type=int, default=900, help="seconds a cell may take (default 900)"
    )
    arguments = parser.parse_args()
    if arguments.check:
        different = drifted()
        print(
            "\n".join(f"{path} differs from its source" for path in different)
            or "All notebooks agree with their sources."
        )
        return 1 if different else 0
    # This process and the kernels import the package of this checkout, installed or not.
    sys.path.insert(0, str(HERE.parent))
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(HERE.parent), os.environ.get("PYTHONPATH")])
    )
    if arguments.keep:
        print("\n".join(keep()))
        return 0
    for name in names(arguments.pattern):
        solution = build(name, "solution")
        if arguments.execute:
            seconds, kernel, other = execute(
                solution, target(name, "solution").parent, arguments.timeout
            )
            print(
                f"{name}: {seconds:.0f} s, {kernel:.2f} GiB at the peak, {other:.2f} in a second process",
                flush=True,
            )
        else:
            keep_outputs(solution, target(name, "solution"))
            print(name)
        write(solution, target(name, "solution"))
        write(build(name, "exercise"), target(name, "exercise"))
    if arguments.pattern in GPU:
        write(build(GPU, "exercise"), target(GPU, "exercise"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
