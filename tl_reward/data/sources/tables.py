"""Rows of tables: CSV, TSV, parquet."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tl_reward.data.sources.row import MOST_BYTES
from tl_reward.errors import InputError, first_line

# Keys by which the objects in a cell are messages or answers, and no text that happens to be JSON.
_OBJECTS = ({"role", "content"}, {"from", "value"}, {"answer", "rank"})
# How Python writes a list of messages, and pandas with it.
_PYTHONS = re.compile(r"\s*\[?\s*\{'(role|content|from|value|answer|rank|model)':")


def parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        parts = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1000)
        yield from enumerate((row for part in parts for row in part.to_pylist()), 1)
    except (pyarrow.lib.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable parquet file ({first_line(error)})") from None


def csv_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows under the names in the first line; the first row after that line is row 1. A cell that holds nothing is None."""
    delimiter = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ","
    said = "a tab" if delimiter == "\t" else "a comma"
    csv.field_size_limit(max(MOST_BYTES, csv.field_size_limit()))  # the least that Python allows is shorter than a long answer
    number = 0
    try:
        rows = csv.reader(_lines(path), delimiter=delimiter, strict=True)
        names = _names(next(rows, []), path)
        _check_delimiter(names, delimiter, path)
        for number, cells in enumerate(filter(None, rows), 1):
            if len(cells) != len(names):
                raise InputError(
                    f"{path}:{number}: a row of {len(cells)} cells under {len(names)} names: a cell that holds {said} or a line break must "
                    "be in double quotes"
                )
            if sum(map(len, cells)) > MOST_BYTES:
                raise InputError(f"{path}:{number}: a row may have {MOST_BYTES:,} bytes, and this one has more")
            yield number, {name: _cell(name, cell, f"{path}:{number}") for name, cell in zip(names, cells, strict=True)}
    except csv.Error as error:
        quotes = "a cell with a double quote in it must be in double quotes, and that one written twice"
        raise InputError(f"{path}:{number + 1}: malformed row ({first_line(error)}): {quotes}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not readable ({first_line(error)})") from None


def _lines(path: Path) -> Iterator[str]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        number = 0
        while line := file.readline(MOST_BYTES + 1):
            number += 1
            if len(line) > MOST_BYTES:
                raise InputError(f"{path}: line {number} of the file has more than {MOST_BYTES:,} bytes")
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path}: line {number} of the file is not readable as UTF-8 text (byte {error.start + 1}): save it as UTF-8"
                ) from None


def _names(cells: list[str], path: Path) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not any(names):
        raise InputError(f"{path}: file is empty, or its first line names no column")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: two columns are called {ascii(twice)[:60]}")
    return names


def _check_delimiter(names: list[str], delimiter: str, path: Path) -> None:
    """Says no to a first line of one name that has another delimiter in it."""
    found = next((mark for mark in "\t,;|" if mark != delimiter and mark in names[0]), None) if len(names) == 1 else None
    if found is None:
        return
    helps = {"\t": "let its name end in .tsv", ",": "let its name end in .csv"}
    other = f"tl_reward.pairs_from(pandas.read_csv(…, sep={found!r})) reads such a file"
    raise InputError(f"{path}: the first line is one column, {ascii(names[0])[:60]}, parted by {found!r}: {helps.get(found, other)}")


def _cell(name: str, text: str, where: str) -> Any:
    """The text of a cell; the messages in it, where it holds some as JSON."""
    if not text:
        return None
    if _PYTHONS.match(text):
        raise InputError(
            f"{where}: column {name} holds a list of messages as Python writes it: write the table as .jsonl or .parquet, or the cell "
            "as JSON"
        )
    if text.lstrip()[:1] not in ("[", "{"):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    items = value if isinstance(value, list) else [value]
    return value if items and all(isinstance(item, Mapping) and any(keys <= set(item) for keys in _OBJECTS) for item in items) else text
