"""Build the course's notebooks from their sources, and run them.

Each ``notebooks/src/NAME.py`` (percent format: cells begin with ``# %%``) gives two notebooks:
``notebooks/NAME.ipynb``, where the code between ``### BEGIN SOLUTION`` and ``### END SOLUTION`` is
replaced by ``raise NotImplementedError``, and ``notebooks/solutions/NAME.ipynb``, where it is kept.
Exercises therefore cannot drift from their solutions. Cell options, after ``# %%``:

* ``[markdown]`` the cell is text (each line begins with ``# ``);
* ``tags=["nbval-check-output"]`` notebook tags;
* ``only="exercise"`` or ``only="solution"`` the cell goes to one of the two.

    python notebooks/build.py              write the notebooks, keeping outputs of unchanged cells
    python notebooks/build.py --check      say which notebooks differ from their sources (exit code 1)
    python notebooks/build.py --execute    write and run them all, storing outputs
    python notebooks/build.py --execute 04 run those whose name contains 04
"""

import argparse
import ast
import base64
import io
import os
import re
import sys
import time
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "src"
VARIANTS = ("exercise", "solution")
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
CELL = re.compile(r"^# %%(?P<options>.*)$")
OPTION = re.compile(r"""(\w+)=("[^"]*"|\[[^\]]*\])""")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
MACHINE_PATH = re.compile(
    r"(?<![\w.:/<])/[A-Za-z]\w*/[\w.-]+"
)  # an absolute path, but no URL and no HTML tag


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


def relink(markdown: str) -> str:
    """Relative links as seen from ``solutions/``, one folder further down."""
    markdown = re.sub(r"\]\(solutions/", "](../", markdown)
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
    for cell in parse((SOURCES / f"{name}.py").read_text(encoding="utf-8")):
        if cell["only"] not in (None, variant):
            continue
        tags = list(cell["tags"])
        source = cell["source"]
        if cell["kind"] == "markdown":
            new = nbformat.v4.new_markdown_cell(source if variant == "exercise" else relink(source))
        else:
            if has_solution(source):
                tags.insert(0, variant)
                source = stub(source) if variant == "exercise" else keep_solution(source)
            new = nbformat.v4.new_code_cell(source)
        if tags:
            new.metadata["tags"] = tags
        new["id"] = f"{name[:2]}-{len(notebook.cells):02d}"
        notebook.cells.append(new)
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
    for name in names():
        for variant in VARIANTS:
            path = target(name, variant)
            if not path.exists() or essence(nbformat.read(path, as_version=4)) != essence(
                build(name, variant)
            ):
                out.append(str(path.relative_to(HERE)))
    return out


def keep_outputs(new, path: Path) -> None:
    """Copy outputs from the committed notebook into cells whose source has not changed, wherever they stand now."""
    if not path.exists():
        return
    old: dict[str, list] = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            old.setdefault(cell.source, []).append(cell)
    for cell in new.cells:
        if cell.cell_type == "code" and old.get(cell.source):
            match = old[cell.source].pop(0)
            cell.outputs, cell.execution_count = match.outputs, match.execution_count


def clean(notebook) -> None:
    """Drop what must not be stored: widget views and state, log lines, timings; join split streams."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.get("name") == "stderr" or WIDGET_VIEW in output.get("data", {}):
                continue
            if kept and output.output_type == "stream" and kept[-1].output_type == "stream":
                kept[-1]["text"] += output["text"]
            else:
                kept.append(output)
        cell.outputs = kept
        for output in kept:
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = smaller_png(output["data"]["image/png"])
            found = MACHINE_PATH.search(
                str(output.get("text", ""))
                + str(output.get("data", {}).get("text/plain", ""))
                + str(output.get("data", {}).get("text/html", ""))
            )
            if found:
                raise ValueError(
                    f"cell {cell['id']} prints a path of this machine: {found.group()}"
                )


def smaller_png(encoded: str) -> str:
    """A base64 PNG with 256 colours where that saves a third: microscopy in full colour is large."""
    from PIL import Image

    buffer = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    picture.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        buffer, "PNG", optimize=True
    )
    small = base64.b64encode(buffer.getvalue()).decode("ascii")
    return small if len(small) < 0.67 * len(encoded) else encoded


def execute(notebook, folder: Path, timeout: int) -> float:
    """Run all cells in a fresh kernel whose working folder is ``folder``; return the seconds it took."""
    from nbclient import NotebookClient

    started = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    clean(notebook)
    return time.perf_counter() - started


def learner_from_solution(name: str, solved) -> nbformat.NotebookNode:
    """The learner's notebook with outputs, from the solution notebook that was run.

    All cells but the exercises and their checks are the same in both, and none depends on an answer, so
    their outputs are the same as well. A stub has no output; its check says "not attempted", computed here.
    """
    import numpy

    from nucleus_course.course import exercises

    notebook = build(name, "exercise")
    ran = {cell.source: cell.outputs for cell in solved.cells if cell.cell_type == "code"}
    space = {"np": numpy, "exercises": exercises, **vars(exercises)}
    stubs: set[str] = set()
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), start=1):
        cell.execution_count = count
        check = re.fullmatch(r"(?:exercises\.)?check_(\w+)\(\1\)", cell.source.strip())
        if "exercise" in cell.metadata.get("tags", []):
            exec(cell.source, space)  # the course's own stub
            stubs.update(re.findall(r"^def (\w+)", cell.source, re.M))
            cell.outputs = []
        elif check and check[1] in stubs:
            result = repr(eval(cell.source, space))
            cell.outputs = [
                nbformat.v4.new_output(
                    "execute_result", data={"text/plain": result}, execution_count=count
                )
            ]
        else:
            cell.outputs = [
                nbformat.from_dict({**output, "execution_count": count})
                if "execution_count" in output
                else output
                for output in ran[cell.source]
            ]
    return notebook


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
        "--execute", action="store_true", help="run the notebooks and store their outputs"
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
    for name in names(arguments.pattern):
        solution = build(name, "solution")
        if arguments.execute:
            seconds = execute(solution, target(name, "solution").parent, arguments.timeout)
            learner = learner_from_solution(name, solution)
            print(f"{name}: {seconds:.0f} s", flush=True)
        else:
            learner = build(name, "exercise")
            keep_outputs(solution, target(name, "solution"))
            keep_outputs(learner, target(name, "exercise"))
            print(name)
        write(solution, target(name, "solution"))
        write(learner, target(name, "exercise"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
