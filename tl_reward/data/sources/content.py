"""What a file is that is not read, by its name and by its first bytes: each is said with what makes a readable one of it."""

from pathlib import Path

from tl_reward.errors import InputError

_PAGE = "see docs/converting.md"
_SHEET = f"a spreadsheet: save it as CSV (UTF-8), or give tl_reward.pairs_from(pandas.read_excel(…)); {_PAGE}"
_PICKLE = f"a pickle, which can run code: write its rows as .jsonl where you trust it; {_PAGE}"
_ARROW = "an Arrow file: give the folder that save_to_disk wrote, or tl_reward.pairs_from(datasets.Dataset.from_file(…))"
_PACKED = f"packed, and not by gzip: unpack it; {_PAGE}"
_BY_NAME = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), _SHEET),
    **dict.fromkeys((".txt", ".ndjson", ".jsonlines", ".jl"), "text: where each line of it is a JSON object, call it .jsonl"),
    **dict.fromkeys((".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar", ".zst", ".bz2", ".xz", ".lz4"), _PACKED),
    **dict.fromkeys((".arrow", ".feather"), _ARROW),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".bin"), _PICKLE),
}
_BY_BYTES = {
    b"PK\x03\x04": f"a zip archive, as spreadsheets are: unpack it, or save the table as CSV (UTF-8); {_PAGE}",
    b"\xd0\xcf\x11\xe0": _SHEET,
    b"PAR1": "a parquet file: call it .parquet",
    b"\x1f\x8b": "packed by gzip: let its name end in .gz",
    b"\x28\xb5\x2f\xfd": _PACKED,
    b"BZh": _PACKED,
    b"\xfd7zXZ": _PACKED,
    b"version https://git-lfs": "a pointer of Git LFS, and not the file itself: git lfs pull fetches it",
    b"<!DOCTYPE": "a web page, and not the file itself: download that",
    b"<html": "a web page, and not the file itself: download that",
}


def what_name_says(path: Path, known: tuple[str, ...]) -> str:
    """What helps where a file's name ends in none of the known suffixes, as the end of a message; nothing for an unknown one."""
    name = path.name.lower()
    if name.endswith(known):
        return " (in small letters)"
    found = next((said for suffix, said in _BY_NAME.items() if name.endswith(suffix)), None)
    return f"; this is {found}" if found else ""


def check_content(path: Path) -> None:
    """Looks at the first bytes of a file that is there and not empty.

    Raises:
        InputError: they are those of another kind of file than the name says, or of text that is not UTF-8.
    """
    with path.open("rb") as file:
        head = file.read(64)
    kind = next((kind for kind in (".gz", ".parquet") if path.name.endswith(kind)), "text")
    if head.startswith({".gz": b"\x1f\x8b", ".parquet": b"PAR1"}.get(kind, b"\0\0\0\0")):
        return
    found = next((said for start, said in _BY_BYTES.items() if head.startswith(start)), None)
    if found is not None and not (kind == ".gz" and head.startswith(b"PAR1")):
        raise InputError(f"{path}: not readable, since it is {found}")
    if kind == ".gz":
        raise InputError(f"{path}: not readable as gzip, which its name says it is: leave out the .gz where it is not packed")
    if kind == ".parquet":
        raise InputError(f"{path}: not a readable parquet file, which its name says it is: text needs the name .jsonl, .json or .csv")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or _has_nul_every_second(head):
        raise InputError(f"{path}:1: not readable as UTF-8 text (byte 1 of the file), since it is UTF-16: save it as UTF-8; {_PAGE}")


def _has_nul_every_second(head: bytes) -> bool:
    """As English text in UTF-16 has, where no mark says that it is."""
    return any(len(head) > 8 and not any(head[start::2]) and all(head[1 - start : -1 : 2]) for start in (0, 1))
