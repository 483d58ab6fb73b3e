"""Wrong answers by mutation: each exercise's solution with one small change, for many such changes.

    python tests/course/mutants.py          a table: mutants tried and killed, for each check
    python tests/course/mutants.py NAME     each mutant of one exercise that survives, with its changed line

Two families: lines changed (here), and arguments and answers altered (``altered.py``).
A mutant that survives either solves the exercise as well (then its changed line is listed in
:data:`EQUAL`, with the reason) or shows a gap in the check.
"""

import ast
import copy
import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(Path(__file__).parent))

import altered  # noqa: E402

from nucleus_course.course import exercises  # noqa: E402
from nucleus_course.course.exercises import checks  # noqa: E402

CHECKS = {
    name.removeprefix("check_"): getattr(exercises, name)
    for name in exercises.__all__
    if name.startswith("check_")
}
ORDER = "the order of the parts does not matter"
ZERO = "only a gradient of zero gets there, and any factor leaves it zero"
EQUAL: dict[tuple[str, str], str] = {
    (
        "classify_detection",
        "without: ious, taken = (np.asarray(ious, float), np.asarray(taken, bool))",
    ): "the cases are arrays already",
    (
        "clip_by_global_norm",
        "factor = min(1.0, limit / norm) if norm >= 0 else 1.0",
    ): "NumPy divides by zero to infinity, which the minimum removes",
    ("clip_by_global_norm", "factor = min(1.0, limit / norm) if norm > -1 else 1.0"): "the same",
    ("clip_by_global_norm", "factor = min(1.0, limit / norm) if norm > 0 else 1.25"): ZERO,
    ("clip_by_global_norm", "factor = min(1.0, limit / norm) if norm > 0 else 0.75"): ZERO,
    (
        "bilinear",
        "y, x = (np.clip(y - 0.5, 0, height - 0), np.clip(x - 0.5, 0, width - 1))",
    ): "above height - 1 both rows are the last one",
    **{
        ("edge_ids", f"border = np.concatenate([{sides}])"): ORDER
        for sides in (
            "labels[:, -1], labels[-1], labels[:, 0], labels[0]",
            "labels[-1], labels[0], labels[:, 0], labels[:, -1]",
            "labels[0], labels[:, 0], labels[-1], labels[:, -1]",
            "labels[0], labels[-1], labels[:, -1], labels[:, 0]",
        )
    },
    ("edge_ids", "return set(np.sort(border[border > 0]).tolist())"): "a set holds an id once",
    (
        "measure",
        "return np.stack([ids, areas, np.sqrt(4 * areas / np.pi)], axis=1).reshape(-2, 3)",
    ): "NumPy takes any negative number for the open axis",
    (
        "nms",
        "left = [i for i in left if iou[i, best] <= iou_threshold]",
    ): "the IoU matrix is symmetric",
    **{
        (
            "paste_mask",
            "inside = ((rows >= y1) & (rows < y2))[:, None] & "
            f"((columns >= x1) & (columns < x2)){index}",
        ): "a row of pixels broadcasts as it is"
        for index in ("[:,]", "[None,]")
    },
    ("recall_under_cap", "without: counts = np.asarray(counts)"): "the cases are arrays already",
    (
        "smooth_l1",
        "return np.where(distance <= 1, 0.5 * distance ** 2, distance - 0.5)",
    ): "both pieces are 0.5 at 1",
    **{
        ("touching_pairs", f"for a, b in ({pairs}):"): ORDER
        for pairs in (
            "(labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])",
            "(labels[:, :-1], labels[:, 1:]), (labels[1:], labels[:-1])",
            "(labels[:, 1:], labels[:, :-1]), (labels[:-1], labels[1:])",
        )
    },
    ("touching_pairs", "for i, j in zip(b[meet].tolist(), a[meet].tolist()):"): ORDER,
    ("warmup_cosine", "progress = (warmup - step) / (total - warmup)"): "the cosine is even",
    ("warmup_cosine", "progress = (step - warmup) / (warmup - total)"): "the cosine is even",
}

COMPARED = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
COMBINED = {
    ast.Add: (ast.Sub, ast.Mult),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div, ast.Add),
    ast.Div: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.FloorDiv: (ast.Div,),
}
RENAMED = {
    "min": ("max",),
    "max": ("min",),
    "minimum": ("maximum",),
    "maximum": ("minimum",),
    "floor": ("ceil", "round"),
    "cos": ("sin",),
    "log": ("log2",),
    "log2": ("log",),
    "sqrt": ("abs",),
    "any": ("all",),
    "all": ("any",),
    "cumsum": ("cumprod",),
    "sum": ("mean", "max"),
    "mean": ("median", "sum"),
    "argmax": ("argmin",),
    "unique": ("sort",),
}


