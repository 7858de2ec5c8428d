"""What users get wrong in data. Each is refused in one short line that names the file, the row, and what would make it right:
in Python with an `InputError`, on the command line with status 2, and never with a traceback."""

import gzip
import io
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
import pytest
from helpers.refusals import GOOD_ROW, check, command_refuses, refusal

from tl_reward.data.readers import load_pairs
from tl_reward.data.sources.row import MOST_BYTES

pytestmark = pytest.mark.filterwarnings("ignore")


# Data


class Bad(NamedTuple):
    """A file of data, and what its refusal says: after the file's name where (":2" is the second row), and what helps."""

    name: str
    content: bytes
    place: str
    says: str


def lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def table(*rows: str, mark: str = ",") -> bytes:
    return "".join(row.replace(",", mark) + "\n" for row in rows).encode()


def second(says: str, *, place: str = ":2: ", **columns: Any) -> Bad:
    """A good row, and one of it in which some columns are others."""
    return Bad("pairs.jsonl", lines(GOOD_ROW, GOOD_ROW | {"prompt": "Bye"} | columns), place, says)


def row(says: str, *, place: str = ":1: ", **columns: Any) -> Bad:
    return Bad("pairs.jsonl", lines(columns), place, says)


def said(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]


def zipped() -> bytes:
    """As a spreadsheet is one."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("xl/workbook.xml", "<a/>")
    return made.getvalue()


def parquet(*rows: Any) -> bytes:
    made = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), made)
    return made.getvalue()


def helpsteer(prompt: str, number: Any) -> dict[str, Any]:
    return {"prompt": prompt, "response": f"answer {number}", "helpfulness": number}


HEADER, FIRST = "prompt,chosen,rejected", "Hi,Hello.,Go away."
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
LIST = json.dumps([GOOD_ROW]).encode()
ONE = json.dumps(GOOD_ROW).encode()
IMAGE = [{"role": "user", "content": [{"type": "image", "image": "x"}, {"type": "text", "text": "What is it?"}]}]
DATA: dict[str, Bad] = {
    # Kinds of files
    "spreadsheet": Bad("pairs.xlsx", zipped(), ": ", "or give tl_reward.pairs_from(pandas.read_excel(…)); see docs"),
    "spreadsheet by another name": Bad("pairs.csv", zipped(), ": ", "a zip archive, as spreadsheets are: unpack it, or"),
    "zip archive": Bad("pairs.zip", zipped(), ": ", "unpack it; see docs/converting.md"),
    "pickle": Bad("pairs.pkl", b"\x80\x04N.", ": ", "a pickle, which can run code: write its rows as .jsonl where you trust it"),
    "text file": Bad("pairs.txt", lines(GOOD_ROW), ": ", "call it .jsonl"),
    "capital suffix": Bad("PAIRS.JSONL", lines(GOOD_ROW), ": ", "(in small letters)"),
    "no suffix": Bad("pairs", lines(GOOD_ROW), ": ", "file name must end in one of .json, .jsonl"),
    "packed by zstd": Bad("pairs.jsonl.zst", b"\x28\xb5\x2f\xfd", ": ", "packed, and not by gzip: unpack it"),
    "Arrow file": Bad("data.arrow", b"ARROW1", ": ", "give the folder that save_to_disk wrote"),
    "gzip that is none": Bad("pairs.jsonl.gz", lines(GOOD_ROW), ": ", "leave out the .gz where it is not packed"),
    "gzip that is cut": Bad("pairs.jsonl.gz", gzip.compress(lines(GOOD_ROW) * 50)[:-9], ": ", "not readable"),
    "gzip without its suffix": Bad("pairs.jsonl", gzip.compress(lines(GOOD_ROW)), ": ", "let its name end in .gz"),
    "parquet as lines": Bad("pairs.jsonl", parquet(GOOD_ROW), ": ", "a parquet file: call it .parquet"),
    "lines as parquet": Bad("pairs.parquet", lines(GOOD_ROW), ": ", "text needs the name .jsonl, .json or .csv"),
    "parquet that is cut": Bad("pairs.parquet", parquet(GOOD_ROW)[:-20], ": ", "not a readable parquet file"),
    "pointer of Git LFS": Bad("pairs.jsonl", POINTER, ": ", "git lfs pull fetches it"),
    "web page": Bad("pairs.json", b"<!DOCTYPE html><html></html>", ": ", "a web page, and not the file itself"),
    "UTF-16": Bad("pairs.csv", "\n".join((HEADER, FIRST)).encode("utf-16"), ":1: ", "it is UTF-16: save it as UTF-8"),
    "UTF-16 without a mark": Bad("pairs.csv", "\n".join((HEADER, FIRST)).encode("utf-16-le"), ":1: ", "it is UTF-16: save it as UTF-8"),
    "Latin-1": Bad("pairs.csv", f"{HEADER}\nHé,a,b\n".encode("latin-1"), ": line 2 of the file", "byte 2): save it as UTF-8"),
    "empty file": Bad("pairs.jsonl", b"", ": ", "file is empty"),
    # JSON
    "list in lines": Bad("pairs.jsonl", LIST, ":1: ", "a line of .jsonl is one row {…}: call the file .json"),
    "list over several lines": Bad("pairs.jsonl", json.dumps([GOOD_ROW], indent=1).encode(), ":1: ", "call the file .json"),
    "row over several lines": Bad("pairs.jsonl", json.dumps(GOOD_ROW, indent=1).encode(), ":1: ", "call the file .json"),
    "list within an object": Bad("pairs.json", b'{"data": ' + LIST + b"}", ": ", "got dict: write the list under 'data' alone"),
    "list of each column": Bad("pairs.json", json.dumps({k: [v] for k, v in GOOD_ROW.items()}).encode(), ": ", "to_json(orient='records')"),
    "line without a comma": Bad(
        "pairs.jsonl", ONE + b"\n" + ONE.replace(b'", "rej', b'" "rej'), ":2: ", "at character 37 of the row, near '"
    ),
    "row without a comma": Bad("pairs.json", b"[" + ONE + b",\n" + ONE.replace(b'", "rej', b'" "rej') + b"]", ":2: ", "at character 37 of"),
    "comma in a row": Bad("pairs.jsonl", ONE[:-1] + b",}", ":1: ", "leave out the comma before the bracket"),
    "comma after a row": Bad("pairs.jsonl", ONE + b",\n" + ONE, ":1: ", "leave out the comma after the row"),
    "comma after the last row": Bad("pairs.json", b"[" + ONE + b",]", ":2: ", "leave out the comma before the bracket"),
    "two rows in a line": Bad("pairs.jsonl", ONE + ONE, ":1: ", "a line of .jsonl holds one row alone"),
    "single quotes": Bad("pairs.jsonl", repr(GOOD_ROW).encode(), ":1: ", "JSON has double quotes, as json.dumps writes them"),
    "None": Bad("pairs.jsonl", ONE.replace(b'"Hi"', b"None"), ":1: ", "JSON has null, true and false"),
    "line that is cut": Bad("pairs.jsonl", ONE + b"\n" + ONE[:-4], ":2: ", "the row is cut there"),
    "table as lines": Bad("pairs.jsonl", table(HEADER, FIRST), ":1: ", "a line of .jsonl is an object {…}"),
    "texts": Bad("pairs.json", b'["Hi", "Hello."]', ":1: ", "a row is an object with columns"),
    "row that is too long": Bad("pairs.jsonl", lines({"prompt": "x" * MOST_BYTES}), ":1: ", f"a row may have {MOST_BYTES:,} bytes"),
    # Tables
    "semicolons": Bad("pairs.csv", table(HEADER, FIRST, mark=";"), ": ", "pandas.read_csv(…, sep=';')) reads such a file"),
    "tabs in .csv": Bad("pairs.csv", table(HEADER, FIRST, mark="\t"), ": ", "let its name end in .tsv"),
    "commas in .tsv": Bad("pairs.tsv", table(HEADER, FIRST), ": ", "let its name end in .csv"),
    "capital names": Bad("pairs.csv", table(HEADER.title(), FIRST), ":1: ", 'columns={"prompt": "Prompt", "chosen": "Chosen", '),
    "no names": Bad("pairs.csv", table(FIRST, FIRST), ":1: ", "the first line of a table must name its columns"),
    "names alone": Bad("pairs.csv", table(HEADER), ": ", "no pairs found in it"),
    "name twice": Bad("pairs.csv", table("prompt,chosen,chosen", FIRST), ": ", "two columns are called 'chosen'"),
    "comma in a cell": Bad("pairs.csv", table(HEADER, FIRST, "Hi,Well, hello.,No"), ":2: ", "a cell that holds a comma or a line"),
    "cell too few": Bad("pairs.csv", table(HEADER, FIRST, "Hi,Hello."), ":2: ", "a row of 2 cells under 3 names"),
    "quote in a cell": Bad("pairs.csv", table(HEADER, 'Hi,"a"b",c'), ":1: ", "must be in double quotes, and that one written twice"),
    "cell that holds nothing": Bad("pairs.csv", table(HEADER, FIRST, "Hi,,Go away."), ":2: ", 'can be dropped: on_bad="drop"'),
    "messages as Python writes them": Bad("pairs.csv", b"chosen,rejected\n\"[{'role': 'user'}]\",b\n", ":1: ", "write the table as .jsonl"),
    # Columns
    "prompt misspelt": row('no prompt: found promt, chosen, rejected; ', promt="Hi", chosen="A", rejected="B"),
    "prompt by another name": row('columns={"prompt": "context"}', context="Hi", chosen="A", rejected="B"),
    "prompt misspelt beside messages": row('columns={"prompt": "promt"}', promt="Hi", chosen=said("", "A")[1:], rejected=said("", "B")[1:]),
    "prompt misspelt beside lists": row('columns={"prompt": "Promt"}', Promt="Hi", chosen=["A"], rejected=["B", "C"]),
    "prompt that is null": second('prompt is empty (such pairs can be dropped: on_bad="drop")', prompt=None),
    "rejected misspelt": row('(is it reject?); columns of other names: columns={"rejected": "rej', prompt="Hi", chosen="A", reject="B"),
    "an answer with a label": row("put a good and a bad answer of a prompt into one row", prompt="Hi", completion="A", label=True),
    "one conversation": row("another answer to compare it with is needed", messages=said("Hi", "A")),
    "other schema in the middle": Bad("pairs.jsonl", lines(GOOD_ROW, {"question": "Hi", "text": "A"}), ":2: ", "nearest: question"),
    "names of columns as sides": second("make them of these first", chosen="prompt", rejected="prompt"),
    # Rows
    "side that is NaN": second('chosen is empty (such pairs can be dropped: on_bad="drop")', chosen=float("nan")),
    "side that is a number": second("chosen: expected text or a list of {role, content}, got int", chosen=5),
    "side that is empty": second('can be dropped: on_bad="drop"', chosen=""),
    "equal sides": second('chosen and rejected are equal (such pairs can be dropped: on_bad="drop")', chosen="Go away."),
    "image in a message": row("a reward model of text cannot read it", chosen=[*IMAGE, *said("", "A")[1:]], rejected=said("Hi", "B")),
    "unknown role": row("a message must hold a role (human, user,", chosen=[{"role": "bot", "content": "A"}], rejected=said("Hi", "B")),
    "last word of the user": row("chosen must end with an assistant message, got user", chosen=said("A"), rejected=said("A", "B")),
    "messages as text": second("read it first (json.loads, ast.literal_eval)", chosen=json.dumps(said("Hi", "A"))),
    "id twice": second("two pairs have the id '1'", place=": ", id=1)._replace(content=lines(GOOD_ROW | {"id": 1}, GOOD_ROW | {"id": 1})),
    # Labels
    "vote for a name": row("winner must be one of model_a,", conversation_a=said("Hi", "A"), conversation_b=said("Hi", "B"), winner="gpt"),
    "HelpSteer by words": Bad("pairs.jsonl", lines(helpsteer("Q", "high"), helpsteer("Q", "low")), ":1-2: ", "from 0 to 4, got 'high'"),
    "HelpSteer out of order": Bad("pairs.jsonl", lines(*(helpsteer(q, 1) for q in "aba")), ": ", "must be in consecutive rows"),
    "PKU with a third answer": row(
        "better_response_id must be one of 0, 1, got 2", prompt="Q", response_0="A", response_1="B", better_response_id=2
    ),
    "Nectar of equal ranks": row("answers have one rank", place=": ", prompt="Q", answers=[{"answer": a, "rank": 1} for a in "AB"]),
    "JudgeBench with a letter": row("label must be one of A>B, B>A", question="Q", response_A="A", response_B="B", label="A"),
    "strength of 7": row("must be a number from -3 to 3, got 7", prompt="Q", response_1="A", response_2="B", preference_strength=7),
}  # fmt: skip


@pytest.mark.parametrize("name", DATA)
def test_data(name: str, tmp_path: Path):
    bad = DATA[name]
    path = tmp_path / bad.name
    path.write_bytes(bad.content)
    check(refusal(load_pairs, path), path, bad.place, bad.says)


@pytest.mark.parametrize("name", DATA)
def test_data_on_the_command_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    bad = DATA[name]
    path = tmp_path / bad.name
    path.write_bytes(bad.content)
    said = command_refuses(capsys, "score", "helpful", "--pairs", path, "--out", tmp_path / "out")
    assert said.startswith(f"{path}{bad.place}") and "columns={" not in said and "on_bad=" not in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "tset"}, "no split 'tset'; it has test; did you mean test?"),
        ({"subset": "maths"}, "no subset 'maths'; it has chat"),
        ({"objective": "coherence"}, "rows of the schema responses are not rated by coherence; these are: HelpSteer (helpfulness,"),
        ({"columns": {"prompt": "query"}}, "no column 'query'; it has prompt, chosen, rejected"),
        ({"columns": {"query": "prompt"}}, 'the other way round: columns={"prompt": "query"} says which column holds the prompt'),
    ],
)
def test_options_that_do_not_fit(options: Any, says: str, tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(lines(GOOD_ROW | {"split": "test", "subset": "chat"}))
    assert says in refusal(load_pairs, path, **options)


@pytest.mark.parametrize("name", ["pairs.jsnl", "pair.jsonl", "sub/pairs.jsonl"])
def test_file_that_is_not_there(name: str, tmp_path: Path):
    (tmp_path / "pairs.jsonl").write_bytes(lines(GOOD_ROW))
    said = refusal(load_pairs, tmp_path / name)
    assert said == f"{tmp_path / name}: no such file" + ("" if "/" in name else "; did you mean pairs.jsonl?")


def test_there_are_as_many_as_promised():
    # Beside the models of tests/bad_input/test_bad_models.py.
    assert len(DATA) >= 60
