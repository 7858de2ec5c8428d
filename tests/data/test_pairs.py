"""Every schema and file format is read into the same pairs."""

import csv
import gzip
import io
import json
import re
import warnings
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from helpers.tiny_tokenizers import byte_tokenizer

from tl_reward.data.pairs import Message, PreferencePair, check_unique_ids, pairs_of_row, parse_transcript
from tl_reward.data.readers import EMBEDDED, HH_DATA_DIRS, SUFFIXES, load_pairs
from tl_reward.data.text import render
from tl_reward.errors import InputError

HH_FILE = Path(__file__).parents[2].parent / "shared/data/hh-rlhf/harmless-base/test.jsonl.gz"

GOOD = (Message("user", "Hi"), Message("assistant", "Hello."))
BAD = (Message("user", "Hi"), Message("assistant", "Go away."))


def write(path: Path, rows: list) -> Path:
    """Writes rows in the format that the name ends in."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    if ".csv" in path.name or ".tsv" in path.name:
        lines = io.StringIO(newline="")
        table = csv.DictWriter(lines, {key: None for row in rows for key in row}, delimiter="\t" if ".tsv" in path.name else ",")
        table.writeheader()
        table.writerows({key: value if isinstance(value, str) else json.dumps(value) for key, value in row.items()} for row in rows)
        text = lines.getvalue()
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
        return path
    text = "".join(json.dumps(row) + "\n" for row in rows) if ".jsonl" in path.name else json.dumps(rows, indent=1)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def messages(*turns: str) -> list[dict[str, str]]:
    """Alternating user and assistant messages."""
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def row(number: int, **labels: str) -> dict:
    return {"id": f"row-{number}", "prompt": "Hi", "chosen": f"Hello {number}.", "rejected": "Go away."} | labels


SCHEMA_ROWS = {
    "transcripts": {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: Go away."},
    "transcripts beside their prompt": {
        "prompt": "\n\nHuman: Hi",
        "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.",
        "rejected": "\n\nHuman: Hi\n\nAssistant: Go away.",
    },
    "responses": {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."},
    "responses to a transcript": {"prompt": "\n\nHuman: Hi", "chosen": "Hello.", "rejected": "Go away."},
    "messages": {"chosen": messages("Hi", "Hello."), "rejected": messages("Hi", "Go away.")},
    "messages with a prompt": {
        "prompt": messages("Hi"),
        "chosen": messages("Hi", "Hello.")[1:],
        "rejected": messages("Hi", "Go away.")[1:],
    },
    "messages that repeat their prompt": {
        "prompt": messages("Hi"),
        "chosen": messages("Hi", "Hello."),
        "rejected": messages("Hi", "Go away."),
    },
    "messages after a text prompt": {
        "prompt": "Hi",
        "chosen": messages("Hi", "Hello.")[1:],
        "rejected": messages("Hi", "Go away.")[1:],
    },
}


@pytest.mark.parametrize("schema", SCHEMA_ROWS)
def test_schema(schema: str, tmp_path: Path):
    file = write(tmp_path / "pairs.jsonl", [SCHEMA_ROWS[schema] | {"id": "a"}])
    assert load_pairs(file) == [PreferencePair("a", GOOD, BAD)]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("schema", ["transcripts", "responses", "messages with a prompt"])
def test_format(schema: str, suffix: str, tmp_path: Path):
    file = write(tmp_path / f"pairs{suffix}", [SCHEMA_ROWS[schema] | {"id": "a", "objective": "helpful", "subset": "greeting"}])
    assert load_pairs(str(file)) == [PreferencePair("a", GOOD, BAD, "helpful", "greeting")]


def test_roles_of_other_names(tmp_path: Path):
    side = [{"role": "system", "content": "Be kind."}, {"role": "human", "content": "Hi"}, {"role": "gpt", "content": "Hello."}]
    file = write(tmp_path / "pairs.jsonl", [{"chosen": side, "rejected": [*side[:2], {"role": "assistant", "content": "No."}]}])
    assert [message.role for message in load_pairs(file)[0].chosen] == ["system", "user", "assistant"]


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_best_of_n_gives_every_pair_of_a_row(suffix: str, tmp_path: Path):
    rows = [{"id": 7, "prompt": "Hi", "chosen": ["A", "B"], "rejected": ["x", "y", "z"], "subset": "chat"}]
    pairs = load_pairs(write(tmp_path / f"pairs{suffix}", rows))
    answers = [(pair.id, pair.chosen[-1].content, pair.rejected[-1].content) for pair in pairs]
    assert answers == [
        ("7/0-0", "A", "x"), ("7/0-1", "A", "y"), ("7/0-2", "A", "z"),
        ("7/1-0", "B", "x"), ("7/1-1", "B", "y"), ("7/1-2", "B", "z"),
    ]  # fmt: skip
    assert {(pair.group, pair.subset, pair.chosen[0]) for pair in pairs} == {("7", "chat", Message("user", "Hi"))}


def test_rows_without_an_id_are_numbered(tmp_path: Path):
    rows = [{"prompt": "Hi", "chosen": f"Hello {i}.", "rejected": "Go away."} for i in range(3)]
    assert len({pair.id for pair in load_pairs(write(tmp_path / "pairs.jsonl", rows))}) == 3


def test_an_id_of_zero_is_an_id(tmp_path: Path):
    file = write(tmp_path / "pairs.json", [{"id": 0, "prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."}])
    assert [pair.id for pair in load_pairs(file)] == ["0"]


def test_json_file_with_jsonl_inside_its_name(tmp_path: Path):
    file = tmp_path / "pairs.jsonl.json"
    file.write_text(json.dumps([row(0)], indent=1))
    assert len(load_pairs(file)) == 1


def test_blank_lines_are_skipped(tmp_path: Path):
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n" + json.dumps(row(0)) + "\r\n\n" + json.dumps(row(1)) + "\n\n")
    assert [pair.id for pair in load_pairs(file)] == ["row-0", "row-1"]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_line_separator_inside_a_json_string(separator: str, tmp_path: Path):
    # Python's splitlines() breaks at these; JSON allows them inside a string.
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(row(0) | {"chosen": f"one{separator}two"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert load_pairs(file)[0].chosen[-1].content == f"one{separator}two"


# Transcripts


def test_turns_keep_their_text():
    text = "\n\nHuman: Hi \n\nthere\n\nAssistant:  two spaces\n\nHuman:none\n\nAssistant: end\n"
    assert [message.content for message in parse_transcript(text)] == ["Hi \n\nthere", " two spaces", "none", "end\n"]


def test_transcript_without_leading_line_breaks():
    assert parse_transcript("Human: Hi\n\nAssistant: Hello.") == GOOD


def test_prompt_that_already_opens_the_answer(tmp_path: Path):
    # How HH-RLHF is published in prompt/chosen/rejected form (Dahoas/full-hh-rlhf).
    rows = [{"id": "a", "prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": " Hello.", "rejected": " Go away."}]
    assert load_pairs(write(tmp_path / "pairs.jsonl", rows)) == [PreferencePair("a", GOOD, BAD)]


@pytest.mark.skipif(not HH_FILE.is_file(), reason=f"real data not there: {HH_FILE}")
def test_rendering_gives_back_the_published_text():
    tokenizer = byte_tokenizer()
    with gzip.open(HH_FILE, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)[side] for line in file for side in ("chosen", "rejected")]
    changed = [text for text in texts if render(parse_transcript(text), tokenizer).text != text]
    assert len(texts) == 2 * 2312
    assert [text[-60:] for text in changed] == []


@pytest.mark.skipif(not HH_FILE.is_file(), reason=f"real data not there: {HH_FILE}")
def test_real_file_loads_whole():
    # Four transcripts end in an assistant turn that says nothing; no side is empty as a whole.
    assert len(load_pairs(HH_FILE, objective="harmless")) == 2312


# Filters


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    labels = [
        {"objective": "helpful", "subset": "chat", "split": "train"},
        {"objective": "harmless", "subset": "chat", "split": "test"},
        {"objective": "helpful", "subset": "code", "split": "test"},
        {"subset": "code"},
    ]
    return write(tmp_path / "pairs.jsonl", [row(i, **label) for i, label in enumerate(labels)])


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"objective": "mixed"}, [0, 1, 2, 3]),
        ({"objective": "helpful"}, [0, 2, 3]),  # a row that names no objective gets the one asked for
        ({"objective": "harmless"}, [1, 3]),
        ({"subset": "code"}, [2, 3]),
        ({"split": "test"}, [1, 2, 3]),  # and a row that names no split is in every one
        ({"limit": 2}, [0, 1]),
        ({"limit": 9}, [0, 1, 2, 3]),
        ({"objective": "helpful", "subset": "code", "split": "test", "limit": 1}, [2]),
    ],
)
def test_filters(filters: dict, kept: list[int], labelled: Path):
    assert [pair.id for pair in load_pairs(labelled, **filters)] == [f"row-{i}" for i in kept]


def test_objective_marks_rows_that_name_none(labelled: Path):
    assert [pair.objective for pair in load_pairs(labelled)] == ["helpful", "harmless", "helpful", None]
    assert {pair.objective for pair in load_pairs(labelled, objective="harmless")} == {"harmless"}


def test_bad_pairs_can_be_dropped(tmp_path: Path):
    bad = [row(1) | {"chosen": "Go away."}, row(2) | {"rejected": " "}, row(3) | {"chosen": ""}]
    file = write(tmp_path / "pairs.jsonl", [row(0), *bad, row(4)])
    assert [pair.id for pair in load_pairs(file, on_bad="drop")] == ["row-0", "row-4"]


# The hub: only the download is replaced


def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Stands in for the download: two rows without ids in every folder and split. Returns the list of what was asked for."""
    asked: list[tuple] = []

    def load_dataset(hub_id: str, name: str | None = None, data_dir: str | None = None, split: str | None = None) -> list[dict]:
        asked.append((hub_id, data_dir, split) if name is None else (hub_id, name, data_dir, split))
        return [
            {"chosen": f"\n\nHuman: {data_dir} {i}\n\nAssistant: Hello.", "rejected": f"\n\nHuman: {data_dir} {i}\n\nAssistant: No."}
            for i in range(2)
        ]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return asked


