"""Preference pairs from local files, from the Hugging Face hub, and from the package itself."""

import codecs
import gzip
import json
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from io import BufferedReader
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tl_reward.arguments import check_argument, is_whole
from tl_reward.data.pairs import BadPair, Objective, PreferencePair, check_unique_ids, faults_of, pairs_of_row
from tl_reward.data.reading import Label
from tl_reward.errors import InputError, did_you_mean, first_line

# Short pairs written for this project, half of each objective in the split "find" and half in "test".
EMBEDDED = "embedded"
EMBEDDED_FILE = Path(str(files("tl_reward"))) / "data" / "embedded_pairs.jsonl"
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
# Bytes that a row of a JSON file may have, unpacked: more than any model reads, and little enough that a file made to fill memory cannot.
MOST_BYTES = 16 * 2**20
CHUNK = 2**16  # bytes of a .json file that are read at a time
_DECODER = json.JSONDecoder()
OnBad = Literal["error", "drop"]
# Bai et al. 2022 publish the objectives of HH-RLHF as folders of one dataset.
HH_DATA_DIRS = {
    "helpful": ("helpful-base", "helpful-online", "helpful-rejection-sampled"),
    "harmless": ("harmless-base",),
}


class SourceRow(NamedTuple):
    """A row as it was found: `where` for messages, `default_id` for a row that names none."""

    where: str
    default_id: str
    row: Any


def load_pairs(
    source: str | Path,
    *,
    objective: Objective | None = None,
    subset: str | None = None,
    data_dir: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    on_bad: OnBad = "error",
) -> list[PreferencePair]:
    """Reads preference pairs from a local file, or from a dataset on the Hugging Face hub.

    Files are read row by row, and no further than `limit` asks for. One warning says how many pairs were left out, by reason, and how many
    are odd: two sides of different prompts, a blank prompt, a pair that is there more than once.

    Args:
        source: a file ending in one of `SUFFIXES`, a hub id such as `Anthropic/hh-rlhf`, or "embedded".
        objective: keeps the rows of this objective, and marks with it those that name none, which the warning counts. Where rows name
            others alone, it is refused. "mixed" keeps all. For `Anthropic/hh-rlhf` it also chooses the folders (`HH_DATA_DIRS`).
        subset: keeps the rows of this subset.
        data_dir: which folder of a hub dataset.
        split: which split of a hub dataset (None is "test"). Of a file, keeps the rows of this split, and those that name none, which the
            warning counts; where rows name others alone, it is refused. None keeps all rows of a file, of the embedded pairs both splits.
        limit: keeps the first `limit` rows; a best-of-n row counts as one, and keeps all of its pairs.
        on_bad: "error" stops at a pair with an empty side or two equal ones, "drop" leaves such pairs out.

    Raises:
        InputError: a missing or empty file; malformed JSON or text that is no UTF-8 (with file and row); a row of more than `MOST_BYTES`;
            an unknown schema, objective, subset or split; a bad pair; two pairs with one id.
    """
    for label, value, hint in (("source", source, str | Path), ("objective", objective, Objective | None), ("on_bad", on_bad, OnBad)):
        check_argument(label, value, hint)
    if limit is not None and (not is_whole(limit) or limit < 1):
        raise InputError(f"limit must be a whole number of at least 1, got {limit}")
    if not str(source).strip():
        raise InputError(f'pairs are read from a file, a hub id such as Anthropic/hh-rlhf, or "{EMBEDDED}"; got {str(source)!r}')
    if source == EMBEDDED:
        source = EMBEDDED_FILE
    local = looks_local(source)
    rows = _local_rows(Path(source)) if local else _hub_rows(str(source), objective, data_dir, split or "test")
    labels = Label("split", split if local else None), Label("objective", None if objective == "mixed" else objective)
    found = _Found(Counter(), Counter(), set(), set(), *labels)
    pairs: list[PreferencePair] = []
    kept: set[str] = set()
    for row in rows:
        for pair in _read(row, on_bad, found):
            if not found.objective.takes(pair.objective):
                continue
            if objective not in (None, "mixed"):
                pair = replace(pair, objective=objective)
            found.subsets.add(pair.subset or "")
            if subset in (None, pair.subset):
                pairs.append(pair)
                kept.add(pair.group or pair.id)
        if len(kept) == limit:  # a best-of-n row counts as one, and is kept whole
            break
    for label in labels:
        label.check(str(source))
    if not pairs:
        raise InputError(f"{source}: {_nothing(found, split, objective, subset)}")
    check_unique_ids(pairs, str(source))
    _say(str(source), pairs, found)
    return pairs


class _Found(NamedTuple):
    """What a file holds besides the pairs that are kept."""

    left_out: Counter[str]
    read: Counter[str]
    objectives: set[str]
    subsets: set[str]
    split: Label
    objective: Label


def _read(source: "SourceRow", on_bad: OnBad, found: _Found) -> list[PreferencePair]:
    """The pairs of a row; none where it is of another split, or bad and left out."""
    row = source.row
    if isinstance(row, Mapping) and not found.split.takes(row.get("split")):
        return []
    try:
        pairs = pairs_of_row(row, source.default_id, source.where)
    except BadPair as error:
        if on_bad == "error":
            raise InputError(f'{source.where}: {error} (such pairs can be dropped: on_bad="drop")') from None
        found.left_out[error.reason] += 1
        return []
    except InputError as error:
        raise InputError(f"{source.where}: {error}") from None
    except RecursionError:
        raise InputError(f"{source.where}: lists in lists, too deep to read") from None
    found.read["pairs"] += len(pairs)
    found.objectives.update(pair.objective for pair in pairs if pair.objective)
    return pairs


