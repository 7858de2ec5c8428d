"""Hostile files, rows and pairs: each is read rightly, or refused in one line that names the file and the row, in bounded memory."""

import gzip
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jaxtyping
import pytest
import torch
from helpers.attack import LONG, tries
from helpers.tiny_tokenizers import byte_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from tl_reward.data.encoding import encode_pairs
from tl_reward.data.pairs import Message, PreferencePair, pairs_of_row
from tl_reward.data.readers import MOST_BYTES, load_pairs, pairs_from
from tl_reward.data.schemas.form import Schema
from tl_reward.data.schemas.registry import SCHEMAS
from tl_reward.errors import InputError
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet, tied_at_cut
from tl_reward.results.provenance import provenance
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score

ROW = {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."}
LINE = json.dumps(ROW).encode()
OTHER = json.dumps(ROW | {"prompt": "Bye"}).encode()
SAID = (Message("user", "Hi"), Message("assistant", "Hello."))
FIELDS = ("role", "content", "from", "value", "answer", "rank", "response", "overall_score", "text", "type", "post", "image", "llm_name")
ANY_SET: Any = NeuronSet
ANY_MESSAGE: Any = Message
NO = (Message("user", "Hi"), Message("assistant", "no"))


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the checks of types that tests add to the package: users have none."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The one line with which a call is refused, which any terminal can write."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert message.splitlines() == [message] and len(message) < 1000
    message.encode()
    return message


def deep(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


# By name: what the file holds, and the rows that it has, or what the refusal says.
FILES: dict[str, tuple[bytes, int | str]] = {
    "mark.jsonl": (b"\xef\xbb\xbf" + LINE + b"\n" + OTHER, 2),
    "mark.json": (b"\xef\xbb\xbf[" + LINE + b"]", 1),
    "mark.json.gz": (gzip.compress(b"\xef\xbb\xbf[" + LINE + b"]"), 1),
    "windows.jsonl": (LINE + b"\r\n" + OTHER + b"\r\n", 2),
    "windows.json": (b"[\r\n" + LINE + b",\r\n" + OTHER + b"\r\n]\r\n", 2),
    "lines.json": (LINE + b"\n" + OTHER + b"\n", 2),
    "lines.json.gz": (gzip.compress(LINE + b"\n" + OTHER + b"\n"), 2),
    "two members.jsonl.gz": (gzip.compress(LINE + b"\n") + gzip.compress(OTHER), 2),
    "spread.json": (b"[" + b" " * 200_000 + LINE + b"\n" * 200_000 + b"," + OTHER + b" " * 200_000 + b"]" + b"\n" * 200_000, 2),
    "long.jsonl": (json.dumps(ROW | {"chosen": "x" * 2_000_000}).encode(), 1),
    "long.json": (b"[" + json.dumps(ROW | {"chosen": "x" * 2_000_000}).encode() + b"," + OTHER + b"]", 2),
    "name that is\nno line.jsonl": (LINE, 1),
    "one object.json": (LINE, "a .json file must hold a list of rows, got dict"),
    "scalar.json": (b"5", "a .json file must hold a list of rows, got int"),
    "list of lists.json": (b"[[1], [2]]", ":1: unknown schema: found list"),
    "no end.json": (b"[" + LINE + b",", ":2: malformed JSON"),
    "no end of a row.json": (b"[" + LINE + b"," + LINE[:20], ":2: malformed JSON"),
    "no comma.json": (b"[" + LINE + LINE + b"]", ":1: malformed JSON (no comma after this row)"),
    "comma at the end.json": (b"[" + LINE + b",]", ":2: malformed JSON"),
    "comma first.json": (b"[," + LINE + b"]", ":1: malformed JSON"),
    "something after.json": (b"[" + LINE + b"]]", "malformed JSON (something follows after the end of the list)"),
    "lines and garbage.json": (LINE + b"\n}", ":2: malformed JSON"),
    "a word.json": (b"[" + LINE + b", nope]", ":2: malformed JSON"),
    "early fault.json": (b"[" + LINE + b", {'a': 1}" + (b"," + LINE) * 9999 + b"]", ":2: malformed JSON"),
    "mark alone.jsonl": (b"\xef\xbb\xbf", "file is empty"),
    "mark alone.json": (b"\xef\xbb\xbf \n", "file is empty"),
    "latin.jsonl": (LINE + b"\n" + '{"prompt": "é"}'.encode("latin-1"), ":2: not readable as UTF-8 text (byte 13"),
    "latin.json": (b"[" + LINE + b"," + b" " * 70_000 + '{"prompt": "é"}'.encode("latin-1") + b"]", ":2: not readable as UTF-8 text"),
    "cut character.json": (b'["\xc3', ":1: not readable as UTF-8 text"),
    "utf-16.jsonl": (LINE.decode().encode("utf-16"), ":1: not readable as UTF-8 text (byte 1"),
    "nul.jsonl": (b"\0" * 50, ":1: malformed JSON"),
    "nul.json": (b"\0" * 50, ":1: malformed JSON"),
    "half a pair.jsonl": (b'{"prompt": "Hi", "chosen": "\\ud800", "rejected": "B"}', "half of a surrogate pair"),
    "half a pair in an id.jsonl": (
        b'{"id": "\\ud800", "prompt": "Hi", "chosen": "A", "rejected": "B"}',
        ":1: a pair's id must be printable",
    ),
    "half a pair in an id beside an empty side.jsonl": (
        b'{"id": "\\ud800", "prompt": "Hi", "chosen": "", "rejected": "B"}',
        ":1: a pair's id must be printable",
    ),
    "keys that no terminal writes.jsonl": (b'{"\\ud800": 1, "a\\nb": 2}', ":1: unknown schema: found ?, a?b, and the first line"),
    "half a pair in a label.jsonl": (
        b'{"subset": "\\ud800", "prompt": "Hi", "chosen": "A", "rejected": "B"}',
        "subset must be text or None",
    ),
    "deep.jsonl": (LINE + b"\n" + deep(10_000), ":2: malformed JSON"),
    "deep.json": (b"[" + LINE + b"," + deep(10_000) + b"]", ":2: malformed JSON"),
    "deep side.jsonl": (b'{"prompt": "Hi", "chosen": ' + deep(400) + b', "rejected": "B"}', ":1: "),
    "digits.jsonl": (b'{"id": ' + b"1" * 20_000 + b"}", ":1: malformed JSON"),
    "digits.json": (b'[{"id": ' + b"1" * 20_000 + b"}]", ":1: malformed JSON"),
    "nan.jsonl": (b'{"id": NaN, "subset": NaN, "prompt": "Hi", "chosen": "A", "rejected": "B"}', 1),
    "nan side.jsonl": (b'{"prompt": "Hi", "chosen": NaN, "rejected": "B"}', ": chosen is empty"),
    "infinity.jsonl": (b'{"prompt": Infinity, "chosen": "A", "rejected": "B"}', ":1: prompt: expected text or a list"),
    "one id twice.jsonl": (b'{"id": 1, "prompt": "Hi", "chosen": "A", "rejected": "B"}\n' * 2, "two pairs have the id '1' ("),
    "too long.jsonl": (b'{"prompt": "' + b"x" * MOST_BYTES + b'"}', f":1: a row may have {MOST_BYTES:,} bytes"),
    "too long.json": (b'[{"prompt": "' + b"x" * (MOST_BYTES + 1) + b'"}]', f":1: a row may have {MOST_BYTES:,} bytes"),
    "cut.jsonl.gz": (gzip.compress(LINE * 500)[:-9], "not readable"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.filterwarnings("ignore:.*more than once")
def test_file(name: str, tmp_path: Path):
    if sys.platform == "win32" and "\n" in name:
        pytest.skip("no such names on Windows")
    content, expected = FILES[name]
    path = tmp_path / name
    path.write_bytes(content)
    if isinstance(expected, int):
        assert len(load_pairs(path)) == expected
    else:
        message = refusal(load_pairs, path)
        assert message.startswith(f"{path}:") and expected in message


ROWS: dict[str, tuple[Any, str]] = {
    "a list as id": ({"id": [1]}, "id must be text or a number, got [1]"),
    "a truth as id": ({"id": True}, "id must be text or a number"),
    "an id of two lines": ({"id": "a\nb"}, "a pair's id must be printable text"),
    "a blank id": ({"id": " "}, "a pair's id must be printable text"),
    "an object as label": ({"objective": {"a": 1}}, "objective must be text or a number"),
    "text beside messages": ({"rejected": [{"role": "assistant", "content": "B"}]}, ""),
    "numbers as responses": ({"chosen": [1, 2]}, "a message must hold a role"),
    "none among responses": ({"chosen": ["A", None], "rejected": ["B"]}, "a message must hold a role"),
    "a blank response of several": ({"chosen": ["A", " "], "rejected": ["B"]}, "chosen is empty"),
    "a message of parts that are no objects": ({"chosen": [{"role": "assistant", "content": ["A", {"text": "B"}]}]}, "text as content"),
    "an answer of a tool": ({"chosen": [{"role": "tool", "content": "A"}]}, "must end with an assistant message, got tool"),
    "a message without content": ({"chosen": [{"role": "assistant", "content": None}]}, "text as content"),
    "a blank message": ({"chosen": [{"role": "assistant", "content": " "}]}, "chosen is empty"),
    "an object as prompt": ({"prompt": {"a": 1}}, "expected text or a list"),
}


@pytest.mark.parametrize("name", ROWS)
def test_row(name: str, tmp_path: Path):
    row, says = ROWS[name]
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(LINE + b"\n" + json.dumps(ROW | {"prompt": "Bye"} | row).encode())
    if says:
        message = refusal(load_pairs, path)
        assert message.startswith(f"{path}:2: ") and says in message
    else:
        assert len(load_pairs(path)) == 2


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (("a", "Hi", NO), "pair a: chosen: expected text or a list of {role, content}, got str"),
        (("a", {"role": "assistant"}, NO), "pair a: chosen: expected text or a list"),
        (("a", [("user", "Hi")], NO), "pair a: chosen: a message must hold a role"),
        (("a", SAID, None), "pair a: rejected: expected text or a list"),
        (("a", (*SAID[:1], Message("assistant", "\udc80")), NO), "half of a surrogate pair"),
        (("a", (ANY_MESSAGE("robot", "Hi"), SAID[1]), NO), "a message must hold a role"),
        ((5, SAID, NO), "a pair's id must be printable text, got 5"),
        (("a", SAID, NO, 5), "objective must be text or None, got 5"),
        (("a", SAID, SAID), "chosen and rejected are equal"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_pair_made_by_hand(fields: Any, says: str):
    make: Any = PreferencePair
    assert says in refusal(make, *fields)


@pytest.mark.usefixtures("unchecked")
def test_pair_of_lists_and_dicts_is_the_same_pair():
    make: Any = PreferencePair
    listed = make("a", [message._asdict() for message in SAID], list(NO))
    assert listed == PreferencePair("a", SAID, NO) and hash(listed.chosen) == hash(SAID)


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([], "pairs must not be empty"),
        (iter(()), "pairs must not be empty"),
        ("embedded", "got 'embedded' (tl_reward.load_pairs reads a file)"),
        (None, "got None"),
        (ROW, "got dict (put one row in brackets)"),
        ([PreferencePair("a", SAID, NO), ROW], "pairs[1] must be a PreferencePair, got dict (give pairs alone, or rows alone)"),
        ([ROW, PreferencePair("a", SAID, NO)], "rows:2: is a PreferencePair already: give the functions pairs alone, or rows alone"),
        ([ROW, {"chosen": "a"}], "rows:2: unknown schema: found chosen"),
        ([(SAID, NO)], "rows:1: unknown schema: found tuple"),
        (["pairs.jsonl"], "rows:1: unknown schema: found str"),
        (PreferencePair("a", SAID, NO), "put it in brackets"),
        ([PreferencePair("a", SAID, NO)] * 2, "two pairs have the id 'a'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_list_of_pairs(pairs: Any, says: str):
    assert says in refusal(encode_for, tiny_reward_model(), pairs)


@pytest.mark.parametrize("columns", [["prompt=q"], "prompt=q", {"prompt": 5}, {5: "q"}, 5])
@pytest.mark.usefixtures("unchecked")
def test_columns_that_are_no_names(columns: Any):
    assert 'columns must be names, as in {"prompt": "question"}, got ' in refusal(pairs_from, [ROW], columns=columns)


@pytest.mark.usefixtures("unchecked")
def test_a_path_in_the_place_of_data_is_told_what_reads_it():
    assert "got 'pairs.jsonl' (tl_reward.load_pairs reads a file)" in refusal(provenance, data={"mine": "pairs.jsonl"})


@pytest.mark.usefixtures("unchecked")
def test_generator_of_pairs_is_read():
    given: Any = (PreferencePair(name, SAID, NO) for name in "ab")
    assert len(score(tiny_reward_model(), given).margin) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_named_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "is no regular file" in refusal(load_pairs, tmp_path / "pipe.jsonl")


def test_limit_reads_no_further(tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(b"".join(json.dumps(ROW | {"id": i}).encode() + b"\n" for i in range(3)) + b"\xff no row\n")
    with pytest.warns(UserWarning, match="more than once"):
        assert [pair.id for pair in load_pairs(path, limit=3)] == ["0", "1", "2"]
    assert ":4: not readable" in refusal(load_pairs, path)


BOMB = """
import resource, sys
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    load_pairs(sys.argv[1])
except InputError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", ["bomb.jsonl.gz", "bomb.json.gz", "bomb.csv.gz"])
def test_file_that_unpacks_to_a_gigabyte_takes_bounded_memory(name: str, tmp_path: Path):
    size = 2**30 if LONG else 2**27
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
        file.write(b'[{"prompt": "' if ".json.gz" in name else b'{"prompt": "')
        for _ in range(size // 2**20):
            file.write(b"x" * 2**20)
    done = subprocess.run([sys.executable, "-c", BOMB, str(tmp_path / name)], capture_output=True, text=True, check=True)
    message, grown = done.stdout.splitlines()
    line = ": line 1 of the file has more than {:,} bytes" if ".csv" in name else ":1: a row may have {:,} bytes, and this one has more"
    assert message == f"{tmp_path / name}{line.format(MOST_BYTES)}"
    assert int(grown) < 12 * MOST_BYTES // 2**20  # of 128 or 1,024 MiB


@pytest.mark.skipif(not LONG, reason="`make attack` reads a million pairs")
def test_a_million_pairs(tmp_path: Path):
    path, count = tmp_path / "pairs.jsonl", 1_000_000
    with path.open("w") as file:
        file.writelines(json.dumps(ROW | {"prompt": f"Question {i}"}) + "\n" for i in range(count))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert len(load_pairs(path)) == count
    taken, grown = time.process_time() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    print(f"a million pairs: {taken:.0f} s, {grown:.2f} GiB")
    assert taken < 300 and grown < 4
    start = time.process_time()
    assert len(load_pairs(path, limit=10)) == 10
    assert time.process_time() - start < 1


# Numbers that would be wrong in silence


def test_pad_tokens_inside_the_text_change_no_reward_of_others():
    model = tiny_reward_model()
    end = model.tokenizer.eos_token if model.tokenizer else ""
    inside = PreferencePair("a", (Message("user", "Hi"), Message("assistant", f"so {end} it is {end}")), NO)
    plain = PreferencePair("b", SAID, (Message("user", "Hi"), Message("assistant", "n")))  # "n" is a prefix of "no"
    both, alone = score(model, [inside, plain]), [score(model, [pair]) for pair in (inside, plain)]
    padded = score(model, [inside, plain], max_tokens=64)
    for i, single in enumerate(alone):
        for found in (both, padded):
            assert found.chosen[i] == pytest.approx(single.chosen[0], abs=1e-5)
            assert found.rejected[i] == pytest.approx(single.rejected[0], abs=1e-5)


def test_answers_of_one_token_and_of_none():
    rows = encode_pairs(
        [PreferencePair("a", (Message("assistant", "n"),), (Message("assistant", ""),))], byte_tokenizer(), max_length=99
    ).rows
    assert [len(row.ids) - row.response_start for row in rows] == [2, 1]  # " n", and the marker's last token, where the reward is read


def test_ties_are_cut_in_order_and_counted():
    same = torch.ones(3, 4)
    assert NeuronSet.top(same, k=5).coords == ((0, 0), (0, 1), (0, 2), (0, 3), (1, 0))
    assert tied_at_cut(same, 5) == 7 and tied_at_cut(same, 0) == tied_at_cut(same, 12) == 0
    assert NeuronSet.top(same, k=0) == NeuronSet() and len(NeuronSet().matched_random(4, seed=0)) == 0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ANY_SET([(0.5, 1)]), "of whole numbers, got (0.5, 1)"),
        (lambda: ANY_SET(["01"]), "of whole numbers, got '01'"),
        (lambda: ANY_SET([(0, 1, 2)]), "of whole numbers, got (0, 1, 2)"),
        (lambda: NeuronSet.from_json({"0": 1}), "a list of [layer, neuron], got dict"),
        (lambda: NeuronSet.from_json([[0, None]]), "of whole numbers, got"),
        (lambda: NeuronSet.top(torch.ones(2, 3), k=7), "k must be in [0, 6], got 7"),
        (lambda: NeuronSet.top(torch.ones(2, 3), fraction=0.05), "less than one neuron"),
        (lambda: NeuronSet.top(torch.ones(2, 3)), "give either k or fraction"),
        (lambda: NeuronSet([(0, 0), (0, 1)]).matched_random(3, seed=0), "2 of 3 neurons are in the set"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_sets_that_are_none(call: Callable[[], Any], says: str):
    assert says in refusal(call)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-4, 9)
    | st.floats()
    | st.sampled_from(["", " ", "Hi", "\\n\\nHuman: Hi", "A>B", "[1]", "\\udc80"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=tries(150, 20_000), deadline=None)
@given(schema=st.sampled_from(SCHEMAS), values=st.data())
@pytest.mark.filterwarnings("ignore")
def test_any_values_under_the_keys_of_a_schema_make_pairs_or_one_line(schema: Schema, values: st.DataObject):
    """No traceback, whatever a row holds; what is made are pairs of two sides that differ."""
    row = {
        key: values.draw(VALUES, label=key)
        for key in (*schema.keys, "prompt", "system", "id")
        if key in schema.keys or values.draw(st.booleans())
    }
    rows = [row, row] if schema.together else [row]
    on_bad: Literal["error", "drop"] = values.draw(st.sampled_from(["error", "drop"]))
    try:
        pairs = pairs_from(rows, on_bad=on_bad)
    except InputError:
        assert refusal(pairs_from, rows, on_bad=on_bad).startswith("rows:")
        return
    assert all(pair.chosen != pair.rejected and pair.chosen[-1].role == "assistant" for pair in pairs)


def test_rows_are_read_alike_by_hand():
    assert pairs_of_row(ROW, "a")[0] == PreferencePair("a", SAID, (Message("user", "Hi"), Message("assistant", "Go away.")))
