"""Architecture: rooms import only from rooms before them, even inside functions; modules and functions are short."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "nucleus_course"
ORDER = (
    "_util", "config", "presets", "backend", "geometry", "data", "models", "prediction",
    "evaluation", "training", "figures", "reports", "course", "benchmark", "cli",
)  # fmt: skip
# Known exceptions: (module, room or function). None may be added.
KNOWN_IMPORTS: set = set()
KNOWN_LONG: set = set()
MODULE_LINES, FUNCTION_LINES = 350, 80


def modules(package):
    """{dotted name: path} of every module below a package's folder."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name, path, root):
    """Dotted names within ``root`` that a module imports anywhere: absolute, relative, by import_module."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            # `from package import room` names the room only after `import`.
            targets = [f"{base}.{alias.name}" for alias in node.names] if base == root else [base]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            targets = [str(node.args[0].value)] if called in ("import_module", "__import__") else []
        else:
            continue
        yield from (target for target in targets if target.split(".")[0] == root)


def against_the_order(package, order):
    """{(module, room)}: imports of a room that does not come before the module's own."""
    found, place = set(), {room: number for number, room in enumerate(order)}
    for name, path in modules(package).items():
        if name == package.name:
            continue  # the package itself names everything, and loads it lazily
        own = name.split(".")[1]
        assert own in place, f"{name} is in no room of the order"
        for target in imported(name, path, package.name):
            room = (target.split(".") + [""])[1]
            if room in place and place[room] > place[own]:
                found.add((name, room))
    return found


def code_lines(path):
    """Numbers of the lines that hold code: no blank lines, comments or docstrings."""
    text = path.read_text(encoding="utf-8")
    passed = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in passed:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                lines.difference_update(range(first.lineno, first.end_lineno + 1))
    return lines


def too_long(package):
    """{(module, name or "")}: functions with too many lines of code in their body, modules with too many lines."""
    found = set()
    for name, path in modules(package).items():
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > MODULE_LINES:
            found.add((name, ""))
        lines = code_lines(path)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                # a command's options do not count
                body = range(node.body[0].lineno, node.end_lineno + 1)
                if len(lines & set(body)) > FUNCTION_LINES:
                    found.add((name, node.name))
    return found


def test_imports_run_one_way():
    found = against_the_order(PACKAGE, ORDER)
    assert found <= KNOWN_IMPORTS, sorted(found - KNOWN_IMPORTS)
    assert KNOWN_IMPORTS <= found, "done: take it off the list"


def test_modules_and_functions_are_short():
    found = too_long(PACKAGE)
    assert found <= KNOWN_LONG, sorted(found - KNOWN_LONG)
    assert KNOWN_LONG <= found, "done: take it off the list"


def test_the_order_is_drawn_in_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn = [line.split("`")[1] for line in text.splitlines() if line.startswith("| `")]
    assert [room.rstrip("/").removesuffix(".py") for room in drawn] == list(ORDER)


# ------------------------------------------------------------- the tests above can fail


@pytest.fixture
def house(tmp_path):
    """A function that writes a module of a made-up package of three rooms and checks the order."""

    def check(name, text):
        for room in ("cellar", "hall", "attic"):
            (tmp_path / "house" / room).mkdir(parents=True, exist_ok=True)
            (tmp_path / "house" / room / "__init__.py").touch()
        path = tmp_path / "house" / name
        path.write_text(text)
        (tmp_path / "house" / "__init__.py").write_text("import house.attic.beam")
        return against_the_order(tmp_path / "house", ("cellar", "hall", "attic"))

    return check


@pytest.mark.parametrize(
    "line",
    [
        "import house.attic.beam",
        "from house.attic import beam",
        "from house import attic",
        "from .. import attic",
        "from ..attic.beam import wood",
        "import importlib; importlib.import_module('house.attic.beam')",
        "import os, house.attic as a",
    ],
)
@pytest.mark.parametrize("template", ["{}", "def f():\n    {}", "class C:\n    def f(self):\n        if True:\n            {}"])  # fmt: skip
def test_an_import_of_a_later_room_is_found(house, line, template):
    assert house("hall/door.py", template.format(line)) == {("house.hall.door", "attic")}


@pytest.mark.parametrize(
    "line",
    ["from house.cellar import wine", "from . import door", "import attic", "from house import __version__", "x = 'house.attic'"],
)  # fmt: skip
def test_other_imports_are_not(house, line):
    assert house("hall/window.py", line) == set()


def test_an_import_in_a_package_file_is_found(house):
    assert house("cellar/__init__.py", "from ..hall import door") == {("house.cellar", "hall")}


def test_a_module_outside_the_rooms_is_an_error(house):
    with pytest.raises(AssertionError, match=r"house\.garden is in no room"):
        house("garden.py", "")


def test_long_functions_and_modules_are_found(tmp_path):
    package = tmp_path / "house"
    package.mkdir()
    body = "    x = 1\n"
    texts = {
        "fits": "def f(\n" + "    a=1,\n" * 200 + "):\n" + body * FUNCTION_LINES,
        "code": "def f():\n" + body * (FUNCTION_LINES + 1),
        "said": "def f():\n    '''Says.\n" + "    more\n" * 90 + "    '''\n" + "    # no code\n\n" * 40,
        "long": "x = 1\n" * (MODULE_LINES + 1),
    }  # fmt: skip
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text + ("    pass\n" if name == "said" else ""))
    assert too_long(package) == {("house.code", "f"), ("house.long", "")}
