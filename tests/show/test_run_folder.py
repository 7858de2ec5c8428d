"""What stands around every analysis: the check before it, what is written and printed after it."""

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tl_reward.data.pairs import data_hash
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.results.record_neurons import record_scores
from tl_reward.results.store import Results
from tl_reward.running.scoring import score
from tl_reward.show.run_folder import run_folder

ENTRY = {"model": ["a"], "edits": []}
PAIRS = load_pairs("embedded", split="test", limit=2)


def test_what_the_block_records_is_written_with_where_it_came_from_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with run_folder(tmp_path / "run", data={"some": PAIRS}, seed=3) as results:
        results.add("study", "a", ENTRY)
        assert not (tmp_path / "run").exists()
    run = Results.load(tmp_path / "run")
    assert run.section("study") == {"a": ENTRY} and run.provenance["seed"] == 3
    assert run.provenance["data"] == {"some": {"pairs": 2, "sha256": data_hash(PAIRS)}}
    assert f"Run: {tmp_path / 'run'}\n" in capsys.readouterr().out


def test_what_was_found_ends_the_command_and_stands_in_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with run_folder(tmp_path / "run") as results:
        entry = score(tiny_reward_model(), PAIRS).to_json()
        entry["accuracy"] = {"value": 0.9, "low": 0.8, "high": 1.0, "n": 40}
        results.add(
            "scores", "a", {**entry, "model": "a", "dataset": "some", "ids": []}, dict.fromkeys(("chosen", "rejected"), torch.zeros(0))
        )
    sentence = "Of 2 pairs of some (40 prompts), the a model prefers the chosen answer in 90 % [80, 100]."
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Findings - {sentence} Run: " in printed
    assert [each["sentence"] for each in json.loads((tmp_path / "run" / "results.json").read_text())["findings"]] == [sentence]


def test_a_run_without_a_finding_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with run_folder(tmp_path / "run") as results:
        record_scores(results, "a", "some", score(tiny_reward_model(), PAIRS))
    assert "Findings - No finding: nothing in this run meets a rule of findings. Run: " in " ".join(capsys.readouterr().out.split())


def test_a_block_that_raises_leaves_nothing(tmp_path: Path):
    with pytest.raises(InputError, match="section must be one of"), run_folder(tmp_path / "deep" / "run") as results:
        results.add("nonsense", "a", ENTRY)
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_exists_is_refused_before_the_block_runs(tmp_path: Path):
    ran = []
    Results().save(tmp_path / "run")
    with pytest.raises(InputError, match="exists"), run_folder(tmp_path / "run"):
        ran.append(1)
    assert ran == []
    with run_folder(tmp_path / "run", overwrite=True) as results:
        results.add("study", "b", ENTRY)
    assert Results.load(tmp_path / "run").section("study") == {"b": ENTRY}


@pytest.mark.parametrize("names", ["some", "others"])
def test_scores_of_other_pairs_than_those_that_the_run_names_are_warned_of(names: str, tmp_path: Path):
    # The hash of the data in the provenance would be that of pairs that were not read.
    scores = score(tiny_reward_model(), PAIRS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with run_folder(tmp_path / "run", data={"some": PAIRS, "others": load_pairs("embedded", split="find", limit=3)}) as results:
            record_scores(results, "tiny", names, scores)
    said = [str(each.message) for each in caught if "data=" in str(each.message)]
    expected = "scores of tiny · others: 2 of 2 pairs are not among the 3 that data= names 'others'"
    assert [each[: len(expected)] for each in said] == ([] if names == "some" else [expected])
    assert Results.load(tmp_path / "run").section("scores")  # nothing is lost


def late(out: Path, then: Callable[[], object]) -> str:
    """What is said of a run folder that cannot be written once the block has run."""

    def block() -> None:
        with run_folder(out) as results:
            results.add("study", "a", ENTRY)
            then()

    with pytest.raises(InputError) as said:
        block()
    return str(said.value)


def test_results_that_cannot_be_written_at_the_end_go_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    said = late(tmp_path / "run", lambda: Results().save(tmp_path / "run"))  # another process was faster
    assert re.search(r"run exists; .*; the results are in .*run-rescued-[\d-]+$", said)
    rescued = Path(said.rpartition("the results are in ")[2])
    assert rescued.parent == tmp_path and Results.load(rescued).section("study") == {"a": ENTRY}

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    said = late(tmp_path / "deep" / "run", lambda: (tmp_path / "deep").write_text("a file, by now"))
    assert re.search(r"deep is a file; the results are in .*temporary.run-rescued", said)


@pytest.mark.parametrize("error", [ValueError("a user's own"), KeyboardInterrupt(), SystemExit(3)])
def test_what_a_script_recorded_before_it_failed_is_kept(tmp_path: Path, error: BaseException, capsys: pytest.CaptureFixture[str]):
    def script() -> None:
        with run_folder(tmp_path / "run", seed=3) as results:
            results.add("study", "a", ENTRY)
            raise error

    for _ in range(2):  # the second takes the first one's place
        with pytest.raises(type(error)):
            script()
        assert [item.name for item in tmp_path.iterdir()] == ["run.unfinished"]
        kept = Results.load(tmp_path / "run.unfinished")
        assert kept.section("study") == {"a": ENTRY} and kept.provenance["unfinished"] is True and kept.provenance["seed"] == 3
        assert capsys.readouterr().err == f"What was done by then is kept in {tmp_path / 'run.unfinished'}\n"


def test_the_folder_of_a_run_that_was_cut_short_may_be_anything(tmp_path: Path):
    (tmp_path / "run.unfinished").write_text("no folder")
    with pytest.raises(ZeroDivisionError), run_folder(tmp_path / "run") as results:
        assert results.add("study", "a", ENTRY) or 1 / 0
    assert (tmp_path / "run.unfinished").read_text() == "no folder"