def load_builder():
    """``notebooks/build.py`` as a module."""
    spec = importlib.util.spec_from_file_location("builder", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def solution_sources() -> dict[str, str]:
    """The notebooks' solution of every exercise: {name: source of the function}."""
    builder, found = load_builder(), {}
    for name in builder.names():
        for cell in builder.parse((builder.SOURCES / f"{name}.py").read_text(encoding="utf-8")):
            if cell["kind"] == "code" and builder.has_solution(cell["source"]):
                for node in ast.parse(builder.keep_solution(cell["source"])).body:
                    if isinstance(node, ast.FunctionDef) and node.name in CHECKS:
                        found[node.name] = ast.unparse(node)
    return found


def _symmetric(function: ast.expr) -> bool:
    return ast.unparse(function).removeprefix("np.") in {"min", "max", "minimum", "maximum"}


def _changes(node: ast.AST, parameters: list[str]):
    """(field, new value) for every small change of one node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for new in COMPARED.get(type(node.ops[0]), ()):
            yield "ops", [new()]
    if isinstance(node, (ast.BinOp, ast.AugAssign)):
        for new in COMBINED.get(type(node.op), ()):
            yield "op", new()
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Sub, ast.Div)):
        yield "*swap", ("left", "right")
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Invert)):
        yield "op", ast.UAdd()
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        for step in (1, -1) if isinstance(node.value, int) else (0.25, -0.25):
            yield "value", node.value + step
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "value", not node.value
    if isinstance(node, ast.Attribute):
        for new in RENAMED.get(node.attr, ()):
            yield "attr", new
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        for new in RENAMED.get(node.id, ()):
            yield "id", new
        if node.id in parameters:
            for new in parameters:
                if new != node.id:
                    yield "id", new
    if isinstance(node, ast.Call) and len(node.args) == 2 and not _symmetric(node.func):
        yield "args", node.args[::-1]
    if isinstance(node, (ast.Tuple, ast.List)) and isinstance(node.ctx, ast.Load):
        for index in range(len(node.elts)):
            if len(node.elts) > 1:
                yield "elts", node.elts[:index] + node.elts[index + 1 :]
                moved = [*node.elts]
                moved[index - 1], moved[index] = moved[index], moved[index - 1]
                yield "elts", moved
    if isinstance(node, ast.IfExp):
        yield "test", ast.UnaryOp(ast.Not(), node.test)
        yield "*swap", ("body", "orelse")
    for field in ("body", "orelse"):
        block = getattr(node, field, None)
        if isinstance(block, list):
            for index, line in enumerate(block):
                if (
                    not isinstance(line, (ast.Return, ast.Import, ast.ImportFrom))
                    and len(block) > 1
                ):
                    yield field, block[:index] + block[index + 1 :]


def mutants(source: str) -> list[tuple[str, str]]:
    """(source, changed line) of every mutant of a function, without repeats, in order."""
    tree = ast.parse(source)
    function = tree.body[0]
    function.body = [
        line
        for line in function.body
        if not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
    ]
    plain = ast.unparse(tree)
    parameters = [argument.arg for argument in function.args.args]
    found: dict[str, str] = {}
    for number, node in enumerate(ast.walk(tree)):
        if isinstance(node, (ast.Module, ast.arguments)):
            continue
        for field, new in _changes(node, parameters):
            changed = copy.deepcopy(tree)
            target = next(n for i, n in enumerate(ast.walk(changed)) if i == number)
            if field == "*swap":
                one, other = new
                first, second = getattr(target, one), getattr(target, other)
                setattr(target, one, second)
                setattr(target, other, first)
            else:
                setattr(target, field, copy.deepcopy(new))
            text = ast.unparse(ast.fix_missing_locations(changed))
            if text != plain:
                lines = [a for a in text.splitlines() if a not in plain.splitlines()]
                gone = [a for a in plain.splitlines() if a not in text.splitlines()]
                found.setdefault(text, (lines or ["without: " + gone[0].strip()])[0].strip())
    return list(found.items())


def accepts(name: str, answer) -> bool:
    """Whether a check passes an answer."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return CHECKS[name](answer).status == checks.PASSED


def solution_of(name: str, source: str):
    """The function that a source defines."""
    space = {"np": np}
    exec(source, space)  # the course's own solution, or a mutant of it
    return space[name]


def survivors(name: str, source: str) -> tuple[int, list[str]]:
    """(mutants tried, changed lines of those that the check accepts and :data:`EQUAL` does not list)."""
    tried = mutants(source)
    alive = [line for text, line in tried if accepts(name, solution_of(name, text))]
    return len(tried), [line for line in alive if (name, line) not in EQUAL]


def alterations(name: str, source: str) -> list:
    """(what is altered, function) for an exercise; its check's first case shows the arguments' types."""
    solution, seen = solution_of(name, source), []

    def spy(*args):
        seen.append(copy.deepcopy(args))
        return solution(*args)

    CHECKS[name](spy)
    return altered.altered(solution, seen[0])


def altered_survivors(name: str, source: str) -> tuple[int, list[str]]:
    """(alterations tried, those that the check accepts and :data:`altered.EQUAL` does not list)."""
    tried = alterations(name, source)
    alive = [label for label, answer in tried if accepts(name, answer)]
    return len(tried), [label for label in alive if (name, label) not in altered.EQUAL]


def row(name: str, source: str) -> tuple[list[int], list[str]]:
    """The table's numbers for one check, and the survivors."""
    cells, alive = [], []
    for find, equal in ((survivors, EQUAL), (altered_survivors, altered.EQUAL)):
        tried, own = find(name, source)
        same = sum(key[0] == name for key in equal)
        cells += [tried, same, tried - same - len(own)]
        alive += own
    return [*cells, len(alive)], alive


def line(name: str, cells: list[int]) -> str:
    return f"| `{name}` | {' | '.join(map(str, cells))} |"


def main(names: list[str]) -> int:
    checks.TIME_LIMIT = 0.5
    left = 0
    print("| check | lines changed | equal | killed | arguments altered | equal | killed | left |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, source in sorted(solution_sources().items()):
        if names and name not in names:
            continue
        cells, alive = row(name, source)
        left += len(alive)
        print(line(name, cells))
        for label in alive:
            print(f"    {(name, label)!r}: ")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
