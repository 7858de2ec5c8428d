"""Preference pairs from local files, from the Hugging Face hub, and from the package itself."""

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from importlib.resources import files
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tl_reward.data.pairs import OBJECTIVES, BadPair, Objective, PreferencePair, check_unique_ids, pairs_of_row
from tl_reward.errors import InputError, first_line

# Short pairs written for this project, half of each objective in the split "find" and half in "test".
EMBEDDED = "embedded"
EMBEDDED_FILE = Path(str(files("tl_reward"))) / "data" / "embedded_pairs.jsonl"
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
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
    on_bad: Literal["error", "drop"] = "error",
) -> list[PreferencePair]:
    """Reads preference pairs from a local file, or from a dataset on the Hugging Face hub.

    Args:
        source: a file ending in one of `SUFFIXES`, a hub id such as `Anthropic/hh-rlhf`, or "embedded".
        objective: keeps the rows of this objective, where rows name theirs, and marks the rest with it. "mixed" keeps all. For
            `Anthropic/hh-rlhf` it also chooses the folders (`HH_DATA_DIRS`).
        subset: keeps the rows of this subset.
        data_dir: which folder of a hub dataset.
        split: which split of a hub dataset (None is "test"). Of a file, keeps the rows of this split, where rows name theirs.
        limit: keeps the first `limit` rows; a best-of-n row counts as one, and keeps all of its pairs.
        on_bad: "error" stops at a pair with an empty side or two equal ones, "drop" leaves such pairs out.

    Raises:
        InputError: a missing or empty file, malformed JSON (with file and line), an unknown schema, objective or subset, a bad pair.
    """
    if objective is not None and objective not in OBJECTIVES:
        raise InputError(f"objective must be one of {', '.join(OBJECTIVES)}, got {objective!r}")
    if limit is not None and limit < 1:
        raise InputError(f"limit must be at least 1, got {limit}")
    if source == EMBEDDED:
        source = EMBEDDED_FILE
    local = looks_local(source)
    rows = _local_rows(Path(source)) if local else _hub_rows(str(source), objective, data_dir, split or "test")
    pairs: list[PreferencePair] = []
    for where, default_id, row in rows:
        if local and split and isinstance(row, Mapping) and row.get("split", split) != split:
            continue
        try:
            pairs.extend(pairs_of_row(row, default_id))
        except BadPair as error:
            if on_bad == "error":
                raise InputError(f'{where}: {error} (such pairs can be dropped: on_bad="drop", --drop-bad)') from None
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    if not pairs:
        raise InputError(f"{source}: no pairs found in it" + (f" in split {split!r}" if split else ""))
    pairs = _with_objective(pairs, objective, source)
    if subset is not None:
        known = sorted({pair.subset for pair in pairs if pair.subset})
        pairs = [pair for pair in pairs if pair.subset == subset]
        if not pairs:
            raise InputError(f"{source}: no subset {subset!r}; it has {', '.join(known) or 'no subsets'}")
    rows_kept = list(dict.fromkeys(pair.group or pair.id for pair in pairs))[:limit]
    kept = set(rows_kept)
    pairs = [pair for pair in pairs if (pair.group or pair.id) in kept]
    check_unique_ids(pairs, str(source))
    return pairs


def _with_objective(pairs: list[PreferencePair], objective: Objective | None, source: str | Path) -> list[PreferencePair]:
    if objective in (None, "mixed"):
        return pairs
    kept = [replace(pair, objective=objective) for pair in pairs if pair.objective in (None, objective)]
    if not kept:
        found = sorted({pair.objective for pair in pairs if pair.objective})
        raise InputError(f"{source}: no {objective} pairs; it has {', '.join(found)}")
    return kept


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
        raise InputError(f"{path}: {'is a folder, not a file of pairs' if path.is_dir() else 'no such file'}")
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path}: file name must end in one of {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: file is empty")
    rows = _parquet(path) if path.suffix == ".parquet" else _json_rows(path)
    yield from (SourceRow(f"{path}:{number}", f"{short_name(path)}:{number}", row) for number, row in rows)


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow.lib
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.lib.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable parquet file ({first_line(error)})") from None
    yield from enumerate(table.to_pylist(), 1)


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            text = file.read()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(f"{path}: not readable as UTF-8 text ({first_line(error)})") from None
    if not text.strip():
        raise InputError(f"{path}: file is empty")
    if path.name.removesuffix(".gz").endswith(".jsonl"):
        # Not splitlines(): it would also break at U+2028, which JSON allows inside a string.
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield number, _json(line, f"{path}:{number}")
        return
    rows = _json(text, str(path))
    if not isinstance(rows, list):
        raise InputError(f"{path}: a .json file must hold a list of rows, got {type(rows).__name__}")
    yield from enumerate(rows, 1)


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
