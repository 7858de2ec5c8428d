"""`tl-reward repair`: which pairs are for what, what it refuses before a model is loaded, and what it leaves on disk."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tl_reward
from tl_reward.cli import main
from tl_reward.cli.options import Output, Running
from tl_reward.cli.repair import RepairCommand
from tl_reward.errors import InputError
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.repairing import repair as repairing
from tl_reward.repairing.config import RepairConfig
from tl_reward.repairing.result import Repair
from tl_reward.results.store import Results

QUICK = ("--learn-steps", "2", "--fractions", "0.05", "0.2", "--strengths", "0", "--draws", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny reward models, and pairs of two objectives in three sets of prompts."""
    root = tmp_path_factory.mktemp("repair")
    for seed, name in enumerate(("mine", "other")):
        tiny_hf_model(seed=seed).save_pretrained(root / name)
        byte_tokenizer().save_pretrained(root / name)
        (root / name / "training.json").write_text("{}")
    for role in ("find", "tune", "test"):
        rows = [row(role, objective, i) for objective in ("helpful", "harmless") for i in range(12)]
        write(root / f"{role}.jsonl", rows)
        for objective in ("helpful", "harmless"):
            nameless = [{**row(role, objective, i), "objective": None} for i in range(12)]
            write(root / f"{objective}-{role}.jsonl", nameless)
    write(root / "few.jsonl", [row("few", objective, i) for objective in ("helpful", "harmless") for i in range(9)])
    write(root / "safe.jsonl", [row("safe", "safety", i) for i in range(10)])
    return root


def row(role: str, objective: str, i: int) -> dict[str, Any]:
    answers = ("Yes, of course." * (1 + i % 3), "No." * (1 + i % 2))
    return {"objective": objective, "prompt": f"{role} {objective} {i}?", "chosen": answers[i % 2], "rejected": answers[1 - i % 2] + "!"}


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


def pairs_in(folder: Path) -> list[str]:
    return [part for role in ("find", "tune", "test") for part in (f"--{role}", str(folder / f"{role}.jsonl"))]


