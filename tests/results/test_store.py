"""Run folders: written whole or not at all, read back as they were, and named by what they came from."""

import gzip
import inspect
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch

from tl_reward.analyses.discovery import discover
from tl_reward.data.pairs import PreferencePair, data_hash, parse_transcript
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError, Lacking
from tl_reward.interventions.from_functions import intervention
from tl_reward.measures.json_types import EstimateJson
from tl_reward.results import store
from tl_reward.results.disk.folder import check_run_folder
from tl_reward.results.findings.every import findings_of
from tl_reward.results.provenance import provenance
from tl_reward.results.record_neurons import record_discovery
from tl_reward.results.sections import SECTIONS, DiscoveryEntry, ScoresEntry, Sections
from tl_reward.results.store import Results
from tl_reward.show.run_folder import run_folder
from tl_reward.sites import Site

ESTIMATE: EstimateJson = {"value": 0.5, "low": 0.25, "high": 1.0, "n": 2}
SCORES: ScoresEntry = {
    "model": "helpful", "dataset": "rmb/test", "ids": ["a", "b"], "pairs": 2, "ties": 0, "accuracy": ESTIMATE, "mean_margin": ESTIMATE,
    "best_of_n": None, "dropped": 0, "subsets": {}, "objectives": {},
}  # fmt: skip
DISCOVERY: DiscoveryEntry = {
    "dataset": "rmb/test", "pairs": 1, "pair_hashes": ["a"], "tokens": 9, "computed": ["mlp_gate/mean"], "shape": [2, 3], "firing": [],
    "where": "all", "contrast": {},
}  # fmt: skip


REWARDS = {"chosen": torch.tensor([1.0, 2.0], dtype=torch.float64), "rejected": torch.tensor([0.0, 3.0], dtype=torch.float64)}
MEAN = {"mlp_gate/mean": torch.arange(12.0).reshape(2, 2, 3)}


def results() -> Results:
    made = Results(provenance={"seed": 3, "command": "test"})
    made.add("scores", "helpful · rmb/test", SCORES, REWARDS)
    made.add("discovery", "mixed", DISCOVERY, MEAN)
    return made