@pytest.mark.parametrize(
    ("objective", "folders"),
    [
        ("helpful", HH_DATA_DIRS["helpful"]),
        ("harmless", HH_DATA_DIRS["harmless"]),
        ("mixed", (*HH_DATA_DIRS["helpful"], *HH_DATA_DIRS["harmless"])),
        (None, (*HH_DATA_DIRS["helpful"], *HH_DATA_DIRS["harmless"])),
    ],
)
def test_hh_folders_of_an_objective(objective, folders: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    asked = hub(monkeypatch)
    pairs = load_pairs("Anthropic/hh-rlhf", objective=objective, split="train")
    assert asked == [("Anthropic/hh-rlhf", folder, "train") for folder in folders]
    assert len({pair.id for pair in pairs}) == 2 * len(folders)
    expected = Counter("harmless" if folder == "harmless-base" else "helpful" for folder in folders for _ in range(2))
    assert Counter(pair.objective for pair in pairs) == expected


def test_another_hub_data_set(monkeypatch: pytest.MonkeyPatch):
    asked = hub(monkeypatch)
    assert len(load_pairs("owner/name", data_dir="part")) == 2
    assert asked == [("owner/name", "part", "test")]


# The embedded pairs


def test_embedded_counts():
    counts = {
        (objective, split): len(load_pairs(EMBEDDED, objective=objective, split=split))
        for objective in ("helpful", "harmless", "mixed")
        for split in ("find", "test")
    }
    halves = dict.fromkeys(((o, s) for o in ("helpful", "harmless") for s in ("find", "test")), 42)
    assert counts == halves | {("mixed", "find"): 84, ("mixed", "test"): 84}
    assert len(load_pairs(EMBEDDED)) == 168


def test_embedded_prompts_are_in_one_split_only():
    find, test = ({pair.chosen[:-1] for pair in load_pairs(EMBEDDED, split=split)} for split in ("find", "test"))
    assert len(find) == len(test) == 84
    assert not find & test


def test_embedded_pairs_share_their_prompt():
    assert [pair.id for pair in load_pairs(EMBEDDED) if pair.chosen[:-1] != pair.rejected[:-1]] == []


@pytest.mark.parametrize("split", ["find", "test"])
@pytest.mark.parametrize("objective", ["helpful", "harmless"])
def test_embedded_sides_are_equally_long(objective, split: str):
    # Else a model could tell them apart by length alone.
    pairs = load_pairs(EMBEDDED, objective=objective, split=split)
    chosen, rejected = (mean(len(getattr(pair, side)[-1].content) for pair in pairs) for side in ("chosen", "rejected"))
    assert chosen == pytest.approx(rejected, rel=0.02)


# A prompt beside sides that may hold it


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


SYSTEM, HI, HELLO = said("system", "Be kind."), said("user", "Hi"), said("assistant", "Hello.")
# By what is beside each other: the prompt, the chosen side, and what the model reads.
PROMPTS_HELD: dict[str, tuple[Any, str | list[dict[str, str]], list[str]]] = {
    "behind a system turn": ("Hi", [SYSTEM, HI, HELLO], ["Be kind.", "Hi", "Hello."]),
    "with a trailing space": ("Hi ", [HI, HELLO], ["Hi", "Hello."]),
    "with a line break in the side": ("Hi", [said("user", "Hi\n"), HELLO], ["Hi\n", "Hello."]),
    "as the last user turn": ("Hi", [said("user", "Hey"), said("assistant", "Yes?"), HI, HELLO], ["Hey", "Yes?", "Hi", "Hello."]),
    "with a system turn of its own": ([SYSTEM, HI], [HI, HELLO], ["Be kind.", "Hi", "Hello."]),
    "messages behind a system turn": ([HI], [SYSTEM, HI, HELLO], ["Be kind.", "Hi", "Hello."]),
    "a transcript without its line breaks": ("Hi", "Human: Hi\n\nAssistant: Hello.", ["Hi", "Hello."]),
    "a response behind its marker": ("Hi", "\n\nAssistant: Hello.", ["Hi", "Hello."]),
    "a prompt without its line breaks": ("Human: Hi\n\nAssistant:", " Hello.", ["Hi", "Hello."]),
    "a blank prompt": ("", [HI, HELLO], ["Hi", "Hello."]),
    "not at all": ([SYSTEM], [HI, HELLO], ["Be kind.", "Hi", "Hello."]),
    "not at all, after an answer": ([said("user", "Hey"), said("assistant", "Yes?")], [HI, HELLO], ["Hey", "Yes?", "Hi", "Hello."]),
}


@pytest.mark.parametrize("case", PROMPTS_HELD)
def test_prompt_is_read_once(case: str):
    prompt, side, read = PROMPTS_HELD[case]
    other = side.replace("Hello.", "No.") if isinstance(side, str) else [*side[:-1], said("assistant", "No.")]
    (pair,) = pairs_of_row({"prompt": prompt, "chosen": side, "rejected": other}, "a")
    assert [message.content for message in pair.chosen] == read
    assert [message.content for message in pair.rejected] == [*read[:-1], "No."]


@pytest.mark.parametrize(
    ("prompt", "side", "says"),
    [
        ([said("user", "Hey"), said("assistant", "Yes?"), HI], [HI, HELLO], "holds a part of the prompt ('Hi') and not the whole"),
        ([said("system", "Be brief."), HI], [SYSTEM, HI, HELLO], "holds a part of the prompt"),
        ("Hi", [said("user", "Hi there"), HELLO], "begins with a message of the user that is not in the prompt"),
        ("Hi", [SYSTEM, HELLO], "begins with a message of the system"),
        ("Hi", "\n\nHuman: Hey\n\nAssistant: Hello.", "begins with a message of the user"),
        ("\n\nHuman: Hi\n\nAssistant: Well,", "Hello.", "begins with a message of the assistant"),
        ("Tell me a story of a fox", "Tell me a story of a fox Hello.", "every response begins with the text of the prompt"),
    ],
)
def test_where_it_is_not_certain_what_a_side_holds_it_is_refused(prompt: Any, side: str | list[dict[str, str]], says: str):
    other = side.replace("Hello.", "No.") if isinstance(side, str) else [*side[:-1], said("assistant", "No.")]
    with pytest.raises(InputError, match=re.escape(says)):
        pairs_of_row({"prompt": prompt, "chosen": side, "rejected": other}, "a")


def test_what_is_odd_is_counted_in_one_warning(tmp_path: Path):
    rows = [
        {"id": "a", "chosen": messages("Hi", "A"), "rejected": messages("Hey", "B")},
        {"id": "b", "prompt": " ", "chosen": "A", "rejected": "B\0"},
        *({"id": name, "prompt": "Hi", "chosen": "A", "rejected": "B"} for name in "cd"),
        {"id": "e", "prompt": "Hi", "chosen": "A", "rejected": "A"},
    ]
    file = write(tmp_path / "pairs.jsonl", rows)
    with pytest.warns(UserWarning, match="left out") as warned:
        pairs = load_pairs(file, on_bad="drop")
    (said,) = [str(each.message) for each in warned]
    assert said == (
        f"{file}: 1 rows left out where the sides are equal; 1 of 4 pairs with two sides of different prompts; "
        "1 of 4 pairs with a blank prompt; 1 of 4 pairs with a NUL character; 1 of 4 pairs there more than once"
    )
    assert [pair.where for pair in pairs] == [f"{file}:{line}" for line in (1, 2, 3, 4)]


def test_an_id_that_is_a_best_of_n_row_too_is_refused():
    rows = pairs_of_row({"id": "1", "prompt": "q", "chosen": ["a"], "rejected": ["b", "c"]}, "x")
    alone = pairs_of_row({"id": np.int64(1), "prompt": "q", "chosen": "a", "rejected": "b"}, "x")
    with pytest.raises(InputError, match="'1' is the id of a pair and of a best-of-n row"):
        check_unique_ids([*rows, *alone], "pairs")
    check_unique_ids(rows, "pairs")


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ({"split": "tset"}, r"no split 'tset'; it has test, train; did you mean test\?$"),
        ({"objective": "harmless"}, r"no harmless pairs; it has helpful$"),
        ({"objective": "harmless", "split": "test"}, "no harmless pairs; it has helpful$"),
    ],
)
def test_a_label_that_no_row_has_is_not_given_to_those_that_name_none(filters: dict, says: str, tmp_path: Path):
    labels = [{"objective": "helpful", "split": "train"}, {"objective": "helpful", "split": "test"}, {}, {"split": None, "objective": None}]
    file = write(tmp_path / "pairs.jsonl", [row(i, **label) for i, label in enumerate(labels)])
    with pytest.raises(InputError, match=says):
        load_pairs(file, **filters)


