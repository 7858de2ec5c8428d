"""Files and rows that are no pairs, and filters that leave none: each is refused in one line."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.refusals import GOOD_ROW, jsonl, refusal
from helpers.tiny_tokenizers import byte_tokenizer

from tl_reward.data.pairs import OBJECTIVES, Message, PreferencePair
from tl_reward.data.readers import SUFFIXES, load_pairs
from tl_reward.data.schemas.registry import SCHEMAS
from tl_reward.data.text import render

SAID = {"role": "user", "content": "Hi"}

# Files

LINES = b'{"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."}\n' * 200
ZIPPED = gzip.compress(LINES)


# By name: the content, where there is any, and what the message says beside the name.
FILES: dict[str, tuple[bytes | None, str]] = {
    "missing.jsonl": (None, "no such file"),
    "missing.txt": (None, "no such file"),
    "pairs.xlsx": (LINES, "must end in one of " + ", ".join(SUFFIXES)),
    "empty.jsonl": (b"", "file is empty"),
    "empty.json": (b"", "file is empty"),
    "empty.parquet": (b"", "file is empty"),
    "blank.jsonl": (b"\n  \n", "file is empty"),
    "empty.jsonl.gz": (gzip.compress(b""), "file is empty"),
    "none.json": (b"[]", "no pairs"),
    "object.json": (b'{"prompt": "Hi"}', "must hold a list of rows, got dict"),
    "latin.jsonl": ('{"é": 1}'.encode("latin-1"), "UTF-8"),
    "binary.jsonl": (b"\x89PNG\r\n\x1a\n\xff", "UTF-8"),
    "cut.json": (b'[{"prompt": "Hi"', "malformed JSON"),
    "nested.jsonl": (b"[" * 200_000, ""),  # deeper than Python's parser goes
    "digits.jsonl": (b'{"id": ' + b"1" * 5000 + b"}", ""),  # longer than Python reads a number
    "unzipped.jsonl.gz": (LINES, ""),
    "cut.jsonl.gz": (ZIPPED[:-20], ""),
    "cut.json.gz": (gzip.compress(b"[]")[:12], ""),
    "garbled.jsonl.gz": (ZIPPED[:14] + b"\xff" * 16 + ZIPPED[30:], ""),
    "text.parquet": (LINES, "parquet"),
    "cut.parquet": (b"PAR1" + b"\xff" * 40 + b"\x1e\x00\x00\x00PAR1", "parquet"),
}


@pytest.mark.parametrize("name", FILES)
def test_file(name: str, tmp_path: Path):
    content, says = FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    message = refusal(load_pairs, tmp_path / name)
    assert message.startswith(f"{tmp_path / name}:")
    assert says in message


@pytest.mark.parametrize("name", ["folder", "folder.jsonl"])
def test_folder(name: str, tmp_path: Path):
    (tmp_path / name).mkdir()
    assert "is a folder" in refusal(load_pairs, tmp_path / name)


@pytest.mark.parametrize("line", ['{"chosen": "a", ', "chosen: a", '{"chosen": "a\tb"}', "{'chosen': 'a'}"])
def test_malformed_line_is_named(line: str, tmp_path: Path):
    file = tmp_path / "pairs.jsonl"
    # A line separator inside a string, and a blank line, must not shift the count.
    first = json.dumps(GOOD_ROW | {"chosen": "one\u2028two"}, ensure_ascii=False)
    file.write_text(f"{first}\n\n{line}\n{json.dumps(GOOD_ROW)}\n", encoding="utf-8")
    message = refusal(load_pairs, file)
    assert message.startswith(f"{file}:3: malformed JSON")


# Rows


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (GOOD_ROW | {"rejected": "Hello."}, "chosen and rejected are equal"),
        (GOOD_ROW | {"chosen": ""}, "chosen is empty"),
        (GOOD_ROW | {"rejected": " \n"}, "rejected is empty"),
        (GOOD_ROW | {"rejected": []}, "rejected is empty"),
        (GOOD_ROW | {"chosen": None}, "chosen is empty"),
        ({"chosen": "\n\nHuman: Hi\n\nAssistant: A\n\nHuman: B", "rejected": "\n\nHuman: Hi\n\nAssistant: A"}, "got user"),
        ({"chosen": "Hello.", "rejected": "Go away."}, "must open with"),
        ({"prompt": "Hi", "chosen": 5, "rejected": "Go away."}, "got int"),
        ({"prompt": 5, "chosen": "Hello.", "rejected": "Go away."}, "got int"),
        ({"chosen": ["A"], "rejected": ["B"]}, "no prompt: found chosen, rejected; "),
        ({"prompt": "Hi", "chosen": ["A", "B"], "rejected": ["B"]}, "equal"),
        ({"prompt": "Hi", "chosen": ["A", "B"], "rejected": []}, "rejected is empty"),
        ({"chosen": [SAID], "rejected": [SAID, {"role": "assistant", "content": "A"}]}, "must end with an assistant message"),
        ({"chosen": [SAID, {"role": "robot", "content": "A"}], "rejected": [SAID]}, "a message must hold a role (human, user,"),
        ({"chosen": [SAID, {"role": "assistant"}], "rejected": [SAID]}, "text as content"),
        ({"chosen": [SAID, {"role": "assistant", "content": ["A"]}], "rejected": [SAID]}, "text as content"),
        ({"chosen": [{"role": ["user"], "content": "A"}], "rejected": [SAID]}, "a message must hold a role"),
        ({"chosen": [SAID, "A"], "rejected": [SAID]}, "a message must hold a role"),
        ({"chosen": [SAID, {"role": "x\ny", "content": "A\nB"}], "rejected": [SAID]}, "a message must hold a role"),
    ],
)
def test_row(row: dict, says: str, tmp_path: Path):
    file = jsonl(tmp_path / "pairs.jsonl", GOOD_ROW, row)
    message = refusal(load_pairs, file)
    assert message.startswith(f"{file}:2: ")
    assert says in message


def test_pair_that_can_be_dropped_says_so(tmp_path: Path):
    assert 'on_bad="drop"' in refusal(load_pairs, jsonl(tmp_path / "pairs.jsonl", GOOD_ROW | {"chosen": ""}))


@pytest.mark.parametrize("row", [{"chosen": "", "rejected": "x"}, {"chosen": "x", "rejected": "x"}])
def test_nothing_left_after_dropping(row: dict, tmp_path: Path):
    assert "no pairs" in refusal(load_pairs, jsonl(tmp_path / "pairs.jsonl", GOOD_ROW | row), on_bad="drop")


@pytest.mark.parametrize("side", [[SAID, {"role": "robot", "content": "A"}], 5])
def test_dropping_leaves_a_wrong_schema_alone(side: Any, tmp_path: Path):
    assert refusal(load_pairs, jsonl(tmp_path / "pairs.jsonl", GOOD_ROW | {"chosen": side}), on_bad="drop")


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"question": "Hi", "label": 1}, "found question, label;"),
        ({"prompt": "Hi", "chosen": "Hello."}, "found prompt, chosen;"),
        ({}, "found"),
        ("Hi", "found str, and a row is an object"),
        (None, "found NoneType, and a row is an object"),
    ],
)
def test_unknown_schema_names_what_it_found_and_what_it_knows(row: Any, found: str, tmp_path: Path):
    message = refusal(load_pairs, jsonl(tmp_path / "pairs.jsonl", row))
    assert "unknown schema" in message
    assert found in message
    assert [schema.name for schema in SCHEMAS if schema.name not in message] == []


def test_ids_must_differ(tmp_path: Path):
    rows = [GOOD_ROW | {"id": name} for name in "abaca"]
    message = refusal(load_pairs, jsonl(tmp_path / "pairs.jsonl", *rows))
    assert "two pairs have the id 'a'" in message


@pytest.mark.parametrize(("side", "last"), [((), "nothing"), ((Message("user", "Hi"),), "user")])
def test_transcript_ends_with_the_assistant(side: tuple, last: str):
    said = (Message("user", "Hi"), Message("assistant", "A"))
    assert f"pair x: rejected must end with an assistant message, got {last}" == refusal(PreferencePair, "x", said, side)


# Filters


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    labels = [{"objective": "helpful", "subset": "chat"}, {"objective": "helpful", "subset": "code"}]
    return jsonl(tmp_path / "pairs.jsonl", *(GOOD_ROW | label | {"split": "train"} for label in labels))


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ({"objective": "harmless"}, "no harmless pairs; it has helpful"),
        ({"subset": "maths"}, "no subset 'maths'; it has chat, code"),
        ({"split": "test"}, "no split 'test'; it has train"),
        ({"limit": 0}, "limit must be a whole number of at least 1, got 0"),
        ({"limit": -3}, "limit must be a whole number of at least 1, got -3"),
    ],
)
def test_filter(filters: dict, says: str, labelled: Path):
    assert says in refusal(load_pairs, labelled, **filters)


def test_subset_of_a_file_without_any(tmp_path: Path):
    assert "it has no subsets" in refusal(load_pairs, jsonl(tmp_path / "pairs.jsonl", GOOD_ROW), subset="chat")


def test_unknown_objective(labelled: Path):
    message = refusal(load_pairs, labelled, objective="honest")
    assert "'honest'" in message
    assert [objective for objective in OBJECTIVES if objective not in message] == []


@pytest.mark.parametrize("error", [ConnectionError("no network\nsecond line"), FileNotFoundError(), ValueError("no split x")])
def test_hub_that_does_not_answer(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def load_dataset(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert refusal(load_pairs, "owner/name").startswith("owner/name: not a local file, and the hub did not give it")


# Chat templates


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('roles must alternate') }}", "{% for m in messages %}", "{{ messages[9].content.x }}"]
)
def test_chat_template_that_refuses(template: str):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    message = refusal(render, (Message("user", "Hi"), Message("assistant", "A")), tokenizer)
    assert message.startswith("the tokenizer's chat template refused a transcript: ")
