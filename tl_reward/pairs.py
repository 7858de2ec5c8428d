"""Preference pairs: what they are, and how they are read from files and from the Hugging Face hub.

A pair holds two transcripts, chosen and rejected. Every schema is read into the same form, messages with roles, so that the text a
model sees is written in one place only (`tl_reward.tokens`).
"""

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tl_reward.errors import InputError

Role = Literal["system", "user", "assistant"]
Objective = Literal["helpful", "harmless", "mixed"]

OBJECTIVES: tuple[Objective, ...] = ("helpful", "harmless", "mixed")
# Short pairs written for this project, half of each objective in the split "find" and half in "test".
EMBEDDED = "embedded"
EMBEDDED_FILE = Path(__file__).parent / "data" / "embedded_pairs.jsonl"
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", ".parquet")
SCHEMAS = {
    "transcripts": "chosen, rejected: text with turns opened by '\\n\\nHuman:' and '\\n\\nAssistant:' (HH-RLHF, RMB)",
    "responses": "prompt, chosen, rejected: text (RewardBench, embedded pairs)",
    "messages": "chosen, rejected: lists of {role, content}, with or without a prompt of that form (TRL)",
    "best-of-n": "prompt, chosen, rejected: a list of texts on each side (RM-Bench, RewardBench 2)",
}
# Bai et al. 2022 publish the objectives of HH-RLHF as folders of one dataset.
HH_DATA_DIRS = {
    "helpful": ("helpful-base", "helpful-online", "helpful-rejection-sampled"),
    "harmless": ("harmless-base",),
}
_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
}
_TURN = re.compile(r"\n\n(Human|Assistant):")


class Message(NamedTuple):
    role: Role
    content: str


Transcript = tuple[Message, ...]


@dataclass(frozen=True)
class PreferencePair:
    """Two transcripts, of which `chosen` is the better one.

    `objective` is what the preference is about ("helpful" or "harmless"), `subset` the task within it. Pairs that come from one
    best-of-n row share a `group`: the row counts as right when every pair in it does. A transcript may end with an assistant turn that
    says nothing, as some of HH-RLHF's do.
    """

    id: str
    chosen: Transcript
    rejected: Transcript
    objective: str | None = None
    subset: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        for side in ("chosen", "rejected"):
            transcript: Transcript = getattr(self, side)
            if not transcript or transcript[-1].role != "assistant":
                last = transcript[-1].role if transcript else "nothing"
                raise InputError(f"pair {self.id}: {side} must end with an assistant message, got {last}")
        if self.chosen == self.rejected:
            raise InputError(f"pair {self.id}: chosen and rejected are equal")


def parse_transcript(text: str) -> Transcript:
    """Splits a transcript with turns opened by `\\n\\nHuman:` and `\\n\\nAssistant:` into messages.

    One space after the colon belongs to the marker; the rest of the text is kept as it is.

    >>> parse_transcript("\\n\\nHuman: Hi\\n\\nAssistant: Hello.")
    (Message(role='user', content='Hi'), Message(role='assistant', content='Hello.'))
    """
    head, *turns = _TURN.split(text if text.startswith("\n\n") else "\n\n" + text.lstrip("\n"))
    if head.strip() or not turns:
        raise InputError(f"a transcript must open with '\\n\\nHuman:' or '\\n\\nAssistant:', got {text[:40]!r}")
    return tuple(
        Message("user" if speaker == "Human" else "assistant", content.removeprefix(" "))
        for speaker, content in zip(turns[::2], turns[1::2], strict=True)
    )


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
        limit: keeps the first `limit` pairs.
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
    local = _looks_local(source)
    rows = _local_rows(Path(source)) if local else _hub_rows(str(source), objective, data_dir, split or "test")
    pairs: list[PreferencePair] = []
    for where, row in rows:
        if local and split and isinstance(row, Mapping) and row.get("split", split) != split:
            continue
        try:
            pairs.extend(_row_pairs(row, where))
        except InputError as error:
            if on_bad == "drop" and str(error).startswith("pair "):
                continue
            hint = ' (such pairs can be dropped: on_bad="drop", --drop-bad)' if str(error).startswith("pair ") else ""
            raise InputError(f"{where}: {error}{hint}") from None
    if not pairs:
        raise InputError(f"{source}: no pairs found in it" + (f" in split {split!r}" if split else ""))
    pairs = _with_objective(pairs, objective, source)
    if subset is not None:
        known = sorted({pair.subset for pair in pairs if pair.subset})
        pairs = [pair for pair in pairs if pair.subset == subset]
        if not pairs:
            raise InputError(f"{source}: no subset {subset!r}; it has {', '.join(known) or 'no subsets'}")
    duplicates = len(pairs) - len({pair.id for pair in pairs})
    if duplicates:
        raise InputError(f"{source}: {duplicates} pairs share an id with another one; ids must be unique")
    return pairs[:limit]


def _with_objective(pairs: list[PreferencePair], objective: Objective | None, source: str | Path) -> list[PreferencePair]:
    if objective in (None, "mixed"):
        return pairs
    kept = [
        pair if pair.objective else PreferencePair(pair.id, pair.chosen, pair.rejected, objective, pair.subset, pair.group)
        for pair in pairs
        if pair.objective in (None, objective)
    ]
    if not kept:
        found = sorted({pair.objective for pair in pairs if pair.objective})
        raise InputError(f"{source}: no {objective} pairs; it has {', '.join(found)}")
    return kept


