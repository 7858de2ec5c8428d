"""Rows of a file, or of all files of a folder."""

import re
from collections.abc import Iterator
from pathlib import Path

from tl_reward.data.messages import printable
from tl_reward.data.sources.content import check_content, what_name_says
from tl_reward.data.sources.given import holds_splits, rows_of_table
from tl_reward.data.sources.json_rows import json_rows
from tl_reward.data.sources.row import SourceRow
from tl_reward.data.sources.tables import csv_rows, parquet_rows
from tl_reward.errors import InputError, did_you_mean, first_line

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet", ".csv", ".tsv", ".csv.gz", ".tsv.gz")
# What a folder of data holds besides: files about the data, written by `datasets` and the hub.
_ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json")
_SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "eval": "validation", "evaluation": "validation",
}  # fmt: skip


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
    stem = stem_of(path.name)
    return f"{path.parent.name}/{stem}" if path.parent.name else stem


def stem_of(name: str) -> str:
    """A file's name without its suffix."""
    return next((name.removesuffix(suffix) for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), name)


def local_rows(path: Path, split: str | None) -> Iterator[SourceRow]:
    """The rows of a file; or of the files of a folder, in the order of their paths: those of `split`, where their names tell splits.

    Raises:
        InputError: no such file, another kind of file, an empty one, one that is not readable; a folder without any, or with several splits
            of which none was asked for.
    """
    if path.is_dir():
        yield from _folder(path, split)
    else:
        yield from file_rows(path, short_name(path))


def file_rows(path: Path, name: str) -> Iterator[SourceRow]:
    if not path.is_file():
        known = [*(["embedded"] if len(path.parts) == 1 else []), *_names_beside(path)]
        missing = f"no such file{did_you_mean(path.name, known)}"
        raise InputError(f"{path}: {'is no regular file' if path.exists() else missing}")
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path}: file name must end in one of {', '.join(SUFFIXES)}{what_name_says(path, SUFFIXES)}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: file is empty")
    try:
        check_content(path)
    except OSError as error:
        raise InputError(f"{path}: not readable ({first_line(error)})") from None
    kind = path.name.removesuffix(".gz")
    rows = parquet_rows(path) if kind.endswith(".parquet") else csv_rows(path) if kind.endswith((".csv", ".tsv")) else json_rows(path)
    yield from (SourceRow(f"{path}:{number}", f"{printable(name)}:{number}", row) for number, row in rows)


def _names_beside(path: Path) -> list[str]:
    """The names of files in the folder in which a file is not, as far as they can be read, and written in a line."""
    try:
        return [each.name for each in path.parent.iterdir() if each.name.isprintable()]
    except OSError:
        return []


def _folder(path: Path, split: str | None) -> Iterator[SourceRow]:
    if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        yield from _saved_dataset(path, split)
        return
    inside = [(file, file.relative_to(path)) for file in sorted(path.rglob("*"))]
    files = {
        file: split_of(part)
        for file, part in inside
        if file.name.endswith(SUFFIXES)
        and file.name not in _ABOUT
        and file.is_file()
        and not any(step.startswith((".", "_")) for step in part.parts)
    }
    if not files:
        raise InputError(f"{path}: is a folder without a file of pairs ({', '.join(SUFFIXES)})")
    splits = sorted({named for named in files.values() if named})
    wanted = _SPLITS.get(split or "", split)
    if split is None and (len(splits) > 1 or (splits and not all(files.values()))):
        if len(splits) == 1:
            raise InputError(f"{path}: is a folder with a split {splits[0]} and files that name none: give the files one by one")
        raise InputError(f"{path}: is a folder with the splits {', '.join(splits)}: say which, with split={splits[0]!r}")
    if split is not None and splits and wanted not in splits and all(files.values()):
        raise InputError(f"{path}: no split {split!r}; it has {', '.join(splits)}")
    for file, named in files.items():
        if split is None or named in (None, wanted):
            part = file.relative_to(path)
            rows = file_rows(file, "/".join([path.resolve().name, *part.parts[:-1], stem_of(part.name)]))
            yield from (row._replace(split=split) for row in rows) if named else rows


def split_of(path: Path) -> str | None:
    """The split that a file's path names: `train-00000-of-00002.parquet`, `test/0.jsonl`, `helpful-test.jsonl.gz`.

    >>> split_of(Path("data/train-00000-of-00002.parquet")), split_of(Path("val.csv")), split_of(Path("contest.csv"))
    ('train', 'validation', None)
    """
    words = [word for part in (stem_of(path.name), *reversed(path.parts[:-1])) for word in re.split(r"[-_.]", part.lower())]
    return next((_SPLITS[word] for word in words if word in _SPLITS), None)


def _saved_dataset(path: Path, split: str | None) -> Iterator[SourceRow]:
    """What `Dataset.save_to_disk` wrote."""
    import datasets

    try:
        rows = datasets.load_from_disk(str(path))
    except Exception as error:  # datasets raises many kinds for a folder that lacks something
        raise InputError(f"{path}: not readable as a saved Dataset ({first_line(error)})") from None
    for number, row in rows_of_table(rows, split, str(path)):
        yield SourceRow(f"{path}:{number}", f"{path.resolve().name}:{number}", row, split if holds_splits(rows) else None)
