"""Reads a CSV file: its encoding, separator, comments and header are found out before pandas reads the rest."""

from __future__ import annotations

import csv
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types

from orchestrator.core.errors import DataError
from orchestrator.streams.settings import StreamSettings
from orchestrator.streams.sources.tables.files import TableFile
from orchestrator.streams.sources.tables.frames import Table, named

_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
          (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))  # fmt: skip
_OTHERS = {b"PK\x03\x04": "an Excel or zip file", b"\x1f\x8b": "a gzip file", b"PAR1": "a Parquet file",
           b"\xd0\xcf\x11\xe0": "an Excel file", b"%PDF": "a PDF file"}  # fmt: skip
_SEPARATORS = {",": "','", ";": "';'", "\t": '"\\t"', "|": "'|'", " ": "' '"}
_HEAD_CHARACTERS = 1 << 18
_BLOCK_BYTES = 1 << 24


def read_csv(where: str, file: TableFile, settings: StreamSettings, most_bytes: int) -> Table:
    """Return the rows of a CSV file.

    Columns that the settings name are read as text. Only an empty field is a gap.

    Args:
        where: the place of faults.
        file: the file.
        settings: how numbers and fields are written, and which columns are not numbers.
        most_bytes: refuse a file that is larger once unpacked.

    Raises:
        DataError: if the file is none, or its rows do not fit its header.
    """
    content = _utf8(where, file.name, file.content(most_bytes))
    if len(content) > most_bytes:
        raise DataError(f"{where}: '{file.name}' needs more memory than is available once unpacked; take fewer rows")
    head = _Head.read(where, file, settings, content[:_HEAD_CHARACTERS].decode("utf-8", "replace"))
    names = named(where, file.name, head.header)
    texts = {settings.label, settings.task, *settings.categorical, *settings.frequency}
    texts |= {*settings.dates, *settings.hashed()}
    all_text = settings.decimal is not None or settings.thousands is not None
    raw = [name or f"Unnamed: {index}" for index, name in enumerate(head.header)]
    options: dict[str, Any] = {
        "sep": head.separator, "skiprows": head.n_skipped, "low_memory": False, "keep_default_na": False,
        "na_values": [""], "skipinitialspace": head.has_spaces, "index_col": False if head.ends_in_separator else None,
    }  # fmt: skip
    dtype: Any = str if all_text else {old: str for old, new in zip(raw, names, strict=True) if new in texts}

    def read(**more: Any) -> pd.DataFrame:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            found: pd.DataFrame = pd.read_csv(BytesIO(content), **options | more)
        return found

    try:
        frame = read(dtype=dtype)
    except UnicodeDecodeError as error:
        raise DataError(_not_utf8(where, file.name, error)) from error
    if len(frame.columns) != len(names) or frame.index[:1].tolist() not in ([], [0]):
        raise DataError(
            f"{where}: '{file.name}' has rows with other than the {len(names)} fields of its header; write each row "
            "alike"
        )
    renamed = dict(zip(frame.columns, names, strict=True))
    frame.columns = pd.Index(names)
    zeros = _zeros(frame, content, head.separator, lambda old: read(dtype=str, usecols=old), renamed)
    return Table("", file.name, frame, frozenset(names), zeros, 1, (), tuple(head.notes))


def _utf8(where: str, name: str, content: bytes) -> bytes:
    """Return a text in UTF-8 without a byte order mark.

    Raises:
        DataError: if it is no text, or has another encoding that is not marked.
    """
    for start, what in _OTHERS.items():
        if content.startswith(start):
            raise DataError(f"{where}: '{name}' is {what} and no text; save it as CSV or under its own ending")
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            try:
                return content.removeprefix(mark) if encoding == "utf-8-sig" else content.decode(encoding).encode()
            except UnicodeError as error:
                raise DataError(
                    f"{where}: '{name}' is marked as {encoding} but is not ({error}); save it as UTF-8"
                ) from error
    if b"\0" in content[:_HEAD_CHARACTERS]:
        raise DataError(
            f"{where}: '{name}' holds bytes that are 0: it is no text, or UTF-16 without a mark at its start; save it "
            "as UTF-8"
        )
    return content