def _looks_local(source: str | Path) -> bool:
    # A hub id is exactly `owner/name`; anything else that is not a file on disk is a path with a mistake in it.
    path = Path(source)
    return path.exists() or path.name.endswith(SUFFIXES) or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source))


def _local_rows(path: Path) -> Iterator[tuple[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path}: {'is a folder, not a file of pairs' if path.is_dir() else 'no such file'}")
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"{path}: file name must end in one of {', '.join(SUFFIXES)}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: file is empty")
    if path.suffix == ".parquet":
        import pyarrow.lib
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(path)
        except pyarrow.lib.ArrowException as error:
            raise InputError(f"{path}: not a readable parquet file ({str(error).splitlines()[0]})") from None
        yield from ((f"{path}:{number}", row) for number, row in enumerate(table.to_pylist(), 1))
        return
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            text = file.read()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as UTF-8 text ({error})") from None
    if not text.strip():
        raise InputError(f"{path}: file is empty")
    if ".jsonl" in path.name:
        # Not splitlines(): it would also break at U+2028, which JSON allows inside a string.
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"{path}:{number}", _json(line, f"{path}:{number}")
        return
    rows = _json(text, str(path))
    if not isinstance(rows, list):
        raise InputError(f"{path}: a .json file must hold a list of rows, got {type(rows).__name__}")
    yield from ((f"{path}:row {number}", row) for number, row in enumerate(rows, 1))


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: malformed JSON ({error.msg} at line {error.lineno} column {error.colno})") from None


def _hub_rows(hub_id: str, objective: Objective | None, data_dir: str | None, split: str) -> Iterator[tuple[str, Any]]:
    import datasets

    folders: Iterable[tuple[str | None, str | None]] = [(data_dir, None)]
    if hub_id == "Anthropic/hh-rlhf" and data_dir is None:
        wanted = list(HH_DATA_DIRS) if objective in (None, "mixed") else [objective]
        folders = [(folder, name) for name in wanted for folder in HH_DATA_DIRS[name]]
    for folder, label in folders:
        try:
            rows = datasets.load_dataset(hub_id, data_dir=folder, split=split)
        except Exception as error:  # datasets raises many kinds for "not there" and "no network"
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InputError(f"{hub_id}: not a local file, and the hub did not give it ({reason})") from None
        for number, row in enumerate(rows, 1):
            where = f"{hub_id}{f'/{folder}' if folder else ''}/{split}:{number}"
            yield where, dict(row) | ({"objective": label} if label else {})


def _row_pairs(row: Any, where: str) -> list[PreferencePair]:
    """The pairs of one row; its schema is told by the keys and by the types of `chosen` and `rejected`."""
    if not isinstance(row, Mapping) or not {"chosen", "rejected"} <= set(row):
        found = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
        raise InputError(f"unknown schema: found {found}; known: " + "; ".join(f"{k} ({v})" for k, v in SCHEMAS.items()))
    name = str(row.get("id") or Path(where).name)
    chosen, rejected, prompt = row["chosen"], row["rejected"], row.get("prompt")
    labels = {key: str(row[key]) if row.get(key) is not None else None for key in ("objective", "subset")}
    if _texts(chosen) and _texts(rejected):
        if prompt is None:
            raise InputError("a best-of-n row needs a prompt beside its lists of responses")
        return [
            PreferencePair(f"{name}/{i}-{j}", _transcript(prompt, good), _transcript(prompt, bad), **labels, group=name)
            for i, good in enumerate(chosen)
            for j, bad in enumerate(rejected)
        ]
    for side, value in (("chosen", chosen), ("rejected", rejected)):
        if not value or (isinstance(value, str) and not value.strip()):
            raise InputError(f"pair {name}: {side} is empty")
    return [PreferencePair(name, _transcript(prompt, chosen), _transcript(prompt, rejected), **labels)]


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(item, str) for item in value)


def _transcript(prompt: Any, side: Any) -> Transcript:
    """A transcript from a prompt (text, messages or none) and a side (transcript, response, or messages)."""
    if isinstance(side, str):
        if prompt is None or side.startswith("\n\nHuman:"):
            return parse_transcript(side)
        return (*_messages(prompt), Message("assistant", side))
    messages = _messages(side)
    opening = () if prompt is None else _messages(prompt)
    return messages if messages[: len(opening)] == opening else (*opening, *messages)


def _messages(value: Any) -> Transcript:
    if isinstance(value, str):
        return parse_transcript(value) if value.startswith("\n\nHuman:") else (Message("user", value),)
    if not isinstance(value, (list, tuple)):
        raise InputError(f"expected text or a list of {{role, content}}, got {type(value).__name__}")
    messages: list[Message] = []
    for item in value:
        role, content = (item.get("role"), item.get("content")) if isinstance(item, Mapping) else (None, None)
        if role not in _ROLES or not isinstance(content, str):
            raise InputError(f"a message must hold a role ({', '.join(_ROLES)}) and text as content, got {str(item)[:60]!r}")
        messages.append(Message(_ROLES[role], content))
    return tuple(messages)
