"""Rows of JSON files, one after the other, in bounded memory."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

from tl_reward.data.sources.row import MOST_BYTES
from tl_reward.errors import InputError, first_line

CHUNK = 2**16  # bytes of a .json file that are read at a time
_DECODER = json.JSONDecoder()
_File = BufferedReader | gzip.GzipFile


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    read = _lines if path.name.removesuffix(".gz").endswith(".jsonl") else _listed
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield from read(file, path)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not readable ({first_line(error)})") from None


def _lines(file: _File, path: Path) -> Iterator[tuple[int, Any]]:
    """A row a line. Lines end with a line feed alone: JSON allows Unicode's other line separators inside a string."""
    number, empty = 0, True
    while line := file.readline(MOST_BYTES + 1):
        number += 1
        if len(line) > MOST_BYTES:
            raise InputError(f"{path}:{number}: a row may have {MOST_BYTES:,} bytes, and this one has more")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}:{number}: not readable as UTF-8 text (byte {error.start + 1} of the line): save it as UTF-8"
            ) from None
        if text.strip():
            row = _json(text, f"{path}:{number}")
            if empty and isinstance(row, list):
                raise InputError(f"{path}:{number}: the line is a list, and a line of .jsonl is one row {{…}}: call the file .json")
            empty = False
            yield number, row
    if empty:
        raise InputError(f"{path}: file is empty")


_WHITE = re.compile(r"[ \t\n\r]*")


def _listed(file: _File, path: Path) -> Iterator[tuple[int, Any]]:
    """The rows of a list, without holding all of the file; or of JSON lines that are called .json: one after the other, in no list."""
    decode = codecs.getincrementaldecoder("utf-8-sig")()
    text, at, ended, number, comma = "", 0, False, 0, False
    form: Literal["nothing", "list", "end of the list", "rows"] = "nothing"  # what has been read
    first: list[Any] = []  # a row outside a list, until it is certain that more follow

    def more(least: int) -> None:
        nonlocal text, at, ended
        chunk = file.read(max(CHUNK, least))
        ended = not chunk
        try:
            text, at = text[at:] + decode.decode(chunk, final=ended), 0
        except UnicodeDecodeError:
            raise InputError(f"{path}:{number + 1}: not readable as UTF-8 text: save it as UTF-8") from None

    while True:
        at = _end_of(_WHITE, text, at)
        if at == len(text):
            if not ended:
                more(0)
                continue
            if form == "list":
                raise InputError(f"{path}:{number + 1}: malformed JSON (the list has no end)")
            if form == "nothing":
                raise InputError(f"{path}: file is empty")
            if first:
                raise InputError(f"{path}: a .json file must hold a list of rows, got {type(first[0]).__name__}{_rows_within(first[0])}")
            return
        if form == "end of the list":
            raise InputError(f"{path}: malformed JSON (something follows after the end of the list)")
        if form == "nothing":
            form = "list" if text[at] == "[" else "rows"
            at += form == "list"
            continue
        if form == "list" and text[at] == "]" and not comma:
            form, at = "end of the list", at + 1
            continue
        if form == "list" and number and not comma:
            if text[at] != ",":
                raise InputError(f"{path}:{number}: malformed JSON (no comma after this row)")
            at, comma = at + 1, True
            continue
        row = _next_row(text, at, ended, f"{path}:{number + 1}")
        if (len(text) if row is None else row[1]) - at > MOST_BYTES:
            raise InputError(f"{path}:{number + 1}: a row may have {MOST_BYTES:,} bytes, and this one has more")
        if row is None:
            more(len(text) - at)
            continue
        value, at = row
        number, comma = number + 1, False
        if form == "rows" and number == 1:
            first.append(value)
            continue
        if first:
            yield 1, first.pop()
        yield number, value


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _next_row(text: str, at: int, ended: bool, where: str) -> tuple[Any, int] | None:
    """The JSON value at a place of a text, and where it ends; None where more of the text is needed."""
    try:
        value, end = _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        # A text that is cut fails at its end, or where the string begins that has none.
        cut = error.pos > len(text) - 16 or error.msg.startswith("Unterminated string")
        if cut and not ended:
            return None
        raise InputError(f"{where}: malformed JSON ({_fault(error, text[at:], error.pos - at)})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets a thousand deep
        raise InputError(f"{where}: malformed JSON ({first_line(error)})") from None
    return (value, end) if end < len(text) or ended else None


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: malformed JSON ({_fault(error, text, error.pos, line=True)})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets a thousand deep
        raise InputError(f"{where}: malformed JSON ({first_line(error)})") from None


def _fault(error: json.JSONDecodeError, text: str, at: int, *, line: bool = False) -> str:
    """What is wrong with a row, where in it, and what would be right.

    Args:
        text: the row, and what follows.
        at: where in it the fault is.
        line: the row is a line of a file.
    """
    near = ascii(text[max(at - 12, 0) : at + 12])
    return f"{error.msg} at character {at + 1} of the row, near {near}{_helps(text, at, error.msg, line=line)}"


def _helps(text: str, at: int, said: str, *, line: bool) -> str:
    """What would be right, where the fault is one of those that are often made."""
    here, before, begins = text[at : at + 1], text[:at].rstrip()[-1:], text.lstrip()[:1]
    if line and text.strip() in ("[", "{"):
        return "; a line of .jsonl holds a whole row: call the file .json"
    if line and begins not in ("{", "["):
        return "; a line of .jsonl is an object {…}"
    if here == "'":
        return "; JSON has double quotes, as json.dumps writes them"
    if (here in ("}", "]") and (before == "," or at == 0)) or said.startswith("Illegal trailing comma"):
        return "; leave out the comma before the bracket"
    if said.startswith("Extra data"):
        return "; leave out the comma after the row" if here == "," else "; a line of .jsonl holds one row alone"
    if said.startswith("Invalid control character"):
        return "; within a text, a line break is \\n and a tab \\t"
    if text[at:].startswith(("None", "True", "False")):
        return "; JSON has null, true and false"
    return "; the row is cut there" if not text[at:].strip() or said.startswith("Unterminated string") else ""


def _rows_within(found: Any) -> str:
    """Where the rows may be in what is no list of them, as the end of a message."""
    if not isinstance(found, dict):
        return ""
    lists = {key: value for key, value in found.items() if isinstance(value, list) and value}
    key = next((key for key, value in lists.items() if isinstance(value[0], dict)), None)
    if key is not None:
        return f": write the list under {ascii(key)[:60]} alone"
    return ": it holds a list for each column, and pandas' to_json(orient='records') writes a list of rows" if len(lists) > 1 else ""
