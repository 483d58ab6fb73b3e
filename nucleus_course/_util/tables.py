"""Text files from other programs: byte order marks, UTF-16, semicolons, tabs, ``1.0``."""

import csv
import io
from pathlib import Path

from nucleus_course._util.errors import UserError

MOST = 1 << 28  # bytes of a text file


def read_text(path, name=None):
    """The text of a file: UTF-8 with or without a byte order mark, or UTF-16 with one.

    ``path`` is a path or anything with ``read_bytes``. Raises UserError naming the file.
    """
    name = name or path
    path = Path(path) if isinstance(path, str) else path  # a packaged file may not be a Path
    try:
        if isinstance(path, Path) and path.stat().st_size > MOST:
            raise UserError(f"{name}: too large for a text file ({path.stat().st_size >> 20} MB)")
        data = path.read_bytes()
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        return data.decode("utf-16" if wide else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: not a readable text file ({error})") from None


def read_table(path, columns):
    """The rows of a table with a header, as dicts of stripped text.

    The delimiter is comma, semicolon or tab, whichever is most frequent in the header; column names may
    be in any case. Raises UserError naming the file and a missing column, or a line with fewer or more
    fields than the header.

    Args:
        path: the file.
        columns: the required names, with their spelling in the dicts.
    """
    text = read_text(path)
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=separator) if row]
    except csv.Error as error:
        raise UserError(f"{path}: not a table ({error})") from None
    if not rows:
        raise UserError(f"{path}: an empty table; the columns {', '.join(columns)} are expected")
    spelling = {column.casefold(): column for column in columns}
    names = [spelling.get(name.strip().casefold(), name.strip()) for name in rows[0]]
    for column in columns:
        if names.count(column) != 1:
            found = ", ".join(names)[:200]
            wanted = " and ".join(columns)
            raise UserError(f"{path}: the columns {wanted} are expected once; there are {found}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise UserError(f"{path}: row {number} has {len(row)} fields, the header {len(names)}")
    return [dict(zip(names, (field.strip() for field in row))) for row in rows[1:]]


def whole_number(text):
    """An int of ``12``, ``12.0`` or ``1.2e1``; ValueError for anything else.

    >>> whole_number("12.0")
    12
    """
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if number != int(number) if abs(number) < 1e15 else True:
            raise ValueError(f"{text!r} is not a whole number") from None
        return int(number)