def _not_utf8(where: str, name: str, error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    letter = bytes([byte]).decode("latin-1")
    return (
        f"{where}: '{name}' is not UTF-8: it holds the byte 0x{byte:02x}, which may be {letter!r} "
        "in Latin-1 or Windows-1252; save it as UTF-8"
    )


@dataclass(frozen=True)
class _Head:
    """How a CSV file begins.

    Args:
        header: the names of its columns, as they are written.
        separator: what stands between fields.
        n_skipped: how many lines come before the header.
        ends_in_separator: whether each row has an empty field more than the header.
        notes: what a reader should know.
    """

    header: list[str]
    separator: str
    n_skipped: int
    ends_in_separator: bool
    notes: list[str]

    @property
    def has_spaces(self) -> bool:
        """Return whether a space follows each separator, as in 'a, b, c'."""
        return len(self.header) > 1 and all(name.startswith(" ") for name in self.header[1:])

    @classmethod
    def read(cls, where: str, file: TableFile, settings: StreamSettings, text: str) -> _Head:
        """Return it.

        Raises:
            DataError: if header and rows do not fit, or the separator is another one.
        """
        separator = settings.separator or ("\t" if file.suffix.startswith(".tsv") else ",")
        lines, skipped, notes = text.splitlines(keepends=True), 0, []
        if lines and (found := re.fullmatch(r'"?sep=(.)"?\s*', lines[0], re.IGNORECASE)):
            if settings.separator not in (None, found[1]):
                raise DataError(
                    f"{where}: '{file.name}' says sep={found[1]} in its first line and the settings say separator: "
                    f"{settings.separator!r}; drop one of the two"
                )
            separator, skipped = found[1], 1
        n_comments = 0
        while skipped + n_comments < len(lines) and lines[skipped + n_comments].lstrip().startswith("#"):
            n_comments += 1
        if n_comments:
            rest = lines[skipped + n_comments :]
            last = lines[skipped + n_comments - 1]
            if not rest or last.count(separator) == rest[0].count(separator):
                raise DataError(
                    f"{where}: '{file.name}' begins with a line that starts with '#' and may be a comment or the "
                    "header; delete the line, or the '#' if it is the header"
                )
            n_lines = "1 line" if n_comments == 1 else f"{n_comments} lines"
            notes.append(f"{n_lines} at the start of '{file.name}' left out: comments, which begin with '#'")
        skipped += n_comments
        rows = _rows("".join(lines[skipped:]), separator)
        if not rows:
            raise DataError(f"{where}: the table '{file.name}' cannot be read (it is empty); save it again")
        header, first = rows[0], rows[1] if len(rows) > 1 else rows[0]
        if len(header) == 1:
            _refuse_other_separator(where, file.name, "".join(lines[skipped:]), separator)
        ends = len(first) == len(header) + 1 and not first[-1].strip()
        if ends:
            notes.append(f"each row of '{file.name}' ends with a '{separator}' too many, which is left out")
        elif len(first) > len(header):
            raise DataError(
                f"{where}: the first row of '{file.name}' has {len(first)} fields and its header {len(header)}; name "
                "each column, or put fields that hold the separator in quotes"
            )
        return cls(header, separator, skipped, ends, notes)


def _rows(text: str, separator: str) -> list[list[str]]:
    """Return the first two rows that are not empty."""
    found: list[list[str]] = []
    csv.field_size_limit(_HEAD_CHARACTERS)
    try:
        for row in csv.reader(StringIO(text, newline=""), delimiter=separator):
            if row:
                found.append(row)
            if len(found) == 2:
                break
    except csv.Error:  # a field longer than what was looked at; pandas reads or refuses the file
        pass
    return found


def _refuse_other_separator(where: str, name: str, text: str, separator: str) -> None:
    for other, shown in _SEPARATORS.items():
        rows = _rows(text, other) if other != separator else []
        if len(rows) == 2 and 1 < len(rows[0]) <= len(rows[1]):
            raise DataError(
                f"{where}: '{name}' has one column, and looks as if {shown} stands between its fields; set separator: "
                f"{shown}"
            )


def _zeros(
    frame: pd.DataFrame,
    content: bytes,
    separator: str,
    read: Callable[[list[str]], pd.DataFrame],
    renamed: Mapping[str, str],
) -> dict[str, str]:
    """Return columns that were read as numbers -> a value with a 0 in front, as codes and dates have.

    A column of months such as 03.2024 is put back as text.
    """
    numbers = [old for old, new in renamed.items() if types.is_numeric_dtype(frame[new]) and frame[new].dtype != bool]
    if not numbers or not _may_have_zeros(content, separator):
        return {}
    found = {}
    texts = read(numbers)
    for old in numbers:
        column = texts[old].dropna()
        zeros = column[column.str.match(r"\s*[+-]?0\d")]
        if len(zeros):
            found[renamed[old]] = str(zeros.iloc[0]).strip()
            if column.str.fullmatch(r"\s*(?:0[1-9]|1[0-2])\.(?:19|20)\d\d\s*").all():
                frame[renamed[old]] = texts[old]
    return found


def _may_have_zeros(content: bytes, separator: str) -> bool:
    """Return whether a field begins with a 0 before another digit, after a space or sign at most."""
    starts, between = np.zeros(256, dtype=bool), np.zeros(256, dtype=bool)
    starts[[*separator.encode(), *b'\r\n"']] = True
    between[[*b" +-"]] = True
    text = np.frombuffer(content, dtype=np.uint8)
    for start in range(0, len(text), _BLOCK_BYTES):
        block = text[max(start - 2, 0) : start + _BLOCK_BYTES + 1]
        zeros = np.flatnonzero(block[2:-1] == ord("0")) + 2
        before, after = block[zeros - 1], block[zeros + 1]
        first = starts[before] | (between[before] & starts[block[zeros - 2]])
        if (first & (after >= ord("0")) & (after <= ord("9"))).any():
            return True
    return False
