"""Columns of files and data frames, as lists by name; their numbers and names."""

import codecs
import csv
import io
import os
from datetime import date, timedelta
from pathlib import Path

import numpy as np

__all__ = ["DATES", "as_name", "as_numbers", "read_columns"]

DATES = (date, timedelta, np.datetime64, np.timedelta64)
NOTHING = ("", "na", "n/a", "nan", "none", "null", "-")


def read_columns(table):
    """Return the columns of a file or a frame as lists by name."""
    if isinstance(table, (str, os.PathLike)):
        content = _text_of(table)
        if not content.strip():
            raise ValueError(f"{os.fspath(table)!r} must not be empty.")
        marks = [mark for mark in ",;\t" if mark in content.split("\n")[0]] or [","]
        lines = io.StringIO(content, newline="")
        header, *rows = csv.reader(lines, delimiter=marks[-1], skipinitialspace=True)
        rows = [row for row in rows if any(row)]
        header = [name.strip() for name in header]
        if not rows:
            raise ValueError(f"{os.fspath(table)!r} must hold rows below its header.")
        for i, row in enumerate(rows, 1):
            if len(row) != len(header):
                raise ValueError(
                    f"Every row of {os.fspath(table)!r} must have the {len(header)} fields "
                    f"of its header. Got {len(row)} in row {i}: is a decimal comma in it?"
                )
        twice = [name for name in header if header.count(name) > 1]
        if twice:
            raise ValueError(
                f"Columns must have different names. Got {twice[0]!r} twice."
            )
        return dict(zip(header, map(list, zip(*rows))))
    if isinstance(table, dict):
        columns = {name: list(values) for name, values in table.items()}
    else:
        import narwhals as nw

        try:
            frame = nw.from_native(table, eager_only=True)
        except TypeError as error:
            raise TypeError(
                "`table` must be a CSV file's name, a data frame, or a dict of columns. "
                f"Got {type(table).__name__}."
            ) from error
        columns = {name: frame[name].to_list() for name in frame.columns}
    if len({len(values) for values in columns.values()}) != 1:
        raise ValueError(
            "The columns of `table` must have the same length. Got "
            f"{ {name: len(values) for name, values in columns.items()} }."
        )
    return columns


def _text_of(path):
    """Return the text of a file, in the encodings that spreadsheets write."""
    data = Path(path).read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def as_numbers(name, values, empty_is_nan=False):
    """Return a column as floats; refuse what is none."""
    found = np.empty(len(values))
    for i, value in enumerate(values):
        if (
            value is None
            or value is np.ma.masked
            or (isinstance(value, str) and value.strip().lower() in NOTHING)
        ):
            value = np.nan
        try:
            if isinstance(value, DATES):  # which NumPy would take for numbers
                raise TypeError
            found[i] = value
        except (TypeError, ValueError):
            raise ValueError(
                f"The column {name!r} must hold numbers. Got {value!r} in row {i + 1}: "
                "are two columns exchanged, is a decimal comma in it, or is it a date, in "
                "place of which the days since the first will do?"
            ) from None
    wrong = np.isinf(found) if empty_is_nan else ~np.isfinite(found)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"The column {name!r} must hold finite numbers wherever there is a value. Got "
            f"{found[i]} in row {i + 1}."
        )
    return found


def as_name(value):
    """Return a name; numbers as they are typed."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    return str(value).strip()