def line_of(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and len(said.splitlines()) == 1, said
    return said


def test_from_pairs_to_a_checkpoint_with_its_evidence(folder: Path, tmp_path: Path, capsys, monkeypatch):
    made, real = list[Repair](), repairing.repair
    monkeypatch.setattr(repairing, "repair", lambda *args, **options: made.append(real(*args, **options)) or made[-1])
    out, other = tmp_path / "run", folder / "other"
    protect = ["--protect", f"safe={folder / 'safe.jsonl'}", str(folder / "test.jsonl")]
    beside = ["--singles", f"harmless={other}", "--beside", f"twin={folder / 'mine'}"]
    arguments = ["repair", str(folder / "mine"), *pairs_in(folder), *protect, *beside, *QUICK, "--tolerance", "1", "--out", str(out)]
    assert main(arguments) == 0
    (found,) = made
    assert found.chosen is not None and found.objectives == ("helpful", "harmless")
    assert [(each["split"], each["name"], each["pairs"]) for each in found.splits] == [
        *((split, name, 12) for split in ("find", "tune", "test") for name in ("helpful", "harmless")),
        ("protect", "safe", 10),
        ("protect", f"{folder.name}/test", 24),
    ]
    assert {each.name for each in found.evidence if each.kind == "model"} == {"harmless", "twin"}

    held = json.loads((out / "repair.json").read_text(encoding="utf-8"))
    assert {key: held[key] for key in found.to_json()} == json.loads(json.dumps(found.to_json()))
    assert held["model"] == "mine" and held["config"]["fractions"] == [0.05, 0.2]
    model = tl_reward.load(folder / "mine", device="cpu")
    origin = held["provenance"]
    assert origin["models"]["mine"]["weights"] == model.origin.weights and {"harmless", "twin"} < set(origin["models"])
    assert "torch" in origin["versions"] and origin["command"] and origin["seed"] == 0
    assert {name.partition(":")[0] for name in origin["data"]} == {"find", "tune", "test", "protect"}
    assert Results.load(out).provenance["models"] == origin["models"]

    exported = tl_reward.load(out / "model", device="cpu")
    texts = ["\n\nHuman: Hi\n\nAssistant: Hello!", "\n\nHuman: Why?\n\nAssistant: No."]
    torch.testing.assert_close(exported(texts), found.applied(model)(texts), atol=1e-4, rtol=0)
    assert (exported(texts) - model(texts)).abs().max() > 1e-3
    assert "## What else moved" in (out / "model" / "README.md").read_text(encoding="utf-8")
    assert f"Model: {(out / 'model').resolve()}" in capsys.readouterr().out

    # Replaced, nothing of it is left: a model that the new run says nothing of would be believed.
    monkeypatch.setattr(repairing, "best_of", lambda tried, tolerance: None)
    assert "exists; choose another folder" in line_of(capsys, *arguments)
    quick = ["--learn-steps", "0", "--fractions", "0.2", "--strengths", "0", "--draws", "0", "--device", "cpu"]
    assert main(["repair", str(folder / "mine"), *pairs_in(folder), *quick, "--out", str(out), "--overwrite"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("No model is written")]
    assert len(said) == 1
    assert not (out / "model").exists() and json.loads((out / "repair.json").read_text(encoding="utf-8"))["chosen"] is None


def test_without_pairs_the_embedded_ones_are_all_three(folder: Path, tmp_path: Path):
    command = RepairCommand(str(folder / "mine"), Output(tmp_path / "out"), config=RepairConfig(), running=Running())
    read: dict[str, Any] = {}
    *sets, protect = command._sets(read)
    assert [{name: len(pairs) for name, pairs in each.items()} for each in sets] == [
        {"helpful": 21, "harmless": 21}, {"helpful": 21, "harmless": 21}, {"helpful": 42, "harmless": 42}
    ]  # fmt: skip
    assert protect == {} and [*read] == ["find: embedded, find", "test: embedded, test"]


def test_a_name_is_the_objective(folder: Path, tmp_path: Path):
    def sets_of(*find: str, **more: Any) -> dict[str, int]:
        command = RepairCommand("mine", Output(tmp_path / "out"), find=find, tune=("embedded",), test=("embedded",), **more)
        return {name: len(pairs) for name, pairs in command._sets({})[0].items()}

    named = [f"{objective}={folder / objective}-find.jsonl" for objective in ("helpful", "harmless")]
    assert sets_of(*named) == {"helpful": 12, "harmless": 12}
    assert sets_of(*named, limit=5) == {"helpful": 5, "harmless": 5}
    assert sets_of("helpful=embedded", "harmless=embedded") == {"helpful": 42, "harmless": 42}  # of both in one file, its own
    assert sets_of(f"clean={folder / 'find.jsonl'}", f"biased={folder / 'tune.jsonl'}") == {"clean": 24, "biased": 24}
    with pytest.raises(InputError, match=r"is there twice"):
        sets_of(named[0], named[0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--find find.jsonl --tune few.jsonl --test test.jsonl", "tune has 9 prompts of helpful; at least 10 are needed"),
        ("--find few.jsonl --test test.jsonl", "tune has 4 prompts of helpful; at least 10 are needed"),
        ("--find find.jsonl --tune find.jsonl --test test.jsonl", "find and tune share 24 prompts, such as that of pair"),
        ("--find find.jsonl --tune tune.jsonl --test tune.jsonl", "tune and test share 24 prompts, such as that of pair"),
        ("--find find.jsonl --tune tune.jsonl --test test.jsonl --protect find.jsonl", "share 24 prompts, such as that of pair"),
        ("--find find.jsonl --tune tune.jsonl --test a=test.jsonl b=safe.jsonl", "find has the objectives helpful, harmless, and test has"),
        ("--find helpful=find.jsonl --tune tune.jsonl --test test.jsonl", "a repair needs pairs of at least two objectives"),
        ("--find helpful-find.jsonl --tune tune.jsonl --test test.jsonl", "names no objective; say which it is of, such as helpful="),
        ("--find =find.jsonl --tune tune.jsonl --test test.jsonl", "an objective's name must be printable, not blank"),
        ("--find helpful= --tune tune.jsonl --test test.jsonl", "--find helpful=: no source"),
        ("--find find.jsonl --tune tune.jsonl", "--find and --test go together"),
        ("--tune tune.jsonl", "--find and --test go together"),
        ("--protect a=safe.jsonl a=test.jsonl", "two protected sets are called 'a'"),
        ("--protect =safe.jsonl", "a protected set's name must be printable, not blank"),
        ("--protect helpful=safe.jsonl", "helpful is an objective and a protected set"),
        ("--singles safety=other", "singles must be by objective (helpful, harmless), got safety"),
        ("--singles =other", "a model's name must be printable, not blank"),
        ("--singles helpful=other --beside helpful=mine", "models must have different names, got helpful twice"),
        ("--beside mine=other", "models must have different names, got mine twice"),
        ("--strengths 0.5 -0.5", "a strength must be finite and at least 0, which zeroes a neuron, got -0.5"),
        ("--tolerance -1", "tolerance must be finite and at least 0, got -1"),
        ("--learn-steps -1", "learn_steps must be at least 0"),
        ("--intervention builtins:len", "repair takes no --intervention"),
    ],
)  # fmt: skip
def test_refused_before_a_model_is_loaded(options: str, says: str, folder: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(HookedRewardModel, "from_pretrained", lambda *args, **kwargs: pytest.fail("loaded"))
    assert says in line_of(capsys, "repair", "mine", *options.split(), "--out", tmp_path / "out")
    assert [*tmp_path.iterdir()] == []


def test_packages_for_the_upper_mark_are_looked_for_first(folder: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, real=importlib.util.find_spec: None if name == "trl" else real(name))
    said = line_of(capsys, "repair", folder / "mine", "--upper-mark", "--out", tmp_path / "out")
    assert "training an upper mark needs trl: pip install 'tl_reward[train]'" in said


def test_the_upper_mark_is_trained_and_scored_beside(folder: Path, tmp_path: Path):
    out = tmp_path / "run"
    quick = ["--learn-steps", "0", "--fractions", "0.2", "--strengths", "0", "--draws", "0", "--device", "cpu"]
    assert main(["repair", str(folder / "mine"), *pairs_in(folder), "--upper-mark", *quick, "--out", str(out)]) == 0
    held = json.loads((out / "repair.json").read_text(encoding="utf-8"))
    assert {each["name"] for each in held["evidence"] if each["kind"] == "model"} == {"LoRA on the same pairs"}
    trained = tl_reward.load(out / "upper-mark", device="cpu")
    assert trained.origin.weights == held["provenance"]["models"]["LoRA on the same pairs"]["weights"]
    record = json.loads((out / "upper-mark" / "training.json").read_text())
    assert (record["pairs"], record["dropped"], record["config"]["method"]) == (48, 0, "lora")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_is_no_repair_keeps_its_model(folder: Path, tmp_path: Path, capsys):
    """What an overwritten repair loses, nothing else does."""
    out = tmp_path / "run"
    (out / "model").mkdir(parents=True)
    for mine in ("results.json", "model/mine"):
        (out / mine).write_text("{}")
    said = line_of(capsys, "repair", folder / "mine", *QUICK, "--out", out, "--overwrite")
    assert "is not overwritten: it holds model, which no run does" in said and (out / "model" / "mine").exists()
