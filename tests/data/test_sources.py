"""Rows come from tables, folders, the hub, and from what a caller in Python holds: the pairs are the same."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from datasets import config
from helpers.attack import tries
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tl_reward.data.readers import load_pairs, pairs_from
from tl_reward.data.sources.row import MOST_BYTES
from tl_reward.data.sources.tables import csv_rows
from tl_reward.errors import InputError, as_options

pytestmark = pytest.mark.filterwarnings("ignore:.*more than once")

ROW = {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."}
ROWS = [ROW | {"id": i, "prompt": f"Question {i}", "subset": "chat"} for i in range(3)]
SAID = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
NO = [SAID[0], {"role": "assistant", "content": "No."}]


def refusal(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert message.splitlines() == [message] and len(message) < 1000
    return message


def jsonl(path: Path, rows: list[Any] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(rows: list[Any], delimiter: str = ",") -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, {key: None for row in rows for key in row}, delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


# Rows in Python


TWICE = "rows: two columns are called 'rejected'; rename one"


def given_as() -> dict[str, Any]:
    """The same rows, as each thing that can hold them."""
    return {
        "list": ROWS,
        "tuple": tuple(ROWS),
        "generator": (row for row in ROWS),
        "Dataset": datasets.Dataset.from_list(ROWS),
        "IterableDataset": datasets.Dataset.from_list(ROWS).to_iterable_dataset(),
        "DataFrame": pandas.DataFrame(ROWS),
        "DataFrame of another index": pandas.DataFrame(ROWS, index=pandas.Index([7, 7, 9])),
        "Table": pyarrow.Table.from_pylist(ROWS),
    }


@pytest.mark.parametrize("kind", given_as())
def test_rows_in_python(kind: str):
    expected = pairs_from(ROWS)
    assert pairs_from(given_as()[kind]) == load_pairs(given_as()[kind]) == expected
    assert [(pair.id, pair.where) for pair in expected] == [("0", "rows:1"), ("1", "rows:2"), ("2", "rows:3")]


def test_a_split_of_a_dataset_dict():
    both = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS[:2]), "test": datasets.Dataset.from_list(ROWS[2:])})
    assert pairs_from(both, split="test") == pairs_from(ROWS[2:])
    assert "rows: holds the splits train, test: say which, with split='train'" in refusal(pairs_from, both)
    assert "rows: no split 'valid'; it has train, test" in refusal(load_pairs, both, split="valid")


def test_a_frame_of_lists_and_missing_values(tmp_path: Path):
    # pandas reads lists out of parquet as arrays, and has nan for what is not there.
    rows = [{"chosen": SAID, "rejected": NO, "subset": "a"}, {"chosen": SAID, "rejected": [SAID[0], NO[1] | {"content": "Never."}]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    frame = pandas.read_parquet(tmp_path / "pairs.parquet")
    assert isinstance(frame["chosen"][0], np.ndarray)
    assert pairs_from(frame) == pairs_from(rows) and pairs_from(frame)[1].subset is None
    frame = pandas.DataFrame([ROW, ROW | {"chosen": None}])
    assert "rows:2: pair rows:2: chosen is empty" in refusal(pairs_from, frame)


def test_a_generator_is_read_no_further_than_the_limit():
    def rows() -> Iterator[Any]:
        yield from ROWS
        raise AssertionError

    assert len(pairs_from(rows(), limit=3)) == 3


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (ROW, "rows must hold rows, got dict (put the row in brackets)"),
        ("pairs.jsonl", "rows must hold rows, got 'pairs.jsonl' (tl_reward.load_pairs reads a file)"),
        (5, "rows must hold rows, got 5 (a list of dicts"),
        (None, "rows must hold rows, got None"),
        ([], "rows: no pairs found in it"),
        ([5], "rows:1: unknown schema: found int"),
        ([[ROW]], "rows:1: unknown schema: found list"),
        (["pairs.jsonl"], "rows:1: unknown schema: found str"),
        ([ROW, *pairs_from([ROW])], "rows:2: is a PreferencePair already"),
        (np.zeros((2, 2)), "rows:1: unknown schema: found list"),
        (pandas.DataFrame({"text": ["Hi"]}), "rows:1: unknown schema: found text"),
        (pandas.DataFrame([["a", "b", "c"]], columns=pandas.Index(["chosen", "rejected", "rejected"])), TWICE),
        (pyarrow.table([["a"], ["b"], ["c"]], names=["chosen", "rejected", "rejected"]), TWICE),
    ],
)
def test_what_holds_no_rows(rows: Any, says: str):
    assert says in refusal(pairs_from, rows)


def test_load_pairs_of_a_single_row():
    assert "put one row in brackets" in refusal(load_pairs, ROW)


# Columns of other names


OTHER = [{"q": f"Question {i}", "good": "Hello.", "bad": "Go away.", "id": i, "kind": "chat"} for i in range(3)]
COLUMNS = {"prompt": "q", "chosen": "good", "rejected": "bad", "subset": "kind"}


def test_columns():
    assert pairs_from(OTHER, columns=COLUMNS) == pairs_from(ROWS)
    swapped = [{"prompt": "Hi", "chosen": "worse", "rejected": "better"}]
    (pair,) = pairs_from(swapped, columns={"chosen": "rejected", "rejected": "chosen"})
    assert pair.chosen[-1].content == "better" and pair.rejected[-1].content == "worse"


def test_a_misspelt_column_is_named_as_it_is_written():
    row = {"Prömpt ü": "Hi", "chosen": "A", "rejected": "B"}
    message = refusal(pairs_from, [row])
    assert 'columns={"prompt": "Prömpt ü"}' in message and '--columns "prompt=Prömpt ü"' in as_options(message)


def test_columns_choose_among_many(tmp_path: Path):
    # A row of another schema, of which these columns are read.
    rows = [{"prompt": "Hi", "response": "Hello.", "helpfulness": 3, "other": "Go away."}]
    (pair,) = load_pairs(jsonl(tmp_path / "pairs.jsonl", rows), columns={"chosen": "response", "rejected": "other"})
    assert pair.chosen[-1].content == "Hello."
    split = pairs_from(
        [row | {"part": part} for row, part in zip(OTHER, "aab", strict=True)], columns=COLUMNS | {"split": "part"}, split="a"
    )
    assert len(split) == 2


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"prompt": "query"}, "rows:1: no column 'query'; it has q, good, bad, id, kind"),
        ({"promt": "q"}, "columns() has no option 'promt'; did you mean prompt?"),
        ({"prompt": "q"}, "rows:1: unknown schema: found prompt, id; nearest: responses"),
    ],
)
def test_columns_that_are_not_there(columns: Any, says: str):
    assert says in refusal(pairs_from, OTHER, columns=columns)


def test_a_command_says_it_with_its_options():
    message = as_options(refusal(pairs_from, OTHER))
    assert "; columns of other names: --columns prompt=… chosen=… rejected=…; known: " in message


# Tables


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.tsv", "pairs.csv.gz"])
def test_table(name: str, tmp_path: Path):
    rows = [row | {"chosen": 'He said "hello,\tyou"\nand left.'} for row in ROWS]
    content = b"\xef\xbb\xbf" + table(rows, "\t" if ".tsv" in name else ",").encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert load_pairs(tmp_path / name) == pairs_from(rows)


def test_table_of_messages_as_json(tmp_path: Path):
    (tmp_path / "pairs.csv").write_text(table([{"chosen": json.dumps(SAID), "rejected": json.dumps(NO)}]))
    assert load_pairs(tmp_path / "pairs.csv")[0].chosen == pairs_from([{"chosen": SAID, "rejected": NO}])[0].chosen


def test_answers_that_are_json_are_text(tmp_path: Path):
    answers = ['[{"name": "a"}]', "{}", "[1, 2]", "[not JSON"]
    (tmp_path / "pairs.csv").write_text(table([ROW | {"chosen": text} for text in answers]))
    assert [pair.chosen[-1].content for pair in load_pairs(tmp_path / "pairs.csv")] == answers


def test_labels_of_a_table_are_text(tmp_path: Path):
    row = {"prompt": "Hi", "response_0": "zero", "response_1": "one", "better_response_id": 1, "safer_response_id": 0}
    (tmp_path / "pku.csv").write_text(table([row]))
    assert load_pairs(tmp_path / "pku.csv") == pairs_from([row], source=f"{tmp_path.name}/pku")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", ": file is empty"),
        (b"\n\n", ": file is empty, or its first line names no column"),
        (b"prompt,chosen,rejected\n", ": no pairs found in it"),
        (b"prompt,chosen,rejected\nHi,a\n", ":1: a row of 2 cells under 3 names"),
        (b"prompt,chosen,rejected\nHi,a,b\nHi,a,b,c\n", ":2: a row of 4 cells under 3 names"),
        (b"prompt,chosen,chosen\nHi,a,b\n", ": two columns are called 'chosen'"),
        (b"prompt;chosen;rejected\nHi;a;b\n", ": the first line is one column, 'prompt;chosen;rejected', parted by ';'"),
        (b'prompt,chosen,rejected\nHi,a,"b\n', ":1: malformed row (unexpected end of data)"),
        (b'prompt,chosen,rejected\nHi,a,b\nHi,"a"b,c\n', ":2: malformed row"),
        ("prompt,chosen,rejected\né,a,b\n".encode("latin-1"), ": line 2 of the file is not readable as UTF-8 text (byte 1)"),
        (b"prompt,chosen,rejected\nHi,,b\n", ":1: pair "),
        (b"chosen,rejected\n\"[{'role': 'user', 'content': 'Hi'}]\",b\n", ":1: column chosen holds a list of messages as Python writes it"),
        (b"prompt,chosen,rejected\nHi," + b"x" * (MOST_BYTES + 1) + b",b\n", f": line 2 of the file has more than {MOST_BYTES:,} bytes"),
        (b'prompt,chosen,rejected\nHi,"' + b"x\n" * (MOST_BYTES // 2 + 9), ":1: malformed row (field larger than field limit"),
    ],
    ids=range(14),
)
def test_malformed_table(content: bytes, says: str, tmp_path: Path):
    (tmp_path / "pairs.csv").write_bytes(content)
    assert f"{tmp_path / 'pairs.csv'}{says}" in refusal(load_pairs, tmp_path / "pairs.csv")


def test_a_table_is_read_row_by_row(tmp_path: Path):
    (tmp_path / "pairs.csv").write_bytes(table(ROWS).encode() + b"\xff")
    assert len(load_pairs(tmp_path / "pairs.csv", limit=3)) == 3
    rows = csv_rows(tmp_path / "pairs.csv")
    assert next(rows)[0] == 1


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=30).filter(lambda text: text.strip())
flat = st.fixed_dictionaries(
    {"prompt": texts, "chosen": texts, "rejected": texts}, optional={"subset": texts, "objective": st.just("helpful")}
)


@settings(max_examples=tries(40, 4000), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(flat.filter(lambda row: row["chosen"] != row["rejected"]), min_size=1, max_size=4))
@pytest.mark.filterwarnings("ignore")
def test_a_list_its_lines_and_its_table_are_the_same_pairs(rows: list[dict[str, str]], tmp_path: Path):
    """What one of them refuses, all refuse."""
    columns = ("prompt", "chosen", "rejected", "subset", "objective")
    full = [{key: row.get(key) for key in columns} for row in rows]
    (tmp_path / "pairs.csv").write_text(table(full), encoding="utf-8", newline="")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(full), tmp_path / "pairs.parquet")
    source = f"{tmp_path.name}/pairs"
    results: list[Any] = []
    for read in (
        lambda: pairs_from(rows, source=source),
        lambda: pairs_from(iter(full), source=source),
        lambda: pairs_from(pandas.DataFrame(full), source=source),
        lambda: load_pairs(jsonl(tmp_path / "pairs.jsonl", rows)),
        lambda: load_pairs(tmp_path / "pairs.csv"),
        lambda: load_pairs(tmp_path / "pairs.parquet"),
    ):
        try:
            results.append(read())
        except InputError as error:
            results.append(str(error).partition("pair ")[2])
    assert all(result == results[0] for result in results)


# Folders


def test_folder_of_files(tmp_path: Path):
    jsonl(tmp_path / "b/two.jsonl", ROWS[1:2])
    (tmp_path / "one.csv").write_text(table(ROWS[2:]))
    (tmp_path / "three.json").write_text(json.dumps(ROWS[:1]))
    for other in ("README.md", "dataset_infos.json", ".hidden/x.jsonl", "_cache/y.jsonl"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_text("{")
    assert sorted(pair.id for pair in load_pairs(tmp_path)) == ["0", "1", "2"]


def test_ids_of_a_folder_are_those_of_its_files(tmp_path: Path):
    file = jsonl(tmp_path / "data/pairs.jsonl", [ROW])
    deep = jsonl(tmp_path / "data/part/pairs.jsonl", [ROW | {"prompt": "Bye"}])
    assert [pair.id for pair in load_pairs(file.parent)] == ["data/pairs:1", "data/part/pairs:1"]
    assert load_pairs(file)[0].id == "data/pairs:1" and load_pairs(deep)[0].id == "part/pairs:1"


def test_splits_of_a_folder_are_not_mixed(tmp_path: Path):
    jsonl(tmp_path / "train-00000-of-00001.jsonl", ROWS[:2])
    jsonl(tmp_path / "test-00000-of-00001.jsonl", ROWS[2:])
    assert [pair.id for pair in load_pairs(tmp_path, split="test")] == ["2"]
    assert [pair.id for pair in load_pairs(tmp_path, split="train")] == ["0", "1"]
    assert "is a folder with the splits test, train: say which, with split='test'" in refusal(load_pairs, tmp_path)
    assert "no split 'validation'; it has test, train" in refusal(load_pairs, tmp_path, split="validation")


@pytest.mark.parametrize("several", [False, True])
def test_a_dataset_on_disk(several: bool, tmp_path: Path):
    saved = datasets.Dataset.from_list(ROWS)
    (datasets.DatasetDict({"train": saved, "test": saved}) if several else saved).save_to_disk(tmp_path / "saved")
    assert load_pairs(tmp_path / "saved", split="test" if several else None) == pairs_from(ROWS)
    if several:
        assert "holds the splits train, test: say which" in refusal(load_pairs, tmp_path / "saved")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({}, "is a folder without a file of pairs (.json,"),
        ({"README.md": "Hi"}, "is a folder without a file of pairs"),
        ({"state.json": "{}"}, "not readable as a saved Dataset"),
        ({"a.jsonl": ""}, "a.jsonl: file is empty"),
        ({"a.jsonl": "{"}, "a.jsonl:1: malformed JSON"),
        ({f"{name}.jsonl": json.dumps(ROW | {"id": 1}) for name in "ab"}, "two pairs have the id '1' ("),
    ],
)
def test_folder_that_is_none(files: dict[str, str], says: str, tmp_path: Path):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    message = refusal(load_pairs, tmp_path)
    assert message.startswith(str(tmp_path)) and says in message


# The hub: only the download is replaced


def test_a_configuration_of_a_hub_dataset(monkeypatch: pytest.MonkeyPatch):
    asked = []

    def load_dataset(*args: Any, **kwargs: Any) -> list[Any]:
        asked.append((args, kwargs))
        return ROWS

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    pairs = load_pairs("owner/name", name="preference", split="validation")
    assert asked == [(("owner/name", "preference"), {"data_dir": None, "split": "validation"})]
    assert pairs == pairs_from(ROWS) and pairs[0].where == "owner/name/preference/validation:1"


@pytest.mark.parametrize("reached", [True, False])
def test_a_hub_that_is_not_reached_is_not_waited_for(reached: bool, monkeypatch: pytest.MonkeyPatch):
    # `datasets` by itself would try again for 20 s; offline, it looks at once into what was fetched before.
    seen: list[bool] = []

    class Session:
        def head(self, url: str, timeout: float) -> None:
            if not reached:
                raise ConnectionError(url, timeout)

    def load_dataset(*args: Any, **kwargs: Any) -> list[Any]:
        seen.append(config.HF_HUB_OFFLINE)
        raise FileNotFoundError("not here.\nAvailable: a, b")

    monkeypatch.setattr("huggingface_hub.get_session", Session)
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr(config, "HF_HUB_OFFLINE", False)
    message = refusal(load_pairs, "owner/name")
    assert message.endswith("the hub did not give it (not here. Available: a, b): look at the name, and at the network")
    assert seen == [not reached] and config.HF_HUB_OFFLINE is False