def test_a_label_that_is_given_to_rows_without_one_is_said(tmp_path: Path):
    file = write(tmp_path / "pairs.jsonl", [row(i) for i in range(3)])
    said = r"3 rows name no split, and are taken for 'mine'; 3 pairs name no objective, and are taken for 'helpful'$"
    with pytest.warns(UserWarning, match=said):
        assert {pair.objective for pair in load_pairs(file, split="mine", objective="helpful")} == {"helpful"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pairs(file)
        load_pairs("embedded", split="test", objective="helpful")
    with pytest.warns(UserWarning, match="all splits, find and test, are read: split= chooses one"):
        assert len(load_pairs("embedded")) == 168


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", r'^pairs are read from a file, a hub id such as Anthropic/hh-rlhf, or "embedded"; got \'\'$'),
        ("embeded", r"^embeded: no such file; did you mean embedded\?$"),
        ("nosuch.jsonl", r"^nosuch.jsonl: no such file$"),
    ],
)
def test_what_is_no_source(source: str, says: str):
    with pytest.raises(InputError, match=says):
        load_pairs(source)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pairs_of_row({"chosen": "a"}, "a:1"), "a row must hold chosen and rejected, got chosen"),
        (lambda: pairs_of_row(["a", "b"], "a:1"), "a row must hold chosen and rejected, got list"),
        (lambda: pairs_of_row({"chosen": ["a"], "rejected": ["b"]}, "a:1"), "a best-of-n row needs a prompt beside its lists of responses"),
    ],
)
def test_a_row_without_what_a_pair_needs_is_refused(call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call()