def _nothing(found: _Found, split: str | None, objective: str | None, subset: str | None) -> str:
    """Why no pair is left of a source."""
    if not found.read["pairs"]:
        bad = ", ".join(f"{count} rows where {reason}" for reason, count in found.left_out.items())
        return "no pairs found in it" + (f" in split {split!r}" if split else "") + (f"; left out: {bad}" if bad else "")
    if not found.subsets:
        return f"no {objective} pairs; it has {', '.join(sorted(found.objectives))}"
    return f"no subset {subset!r}; it has {', '.join(sorted(found.subsets - {''})) or 'no subsets'}"


def _say(source: str, pairs: Sequence[PreferencePair], found: _Found) -> None:
    said = [f"{count:,} rows left out where {reason}" for reason, count in found.left_out.items()]
    said += [*found.split.said(), *found.objective.said()]
    if found.split.asked is None and source == str(EMBEDDED_FILE):
        said.append("both splits, find and test, are read: split= chooses one")
    said += [f"{count:,} of {len(pairs):,} pairs {what}" for what, count in faults_of(pairs).items()]
    if said:
        warnings.warn(f"{source}: {'; '.join(said)}", stacklevel=3)


def looks_local(source: str | Path) -> bool:
    """Whether pairs are in a file. A hub id is exactly `owner/name`; anything else that is no file is a path with a mistake in it."""
    path = Path(source)
    return path.exists() or path.name.endswith(SUFFIXES) or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source))


def short_name(path: str | Path) -> str:
    """`data/rmb/helpful-test.jsonl.gz` → `rmb/helpful-test`: what reports call a file.

    >>> short_name("data/rmb/helpful-test.jsonl.gz"), short_name("embedded")
    ('rmb/helpful-test', 'embedded')
    """
    path = Path(path)
    stem = next(
        (path.name.removesuffix(suffix) for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(suffix)), path.name
    )
    return f"{path.parent.name}/{stem}" if path.parent.name else stem


def _local_rows(path: Path) -> Iterator[SourceRow]:
    if not path.is_file():
        missing = f"no such file{did_you_mean(str(path), [EMBEDDED])}"
        there = "is a folder, not a file of pairs" if path.is_dir() else "is no regular file"
        raise InputError(f"{path}: {there if path.exists() else missing}")
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path}: file name must end in one of {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: file is empty")
    rows = _parquet(path) if path.suffix == ".parquet" else _json_rows(path)
    name = "".join(letter if letter.isprintable() else "?" for letter in short_name(path))  # ids are printable, names of files need not be
    yield from (SourceRow(f"{path}:{number}", f"{name}:{number}", row) for number, row in rows)


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        parts = pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1000)
        yield from enumerate((row for part in parts for row in part.to_pylist()), 1)
    except (pyarrow.lib.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable parquet file ({first_line(error)})") from None


_File = BufferedReader | gzip.GzipFile


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
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
            raise InputError(f"{path}:{number}: not readable as UTF-8 text (byte {error.start + 1} of the line)") from None
        if text.strip():
            empty = False
            yield number, _json(text, f"{path}:{number}")
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
            raise InputError(f"{path}:{number + 1}: not readable as UTF-8 text") from None

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
                raise InputError(f"{path}: a .json file must hold a list of rows, got {type(first[0]).__name__}")
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
        raise InputError(f"{where}: malformed JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets a thousand deep
        raise InputError(f"{where}: malformed JSON ({first_line(error)})") from None
    return (value, end) if end < len(text) or ended else None


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno} " if "\n" in text else ""
        raise InputError(f"{where}: malformed JSON ({error.msg} at {line}column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets a thousand deep
        raise InputError(f"{where}: malformed JSON ({first_line(error)})") from None


def _hub_rows(hub_id: str, objective: Objective | None, data_dir: str | None, split: str) -> Iterator[SourceRow]:
    folders: Iterable[tuple[str | None, str | None]] = [(data_dir, None)]
    if hub_id == "Anthropic/hh-rlhf" and data_dir is None:
        wanted = list(HH_DATA_DIRS) if objective in (None, "mixed") else [objective]
        folders = [(folder, name) for name in wanted for folder in HH_DATA_DIRS[name]]
    parts = [_hub_folder(hub_id, folder, label, split) for folder, label in folders]
    # Row by row from each folder, so that a limit keeps some of every one.
    for rows in zip_longest(*parts):
        yield from (row for row in rows if row is not None)


def _hub_folder(hub_id: str, folder: str | None, label: str | None, split: str) -> Iterator[SourceRow]:
    import datasets

    try:
        rows = datasets.load_dataset(hub_id, data_dir=folder, split=split)
    except Exception as error:  # datasets raises many kinds for "not there" and "no network"
        raise InputError(f"{hub_id}: not a local file, and the hub did not give it ({first_line(error)})") from None
    place = f"{folder}/{split}" if folder else split
    for number, row in enumerate(rows, 1):
        yield SourceRow(f"{hub_id}/{place}:{number}", f"{place}:{number}", dict(row) | ({"objective": label} if label else {}))
