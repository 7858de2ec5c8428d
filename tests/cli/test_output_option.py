"""--output: every command that runs a model reads it by that output, calls it by both names, and refuses what the head does not have."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.several_outputs import hf_with_outputs, of_one
from model.test_head_layouts import gated, short_prompt_end, write
from transformers import AutoModelForCausalLM, LlamaConfig

from tl_reward.cli import main
from tl_reward.cli.options import Running
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.model.checkpoints import outputs_of
from tl_reward.model.reward_model import HookedRewardModel, load
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.model.training.config import TrainingConfig
from tl_reward.model.training.preparation import prepare
from tl_reward.results.store import Results
from tl_reward.running.scoring import score
from tl_reward.show.live import server
from tl_reward.show.live.answers import LiveRequest, compute

__all__ = ["short_prompt_end"]
PAIRS = load_pairs("embedded", split="test", limit=2)
SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "pad_token_id", "eos_token_id")
DATA = ["--limit", "2", "--device", "cpu"]


@pytest.fixture(scope="module")
def armo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "armo"
    hf_with_outputs().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def said(capsys: pytest.CaptureFixture[str], *command: Any) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([str(part) for part in command])
    lines = [line for line in capsys.readouterr().err.splitlines() if "tokens" not in line]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("output", "name", "weights"),
    [("safety", "safety", (0, 1, 0)), ("2", "verbosity", (0, 0, 1)), ("verbosity=-0.2,helpfulness=0.65", None, (0.65, 0, -0.2))],
)
def test_a_command_reads_the_model_by_its_output(output: str, name: str | None, weights: Any, armo: Path, tmp_path: Path, capsys: Any):
    assert main(["score", str(armo), "--output", output, "--out", str(tmp_path / "run"), *DATA]) == 0
    (entry,) = Results.load(tmp_path / "run").section("scores").values()
    label = name or "helpfulness=0.65,verbosity=-0.2"
    assert entry["model"] == f"armo · {label}" and entry.get("output") == label
    assert label[:10] in capsys.readouterr().out
    found = Results.load(tmp_path / "run").tensor("scores", f"armo · {label} · {entry['dataset']}", "chosen")
    assert found.tolist() == pytest.approx(score(of_one(weights), PAIRS).chosen.tolist(), abs=1e-4)


def test_what_a_head_lacks_is_refused_before_a_model_is_loaded(armo: Path, tmp_path: Path, capsys: Any, monkeypatch: Any):
    tiny_hf_model().save_pretrained(tmp_path / "one")
    byte_tokenizer().save_pretrained(tmp_path / "one")
    monkeypatch.setattr(HookedRewardModel, "from_pretrained", None)
    out = ["--out", tmp_path / "out", *DATA]
    for given, says in (
        ("helpfull", "no output 'helpfull'; did you mean helpfulness?; the head has 3 outputs: helpfulness, safety, verbosity"),
        ("3", "output must be in [0, 3), got 3"),
        ("helpfulness=much", "output must be a name, an index, or weights such as a=0.65,b=-0.2, got 'helpfulness=much'"),
        ("safety=1,safety=2", "output must name each output once"),
        ("safety=0", "must have a finite weight for each of 3 outputs, and one that is not 0"),
    ):
        assert says in said(capsys, "score", armo, "--output", given, *out)
    assert "one: no output 'safety'; the head has 1 output: reward" in said(capsys, "lens", tmp_path / "one", "--output", "safety", *out)
    assert not (tmp_path / "out").exists()


def test_a_choice_is_needed_for_rewards_alone(armo: Path, tmp_path: Path, capsys: Any):
    assert "say which output is the reward, with --output" in said(capsys, "score", armo, "--out", tmp_path / "out", *DATA)
    assert main(["discover", str(armo), "--out", str(tmp_path / "found"), "--sites", "mlp_post", *DATA]) == 0
    ablate = ["ablate", str(armo), "--ranking", str(tmp_path / "found"), "--site", "mlp_post", "--fractions", "0.1", "--draws", "1", *DATA]
    assert main([*ablate, "--output", "safety", "--out", str(tmp_path / "ablated")]) == 0
    assert list(Results.load(tmp_path / "ablated").provenance["models"]) == ["armo · safety"]


def test_neurons_of_another_output_are_for_those_who_ask(armo: Path, tmp_path: Path, capsys: Any):
    data = ["--limit", "12", "--device", "cpu"]
    pairs = tmp_path / "pairs.jsonl"
    rows = [(objective, i) for i, objective in enumerate(("helpful", "harmless") * 2)]
    pairs.write_text(
        "\n".join(json.dumps({"prompt": f"Hi {i}", "chosen": "Yes!", "rejected": "No", "objective": name}) for name, i in rows)
    )
    data = ["--pairs", str(pairs), "--device", "cpu"]
    assert main(["tension", str(armo), "--output", "safety", "--out", str(tmp_path / "found"), *data]) == 0
    effects = ["effects", str(armo), "--sets", str(tmp_path / "found"), "--draws", "0", "--output", "helpfulness", *data]
    assert "one tension of armo is needed; the run has armo · safety" in said(capsys, *effects, "--out", tmp_path / "out")
    assert main([*effects, "--other-model", "--out", str(tmp_path / "out")]) == 0
    ((name, entry),) = Results.load(tmp_path / "out").section("sets").items()
    assert name.startswith("armo · helpfulness · ") and entry.get("found_by_output") == "safety"
    assert "found by another output, safety" in " ".join(capsys.readouterr().out.split())


def test_the_live_page_is_of_the_output(armo: Path, tmp_path: Path, monkeypatch: Any, capsys: Any):
    served: list[Any] = []
    monkeypatch.setattr(server, "serve", lambda *args, **options: served.append((*args, options)))
    for command, output in (("discover", ()), ("score", ("--output", "safety"))):
        assert main([command, str(armo), *output, "--out", str(tmp_path / command), *DATA]) == 0
    serve = ["serve", str(tmp_path / "discover"), str(tmp_path / "score"), "--models", str(armo), "--device", "cpu"]
    assert "say which output is the reward, with --output" in said(capsys, *serve)
    assert main([*serve, "--output", "safety"]) == 0
    ((models, _, told),) = served
    assert list(models) == list(told["sources"]) == list(told["means"]) == ["armo · safety"]
    request = LiveRequest("May I?", "Yes, with pleasure.", "No.", top=3)
    ours, theirs = (compute(model, request) for model in (models["armo · safety"], of_one((0, 1, 0))))
    assert [ours.clean.chosen, ours.clean.rejected] == pytest.approx([theirs.clean.chosen, theirs.clean.rejected], abs=1e-5)
    assert [each.effect for each in ours.top] == pytest.approx([each.effect for each in theirs.top], abs=1e-5)


def test_a_source_of_one_output_keeps_it(armo: Path, tmp_path: Path, capsys: Any):
    tiny_hf_model(seed=1).save_pretrained(tmp_path / "one")
    byte_tokenizer().save_pretrained(tmp_path / "one")
    command = ["patch-models", str(armo), str(tmp_path / "one"), "--output", "safety", "--top", "1", "--random", "3", "--find-limit", "2"]
    assert main([*command, "--fractions", "0.1", "--draws", "1", "--out", str(tmp_path / "out"), *DATA]) == 0
    run = Results.load(tmp_path / "out")
    assert all(name.startswith("one into armo · safety · ") for part in ("model_patching", "attribution") for name in run.section(part))
    assert list(run.provenance["models"]) == ["armo · safety", "one"]


def test_a_source_is_read_by_the_name_of_an_output(armo: Path, tmp_path: Path):
    other = hf_with_outputs(1)
    other.config.id2label = {0: "verbosity", 1: "helpfulness", 2: "safety"}
    other.config.label2id = {name: i for i, name in other.config.id2label.items()}
    other.save_pretrained(tmp_path / "other")
    byte_tokenizer().save_pretrained(tmp_path / "other")
    command = ["patch-models", str(armo), str(tmp_path / "other"), "--top", "0", "--random", "0", "--find-limit", "2"]
    for output in ("1", "safety"):
        out = tmp_path / output
        assert main([*command, "--output", output, "--fractions", "0.1", "--draws", "1", "--out", str(out), *DATA]) == 0
        run = Results.load(out)
        ((name, entry),) = run.section("model_patching").items()
        assert name.startswith("other · safety into armo · safety · ") and entry["source_model"] == "other · safety"
        assert list(run.provenance["models"]) == ["armo · safety", "other · safety"]


def test_neurons_that_a_gate_found_are_for_those_who_ask(tmp_path: Path, capsys: Any, short_prompt_end: None):
    write(tmp_path / "gate", gated(), max_position_embeddings=4096)
    gate = f"gate={tmp_path / 'gate'}"
    assert main(["attribute", gate, "--top", "1", "--random", "3", "--out", str(tmp_path / "found"), *DATA]) == 0
    ablate = ["ablate", gate, "--ranking", str(tmp_path / "found"), "--score", "attribution", "--site", "mlp_post", "--fractions", "0.1"]
    ablate += ["--draws", "1", *DATA]
    assert "(output differ)" in said(capsys, *ablate, "--output", "output 0", "--out", tmp_path / "out")
    assert main([*ablate, "--output", "output 0", "--other-model", "--out", str(tmp_path / "out")]) == 0
    assert main([*ablate, "--out", str(tmp_path / "same")]) == 0
    told = [next(iter(Results.load(tmp_path / run).section("ablation").values())).get("found_by_output") for run in ("out", "same")]
    assert told == ["score", None]


def test_a_run_of_one_output_says_nothing_of_outputs(tmp_path: Path):
    tiny_hf_model().save_pretrained(tmp_path / "one")
    byte_tokenizer().save_pretrained(tmp_path / "one")
    assert main(["score", str(tmp_path / "one"), "--output", "0", "--out", str(tmp_path / "run"), *DATA]) == 0
    text = (tmp_path / "run" / "results.json").read_text()
    assert '"output' not in text.replace('"--output', "") and '"model": "one"' in text


def test_names_of_outputs_come_from_the_config(armo: Path):
    assert outputs_of(armo) == load(armo, device="cpu").outputs == ("helpfulness", "safety", "verbosity")
    model = hf_with_outputs()
    for names in ({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, {0: "a", 1: "a", 2: "b"}, {0: "a", 1: "b\n", 2: ""}):
        model.config.id2label = names
        assert HookedRewardModel.from_hf(model).outputs == ("output 0", "output 1", "output 2")


def test_training_is_of_one_output(armo: Path):
    with pytest.raises(InputError, match=r"armo: found 3 outputs \(helpfulness, safety, verbosity\); training is of one"):
        prepare(str(armo), PAIRS, TrainingConfig())


def test_the_label_of_an_edited_model_ends_with_its_output(armo: Path, tmp_path: Path, monkeypatch: Any):
    (tmp_path / "edits.py").write_text("import tl_reward\nzero = tl_reward.ZeroAblation(tl_reward.NeuronSet([(0, 1)]))\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    running = Running(output="1", intervention=("edits:zero",))
    assert list(running.named([str(armo)])) == ["armo + zero · safety"]


def test_a_language_model_is_read_by_the_logit_that_is_asked_for(tmp_path: Path, capsys: Any):
    tiny_hf_model().save_pretrained(tmp_path / "one")
    config = LlamaConfig(**{name: getattr(tiny_hf_model().config, name) for name in SIZES})
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "judge")
    for name in ("one", "judge"):
        byte_tokenizer().save_pretrained(tmp_path / name)
    assert main(["score", str(tmp_path / "judge"), "--head", "token:89-78", "--out", str(tmp_path / "run"), *DATA]) == 0
    (name,) = Results.load(tmp_path / "run").section("scores")
    found = Results.load(tmp_path / "run").tensor("scores", name, "chosen")
    assert found.tolist() == pytest.approx(score(load(tmp_path / "judge", head="token:89-78", device="cpu"), PAIRS).chosen.tolist())
    out = ["--out", tmp_path / "out", *DATA]
    assert "has to be asked for: --head token:0, or --head token:Yes-No for a difference" in said(capsys, "score", tmp_path / "judge", *out)
    assert "head is for language models, and this one has a reward head" in said(
        capsys, "score", tmp_path / "one", "--head", "token:0", *out
    )
    assert "head is for language models, and this is an adapter" in said(capsys, "score", "mixed", "--head", "token:0", *out)