def same(a: Results, b: Results) -> bool:
    return (
        (a.sections, a.provenance, set(a.tensors)) == (b.sections, b.provenance, set(b.tensors))
        and all(torch.equal(a.tensors[key], b.tensors[key]) for key in a.tensors)
        and all(a.tensors[key].dtype == b.tensors[key].dtype for key in a.tensors)
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Round trip


def test_save_and_load(tmp_path: Path):
    folder = results().save(tmp_path / "runs" / "one")
    assert sorted(item.name for item in folder.iterdir()) == ["results.json", "tensors.safetensors"]
    assert same(Results.load(folder), results())


def test_save_and_load_of_nothing(tmp_path: Path):
    assert same(Results.load(Results().save(tmp_path / "run")), Results())


def test_text_of_any_script_survives(tmp_path: Path):
    made = Results()
    made.add("scores", "模型 · \u2028 </script>", {**SCORES, "ids": ["é", "🐍"]}, REWARDS)
    assert same(Results.load(made.save(str(tmp_path / "run"))), made)


def test_parts_of_a_tensor_and_the_same_one_twice(tmp_path: Path):
    whole = torch.arange(6.0).reshape(2, 3)
    made = Results()
    graph = whole[1].clone().requires_grad_() * 2
    made.add("scores", "a", SCORES, {**REWARDS, "row": whole[0], "column": whole[:, 1], "graph": graph})
    made.add("scores", "b", SCORES, {**REWARDS, "row": whole[0]})
    loaded = Results.load(made.save(tmp_path / "run"))
    assert loaded.tensor("scores", "a", "column").tolist() == [1, 4]
    assert loaded.tensor("scores", "a", "graph").tolist() == [6, 8, 10]
    assert loaded.tensor("scores", "a", "row").tolist() == loaded.tensor("scores", "b", "row").tolist() == [0, 1, 2]


# All of it or nothing


def test_a_section_without_an_entry_is_neither_saved_nor_read(tmp_path: Path):
    with pytest.raises(InputError, match=r"run is not written: overlap has no entry$"):
        Results({**results().sections, "overlap": {}}, results().tensors).save(tmp_path / "run")
    folder = results().save(tmp_path / "run")
    document = json.loads((folder / "results.json").read_text())
    document["sections"]["overlap"] = {}
    (folder / "results.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"\(overlap has no entry\)$"):
        Results.load(folder)


@pytest.mark.parametrize("found", [1, [], None, {"a": 1}])
def test_an_unknown_section_that_is_none(found: Any, tmp_path: Path):
    folder = results().save(tmp_path / "run")
    document = json.loads((folder / "results.json").read_text())
    document["sections"]["new"] = found
    (folder / "results.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"\(new is no section\)$"):
        Results.load(folder)


def test_save_that_fails_leaves_nothing(tmp_path: Path):
    made = results()
    made.provenance["value"] = float("nan")  # JSON has no NaN
    with pytest.raises(InputError, match=r"run is not written: provenance\.value is nan"):
        made.save(tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == []


def test_save_that_fails_keeps_the_run_it_would_replace(tmp_path: Path):
    folder = results().save(tmp_path / "run")
    before = contents(tmp_path)
    bad = Results(provenance={"value": {1, 2}})  # nor sets
    with pytest.raises(InputError, match=r"provenance\.value is set, which JSON does not have"):
        bad.save(folder, overwrite=True)
    assert contents(tmp_path) == before


def test_save_that_fails_at_the_last_step_keeps_the_run_it_would_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = results().save(tmp_path / "run")
    before = contents(tmp_path)
    whole_os = {name: getattr(os, name) for name in ("rename", "replace")}
    failed = []

    def failing(name: str):
        def move(source: Path, target: Path, **kwargs) -> None:
            if Path(target).parent == folder and not failed:
                failed.append(target)
                raise OSError("disk is gone")
            whole_os[name](source, target, **kwargs)

        return move

    for name in whole_os:
        monkeypatch.setattr(os, name, failing(name))
    with pytest.raises(InputError, match="run cannot be written: disk is gone"):
        Results().save(folder, overwrite=True)
    assert failed and contents(tmp_path) == before


# What is not overwritten


def test_folder_that_exists_is_refused(tmp_path: Path):
    folder = results().save(tmp_path / "run")
    before = contents(tmp_path)
    for attempt in (Results().save, check_run_folder):
        with pytest.raises(InputError, match="exists"):
            attempt(folder)
    assert contents(tmp_path) == before


def test_overwrite_replaces_a_run_and_its_page(tmp_path: Path):
    folder = results().save(tmp_path / "run")
    (folder / "dashboard.html").write_text("old")
    Results(provenance={"seed": 4}).save(folder, overwrite=True)
    assert Results.load(folder).provenance == {"seed": 4}
    assert sorted(item.name for item in folder.iterdir()) == ["results.json", "tensors.safetensors"]
    assert [item.name for item in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("foreign", ["notes.txt", "sub/results.json"])
def test_overwrite_refuses_a_folder_with_foreign_files(foreign: str, tmp_path: Path):
    folder = results().save(tmp_path / "run")
    (folder / foreign).parent.mkdir(exist_ok=True)
    (folder / foreign).write_text("mine")
    before = contents(tmp_path)
    for attempt in (Results().save, check_run_folder):
        with pytest.raises(InputError, match=f"it holds {foreign.split('/')[0]}"):
            attempt(folder, overwrite=True)
    assert contents(tmp_path) == before


def test_overwrite_refuses_a_file(tmp_path: Path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InputError, match="not overwritten"):
        Results().save(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run").read_text() == "mine"


def test_check_passes_what_save_would_write(tmp_path: Path):
    check_run_folder(tmp_path / "new")
    check_run_folder(results().save(tmp_path / "run"), overwrite=True)
    assert not (tmp_path / "new").exists()


# Damage


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"format": 2, "sect', "damaged"),
        (b"", "damaged"),
        (b"[]", "damaged"),
        (b'{"format": 2, "provenance": {}}', "damaged"),
        (b'{"sections": {}, "provenance": {}}', "damaged"),
        (b"\xff\xfe\x00binary", "damaged"),
        (b'{"format": 2, "sections": [], "provenance": {}}', "sections: is wrong: input should be a valid dictionary"),
    ],
)
def test_damaged_json(text: bytes, says: str, tmp_path: Path):
    folder = results().save(tmp_path / "run")
    (folder / "results.json").write_bytes(text)
    with pytest.raises(InputError, match=says):
        Results.load(folder)


def damaged(edit: Callable[[dict[str, Any]], object], folder: Path) -> str:
    """What is said of a run after an edit of its sections."""
    folder = results().save(folder, overwrite=True)
    document = json.loads((folder / "results.json").read_text())
    edit(document["sections"])
    (folder / "results.json").write_text(json.dumps(document))
    with pytest.raises(InputError) as said:
        Results.load(folder)
    assert "\n" not in str(said.value)
    return str(said.value).removeprefix(f"{folder}: ")


def test_what_an_entry_lacks_is_named_by_section_entry_and_key(tmp_path: Path):
    run, name = tmp_path / "run", "helpful · rmb/test"
    said = damaged(lambda sections: sections["scores"][name].pop("pairs"), run)
    assert said == "run is damaged, or no run of tl_reward (scores of 'helpful · rmb/test': pairs is missing)"
    said = damaged(lambda sections: sections["scores"][name]["accuracy"].pop("low"), run)
    assert "scores of 'helpful · rmb/test': accuracy.low is missing" in said
    said = damaged(lambda sections: sections["discovery"]["mixed"].update(shape=[2, "three"]), run)
    assert "discovery of 'mixed': shape.1 is wrong: input should be a valid integer" in said
    said = damaged(lambda sections: sections["discovery"].update(mixed=None), run)
    assert "discovery of 'mixed': is wrong: input should be a valid dictionary" in said


def test_a_key_that_this_version_does_not_know_is_kept(tmp_path: Path):
    made = Results()
    made.add("scores", "a", {**SCORES, "new": 1}, REWARDS)
    again = Results.load(made.save(tmp_path / "run"))
    assert dict(again.entry("scores", "a"))["new"] == 1


# Findings


def test_findings_are_made_anew_at_every_save_and_never_read(tmp_path: Path):
    made = results()
    folder = made.save(tmp_path / "run")
    document = json.loads((folder / "results.json").read_text())
    assert document["findings"] == [finding.to_json() for finding in findings_of(made.sections)]
    (folder / "results.json").write_text(json.dumps(document | {"findings": [{"sentence": "The moon is a cheese."}, 3]}))
    again = Results.load(folder)
    assert json.loads((again.save(tmp_path / "again") / "results.json").read_text()) == document


def test_a_fault_in_a_rule_of_findings_costs_no_run(tmp_path: Path, monkeypatch):
    def divides(sections: object) -> None:
        raise ZeroDivisionError("of a rule")

    monkeypatch.setattr("tl_reward.results.store.findings_of", divides)
    made = results()
    with pytest.warns(UserWarning, match=r"written without its findings, .*ZeroDivisionError\('of a rule'\)"):
        folder = made.save(tmp_path / "run")
    assert json.loads((folder / "results.json").read_text())["findings"] == []
    assert Results.load(folder).sections == made.sections


# Formats


def saved_as(number: int, folder: Path, provenance: dict[str, Any]) -> Path:
    made = results()
    made.provenance = provenance
    made.save(folder)
    document = json.loads((folder / "results.json").read_text())
    (folder / "results.json").write_text(json.dumps(document | {"format": number}))
    return folder


@pytest.mark.parametrize("number", [1, 3])
def test_another_format_is_refused_with_what_is_read_and_what_wrote_it(number: int, tmp_path: Path):
    folder = saved_as(number, tmp_path / "run", {"versions": {"tl_reward": "9.9"}})
    with pytest.raises(InputError, match=rf"run has format {number} \(of tl_reward 9\.9\), this version reads 2$"):
        Results.load(folder)
    folder = saved_as(number, tmp_path / "other", {})
    with pytest.raises(InputError, match=rf"run has format {number}, this version reads 2$"):
        Results.load(folder)


def test_a_run_of_an_earlier_format_is_taken_through_every_step_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def first(run: store.Stored) -> store.Stored:
        return run._replace(sections={"scores": run.sections["old scores"]})

    def second(run: store.Stored) -> store.Stored:
        entries = {name: {**entry, "ties": 0} for name, entry in run.sections["scores"].items()}
        return run._replace(sections={"scores": entries}, tensors={key: value * 2 for key, value in run.tensors.items()})

    folder = saved_as(0, tmp_path / "run", {"seed": 3})
    document = json.loads((folder / "results.json").read_text())
    (entry,) = document["sections"].pop("scores").values()
    del entry["ties"]
    document["sections"] = {"old scores": {"helpful · rmb/test": entry}}
    (folder / "results.json").write_text(json.dumps(document))
    before = contents(tmp_path)
    monkeypatch.setattr(store, "_MIGRATIONS", {0: first, 1: second})
    run = Results.load(folder)
    assert run.sections == {"scores": {"helpful · rmb/test": SCORES}} and run.provenance == {"seed": 3}
    assert run.tensor("scores", "helpful · rmb/test", "chosen").tolist() == [2.0, 4.0]
    assert contents(tmp_path) == before
    monkeypatch.setattr(store, "_MIGRATIONS", {1: second})
    with pytest.raises(InputError, match=r"run has format 0, this version reads 1, 2$"):
        Results.load(folder)


def test_damaged_tensors(tmp_path: Path):
    folder = results().save(tmp_path / "run")
    file = folder / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(InputError, match="damaged"):
        Results.load(folder)
    file.unlink()
    with pytest.raises(InputError, match="damaged"):
        Results.load(folder)


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_no_run_folder(name: str, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no run folder \((results.json is missing|there is no such folder)\)"):
        Results.load(tmp_path / name)


# Entries


@pytest.mark.parametrize(
    ("change", "tensors", "says"),
    [
        ({"pairs": "2"}, REWARDS, "scores of 'a': pairs is wrong: input should be a valid integer"),
        ({"accuracy": {**ESTIMATE, "low": float("nan")}}, REWARDS, r"scores: a\.accuracy\.low is nan, which is no number in JSON"),
        ({"new": {1, 2}}, REWARDS, r"a\.new is set, which JSON does not have"),
        ({"new": {1: 2}}, REWARDS, r"a\.new has a key that is int, and no text"),
        ({"new": 10**30}, REWARDS, r"a\.new is a number of more than 64 bits"),
        ({}, {}, "scores of 'a': its tensor chosen is missing"),
        ({}, {**REWARDS, "rejected": torch.zeros(3)}, r"its tensor rejected has the shape \[3\], not \[2\]"),
        ({}, {**REWARDS, "rejected": torch.zeros(2).bfloat16()}, "its tensor rejected is of bfloat16, not of float16, float32, float64"),
        ({}, {**REWARDS, "rejected": torch.tensor([1.0, float("inf")])}, "its tensor rejected holds a number that is not finite"),
    ],
)
def test_what_load_would_refuse_is_refused_by_add(change: dict[str, Any], tensors: dict[str, torch.Tensor], says: str, tmp_path: Path):
    made = results()
    with pytest.raises(InputError, match=f"{says}.*, so it cannot be part of a run"):
        made.add("scores", "a", {**SCORES, **change}, tensors)
    assert same(made, results())
    assert same(Results.load(made.save(tmp_path / "run")), results())


def test_two_entries_do_not_share_a_tensor():
    made = Results()
    made.add("scores", "a", SCORES, {**REWARDS, "b/chosen": torch.zeros(1)})
    with pytest.raises(InputError, match="its tensor scores/a/b/chosen is there already"):
        made.add("scores", "a/b", SCORES, REWARDS)


def test_what_was_put_in_past_add_is_checked_when_it_is_saved(tmp_path: Path):
    made = results()
    del made.tensors["discovery/mixed/mlp_gate/mean"]
    with pytest.raises(InputError, match="run is not written: discovery of 'mixed': its tensor mlp_gate/mean is missing"):
        made.save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["a key is gone", "a number is text", "a section is none"])
def test_what_load_would_refuse_is_not_saved(change: str, tmp_path: Path):
    made = results()
    sections: Any = made.sections
    if change == "a key is gone":
        del sections["discovery"]["mixed"]["pairs"]
    elif change == "a number is text":
        sections["discovery"]["mixed"]["tokens"] = "6"
    else:
        sections["scores"] = None
    with pytest.raises(InputError, match="run is not written: "):
        made.save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_section_and_entry_know_the_type_of_each_section():
    types = dict(re.findall(r"^    (\w+): dict\[str, (\w+)\]$", inspect.getsource(Sections), re.M))
    assert list(types) == list(SECTIONS)
    source = Path(store.__file__).read_text(encoding="utf-8")
    assert dict(re.findall(r'def section\(self, name: Literal\["(\w+)"\]\) -> dict\[str, (\w+)\]', source)) == types
    assert dict(re.findall(r'def entry\(self, section: Literal\["(\w+)"\], name: str\) -> (\w+)', source)) == types


def test_sections_have_known_names():
    with pytest.raises(
        InputError, match=r"section must be one of scores, discovery, .*, patching, model_patching, lens, repair, study, got 'notes'"
    ):
        Results().add("notes", "a", {})


def test_what_is_not_there_is_named():
    with pytest.raises(InputError, match="no ablation; it has scores, discovery"):
        results().section("ablation")
    with pytest.raises(InputError, match="no discovery/mixed/mlp_post/rms; discovery has mixed/mlp_gate/mean"):
        results().tensor("discovery", "mixed", "mlp_post/rms")


def test_merge():
    one, two = Results(provenance={"seed": 1}), Results(provenance={"seed": 2})
    one.add("scores", "a", SCORES, {**REWARDS, "x": torch.tensor([1.0])})
    two.add("scores", "b", SCORES, {**REWARDS, "x": torch.tensor([2.0])})
    two.add("discovery", "a", DISCOVERY, MEAN)
    merged = Results.merge([one, two])
    assert merged.sections == {"scores": {"a": SCORES, "b": SCORES}, "discovery": {"a": DISCOVERY}}
    assert [merged.tensor("scores", name, "x").item() for name in "ab"] == [1, 2]
    assert merged.provenance == {"seed": 1}
    assert one.sections == {"scores": {"a": SCORES}}


def test_merge_of_two_that_hold_the_same_entry_and_of_none():
    other = Results()
    other.add("discovery", "mixed", DISCOVERY, MEAN)
    with pytest.raises(InputError, match="two runs hold discovery of mixed"):
        Results.merge([results(), other])
    with pytest.raises(InputError, match="at least one run is needed, got none"):
        Results.merge([])


def test_html_shows_names_as_text():
    made = Results()
    made.add("scores", "<script>", SCORES, REWARDS)
    assert "&lt;script&gt;" in made._repr_html_()
    assert "<script>" not in made._repr_html_()


# Provenance


def pair(number: int, answer: str = "Hello.") -> PreferencePair:
    prompt = f"\n\nHuman: {number}\n\nAssistant: "
    return PreferencePair(f"p{number}", parse_transcript(prompt + answer), parse_transcript(prompt + "No."))


def test_provenance_keys():
    pairs = [pair(0), pair(1)]
    made = provenance(seed=5, data={"rmb": pairs})
    assert set(made) == {"created", "command", "seed", "commit", "versions", "machine", "data"}
    assert made["seed"] == 5
    assert made["data"] == {"rmb": {"pairs": 2, "sha256": data_hash(pairs)}}
    assert made["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert all(made["versions"][name] for name in ("python", "tl_reward", "torch", "transformer_lens", "transformers", "numpy"))
    assert made["commit"] is None or len(made["commit"].removesuffix("-dirty")) == 40
    assert json.loads(json.dumps(made)) == made


def test_the_commit_is_that_of_the_packages_own_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Not of a project that holds a copy of it, and not of the one that git's own variables name."""
    project = tmp_path / "project"
    (project / "tl_reward").mkdir(parents=True)
    for command in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", "-C", str(project), *command], check=True)
    own = provenance()["commit"]
    monkeypatch.setenv("GIT_DIR", str(project / ".git"))
    assert provenance()["commit"] == own
    monkeypatch.setattr("tl_reward.results.provenance.files", lambda name: project / "tl_reward")
    (project / "pyproject.toml").write_text("[project]\nname = 'mine'\n")
    assert provenance()["commit"] is None


def test_tokens_and_passwords_of_a_command_are_not_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "sys.argv", ["train.py", "--hf-token", "hunter2", "--max-tokens", "512", "--tokens", "7", "--password=x", "hf_" + "a" * 20]
    )
    assert provenance()["command"] == "train.py --hf-token '***' --max-tokens 512 --tokens 7 '--password=***' '***'"


@pytest.mark.parametrize(
    "other",
    [
        [pair(1), pair(0)],
        [pair(0)],
        [pair(0), pair(1, "Hello")],
        [pair(0), PreferencePair("p1", pair(1).rejected, pair(1).chosen)],
    ],
    ids=["order", "number", "text", "sides"],
)
def test_data_hash_changes_with(other: list[PreferencePair]):
    assert data_hash([pair(0), pair(1)]) == data_hash([pair(0), pair(1)])
    assert data_hash(other) != data_hash([pair(0), pair(1)])


@pytest.mark.parametrize("ids", [True, False], ids=["with ids", "without ids"])
def test_data_hash_is_that_of_the_pairs_and_not_of_their_file(ids: bool, tmp_path: Path):
    rows = [{"prompt": f"é {i}", "chosen": "Hello.", "rejected": "No."} | ({"id": f"p{i}"} if ids else {}) for i in range(3)]
    lines = "\n".join(map(json.dumps, rows)).encode()
    (tmp_path / "pairs.jsonl").write_bytes(lines)
    (tmp_path / "copy.jsonl").write_bytes(lines)
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "pairs.json").write_text(json.dumps(rows, indent=2, ensure_ascii=False), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    assert len({data_hash(load_pairs(file)) for file in tmp_path.iterdir()}) == 1


def test_shares_of_bfloat16_sums_are_kept(tiny, tmp_path):
    pairs = load_pairs("embedded", split="find", limit=7)
    results = Results()
    edit = intervention(Site(0, "mlp_post"))(lambda x: x.abs() + 1)  # every neuron is always positive: shares are sums of many ones
    record_discovery(results, "m", "data", discover(tiny, pairs, sums_dtype=torch.bfloat16, interventions=[edit]))
    assert Results.load(results.save(tmp_path / "run")).names() == results.names()


def test_what_is_no_json_in_the_provenance_does_not_lose_a_run(tmp_path, capsys):
    with pytest.raises(InputError, match="the results are in"), run_folder(tmp_path / "run", seed=3) as results:
        results.provenance["config"] = {"out": tmp_path}
    (kept,) = tmp_path.glob("run-rescued-*")
    assert Results.load(kept).provenance["seed"] == 3


def test_two_runs_that_hold_one_entry_are_named(tmp_path: Path):
    runs = [Results(), Results(), Results()]
    for run in runs[1:]:
        run.add("study", "a", {"model": ["a"], "edits": []})
    with pytest.raises(InputError, match=r"^two runs hold study of a: run 2 and run 3; leave one out$"):
        Results.merge(runs)
    loaded = [Results.load(run.save(tmp_path / name)) for run, name in zip(runs[1:], ("one", "two"), strict=True)]
    with pytest.raises(InputError, match=r"^two runs hold study of a: \S*one and \S*two; leave one out$"):
        Results.merge(loaded)


def test_what_a_run_lacks_is_named_by_its_section():
    for lack in (lambda run: run.section("discovery"), lambda run: run.entry("study", "b")):
        run = Results()
        run.add("study", "a", {"model": ["a"], "edits": []})
        with pytest.raises(Lacking) as caught:
            lack(run)
        assert caught.value.section in ("discovery", "study")
