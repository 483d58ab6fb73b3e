"""Outputs of the notebooks: made by running them, kept from an earlier run, and cleaned of what is not to be stored."""

import base64
import io
import re
import time
from pathlib import Path

import nbformat

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PICTURE = re.compile(r"(?<=data:image/png;base64,)[A-Za-z0-9+/=]+")
# An absolute path, but no URL and no HTML tag.
MACHINE_PATH = re.compile(r"(?<![\w.:/<])/[A-Za-z]\w*/[\w.-]+")


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
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = smaller_png(data["image/png"])
            if "text/html" in data:
                data["text/html"] = PICTURE.sub(lambda m: smaller_png(m[0]), data["text/html"])
            found = MACHINE_PATH.search(printed(output))
            if found:
                raise ValueError(
                    f"cell {cell['id']} prints a path of this machine: {found.group()}"
                )


def printed(output) -> str:
    """What an output says in words: its text, without pictures."""
    data = output.get("data", {})
    texts = [output.get("text", ""), *(data.get(f"text/{kind}", "") for kind in ("plain", "html"))]
    return PICTURE.sub("", "\n".join(str(text) for text in texts))


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


def execute(notebook, folder: Path, timeout: int) -> tuple[float, float, float]:
    """Run all cells in a fresh kernel whose working folder is ``folder``.

    Returns:
        Seconds; largest resident memory in GiB of the kernel, and of the largest process that it started.
    """
    from nbclient import NotebookClient

    from nucleus_course._util.memory import Watch, peak_gib

    started = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    with client.setup_kernel():
        watch = Watch(client.km.provisioner.pid)
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        kernel, other = peak_gib(watch.pid), watch.end()
    clean(notebook)
    return time.perf_counter() - started, kernel, other
