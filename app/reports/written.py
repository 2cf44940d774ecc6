"""Rows written as JSON, a column at a time: a hundred thousand values in a few milliseconds.

Numbers of a column are written together and cut at their commas; what is left of a row is one
pattern for all. Nothing is made for each row or value but its text.
"""

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json


def rows_as_json(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> bytes:
    """Write rows, given by columns of one type each, as an array of objects with these fields."""
    rows = len(columns[0]) if columns else 0
    if not rows:
        return b"[]"
    pattern: list[bytes] = []
    texts: list[Sequence[bytes]] = []
    for name, values in zip(names, columns, strict=True):
        key = to_json(name).replace(b"%", b"%%")
        if values.count(values[0]) == rows:
            pattern.append(key + b":" + to_json(values[0]).replace(b"%", b"%%"))
        else:
            pattern.append(key + b":%b")
            texts.append(_texts(values))
    row = b"{" + b",".join(pattern) + b"}"
    lines = map(row.__mod__, zip(*texts, strict=True)) if texts else [row % ()] * rows
    return b"[" + b",".join(lines) + b"]"


def _texts(values: Sequence[Any]) -> Sequence[bytes]:
    """Write each value of a column."""
    whole = to_json(values)
    is_flat = b"{" not in whole and b"[" not in whole[1:] and b"\\" not in whole
    if is_flat and whole.count(b",") == len(values) - 1:
        return whole[1:-1].split(b",")
    # Among texts without a backslash, and so without a quotation mark, these bytes part two.
    is_text = is_flat and whole.startswith(b'["') and None not in values
    if is_text and whole.count(b'","') == len(values) - 1:
        return [b'"%b"' % text for text in whole[2:-2].split(b'","')]
    return [to_json(value) for value in values]
