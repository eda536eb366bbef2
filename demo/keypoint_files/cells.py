"""Tables with lists in their cells, as of ultralytics, and tables in JSON, as of pandas."""

import ast
import json
import re
from collections.abc import Mapping, Sequence

import numpy as np

from demo.keypoint_files.opening import Table


def in_its_form(content: object) -> object:
    """Such a table as a list of its rows by name, as in JSON, and a list of rows by name without
    anything nested as a table; anything else as it is."""
    if isinstance(content, list) and content and all(map(_is_row, content)):
        names = list(dict.fromkeys(name for row in content for name in row))
        rows = [["" if row.get(n) is None else str(row[n]) for n in names] for row in content]
        return Table([[str(name) for name in names], *rows])
    if not isinstance(content, Table) or len(content.rows) < 2:
        return content
    header, *rows = content.rows
    if not any(re.match(r"[\[({]", cell) for cell in rows[0]):
        return content
    names = [name.strip().lower().replace(" ", "_") for name in header]
    return [
        {name: _value(cell) for name, cell in zip(names, row, strict=False) if name} for row in rows
    ]


def _is_row(one: object) -> bool:
    """Whether it could be a row of a table that has at least a frame, x and y."""
    nested = Mapping | Sequence | np.ndarray
    return (
        isinstance(one, Mapping)
        and len(one) > 2
        and not any(
            isinstance(value, nested) and not isinstance(value, str) for value in one.values()
        )
    )


def _value(cell: str) -> object:
    """What JSON or Python reads in a cell; of neither the text."""
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(cell)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return list(value) if isinstance(value, tuple) else value
    return cell
