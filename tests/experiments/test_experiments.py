"""Every experiment runs on a tiny model, and every command of the command line from data to page."""

import json
from pathlib import Path

import pytest
import torch
from helpers.page_runs import document

from tl_reward.analyses.discovery import discover
from tl_reward.analyses.exact_effects import neuron_effects
from tl_reward.cli import main
from tl_reward.data.readers import load_pairs
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model
from tl_reward.neurons import NeuronSet
from tl_reward.results.store import Results

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.py"))


def test_there_are_experiments():
    assert len(EXPERIMENTS) >= 5


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_experiment(path, scripts, tmp_path):
    done = scripts.run(path, "--smoke", "--out", tmp_path / "out")
    assert done.status == 0, done.err[-2000:]
    text = path.read_text(encoding="utf-8")
    for part in ("Command:", "Cost:", "Expect:"):
        assert part in text
    assert len(text.splitlines()) <= 82
    if path.stem == "reproduce":
        assert (tmp_path / "out" / "report.md").exists()
    elif path.stem != "train_reward_models":
        assert Results.load(tmp_path / "out").sections


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("cli")
    for seed, name in enumerate(("helpful", "harmless")):
        tiny_hf_model(seed=seed).save_pretrained(root / name)
        byte_tokenizer().save_pretrained(root / name)
    rows = [
        {"id": f"r{i}", "subset": "ab"[i % 2], "prompt": f"Question {i}", "chosen": ["Yes!", "Sure."], "rejected": ["No."]}
        for i in range(4)
    ]
    (root / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def test_the_commands_from_data_to_page(folders, capsys):
    models = [str(folders / name) for name in ("helpful", "harmless")]
    pairs = ["--pairs", str(folders / "rows.jsonl"), "--device", "cpu"]
    at = {name: str(folders / "runs" / name) for name in ("scores", "neurons", "ablation", "overlap")}
    assert main(["score", *models, *pairs, "--out", at["scores"]]) == 0
    assert main(["discover", *models, *pairs, "--base", models[1], "--out", at["neurons"]]) == 0
    ablation = ["--fractions", "0.1", "1.0", "--draws", "1", "--out", at["ablation"]]
    assert main(["ablate", models[0], "--ranking", at["neurons"], *pairs, *ablation]) == 0
    assert main(["compare", at["neurons"], "--out", at["overlap"]]) == 0
    at["attribution"] = str(folders / "runs" / "attribution")
    methods = ["--methods", "gradient", "direct", "--top", "4", "--random", "8"]
    assert main(["attribute", models[0], *pairs, *methods, "--out", at["attribution"]]) == 0
    at["effects"] = str(folders / "runs" / "effects")
    assert main(["effects", models[0], *pairs, "--neurons", "0.3", "1.7", "--kind", "mean", "--out", at["effects"]]) == 0
    page = folders / "page.html"
    assert main(["dashboard", *at.values(), "--out", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "best of n" in printed and str(page) in printed and "all together" in printed
    assert len(document(page.read_text(encoding="utf-8"), "panels")) >= 9

    scores = Results.load(at["scores"])
    entry = next(iter(scores.section("scores").values()))
    assert entry["pairs"] == 8 and entry["best_of_n"] and entry["best_of_n"]["n"] == 4 and set(entry["subsets"]) == {"a", "b"}
    chosen = scores.tensor("scores", f"helpful · {entry['dataset']}", "chosen")
    model = HookedRewardModel.from_pretrained(models[0], device="cpu")
    torch.testing.assert_close(chosen[0].float(), model("\n\nHuman: Question 0\n\nAssistant: Yes!")[0], atol=1e-4, rtol=0)
    assert len(scores.provenance["data"][entry["dataset"]]["sha256"]) == 64
    change = Results.load(at["neurons"]).tensor("discovery", "harmless", "mlp_post/change")
    assert change.abs().max() < 1e-6  # compared with itself


def test_from_tension_to_the_sets_that_it_found(folders, tmp_path, capsys):
    model = str(folders / "helpful")
    at = {name: str(tmp_path / name) for name in ("tension", "sets", "heads", "curve", "attribution", "neurons", "overlap")}
    assert main(["tension", model, "--device", "cpu", "--fraction", "0.1", "--out", at["tension"]]) == 0
    assert main(["effects", model, "--device", "cpu", "--sets", at["tension"], "--draws", "1", "--out", at["sets"]]) == 0
    (entry,) = Results.load(at["sets"]).section("sets").values()
    assert {"top harmless-only", "top helpful-only"} <= set(entry["sets"]) and entry["tested_pairs_that_found"] == 0
    (found,) = Results.load(at["tension"]).section("tension").values()
    assert entry["sets"]["top helpful-only"]["neurons"] == len(found["top"]["helpful-only"])
    heads = ["--site", "attn_z", "--limit", "6"]
    assert main(["effects", model, "--device", "cpu", "--neurons", "1.2", "--kind", "resample", *heads, "--out", at["heads"]]) == 0
    test, find = (load_pairs("embedded", split="test", objective=objective, limit=6) for objective in ("harmless", "helpful"))
    other = ["--kind", "mean", "--source", "embedded", "--source-objective", "helpful", "--objective", "harmless", "--limit", "6"]
    assert main(["effects", model, "--device", "cpu", "--neurons", "1.2", *other, "--out", str(tmp_path / "other")]) == 0
    (found,) = Results.load(tmp_path / "other").section("effects").values()
    tiny = HookedRewardModel.from_pretrained(model, device="cpu")
    mean = discover(tiny, find, sites=["mlp_post"]).ranking("mean", "mlp_post")
    expected = neuron_effects(tiny, test, NeuronSet([(1, 2)]), kind="mean", mean=mean).mean_margin()[0].value
    assert found["effects"][0]["margin"]["value"] == pytest.approx(expected, abs=1e-5)
    options = ["--device", "cpu", "--top", "2", "--random", "4", *heads]
    assert main(["attribute", model, *options, "--out", at["attribution"]]) == 0
    curve = ["--ranking", at["attribution"], "--score", "attribution", "--fractions", "0.25", "--draws", "1", *heads]
    assert main(["ablate", model, "--device", "cpu", *curve, "--out", at["curve"]]) == 0
    assert main(["discover", model, "--device", "cpu", "--out", at["neurons"]]) == 0
    ways = ["--score", "mean", "auroc", "entropy", "random", "--site", "mlp_gate", "mlp_post", "--fraction", "0.2"]
    assert main(["compare", at["neurons"], *ways, "--out", at["overlap"]]) == 0
    (overlap,) = Results.load(at["overlap"]).section("overlap").values()
    assert len(overlap["pairs"]) == 8 * 7 // 2 and "auroc at mlp_post" in overlap["top"]
    assert main(["dashboard", *at.values(), "--out", str(tmp_path / "page.html")]) == 0
    printed = capsys.readouterr().out
    assert "in conflict, of" in printed
    both = ["--score", "norm", "attribution", "--site", "attn_z", "--fraction", "0.25", "--out", str(tmp_path / "methods")]
    assert main(["compare", at["neurons"], at["attribution"], *both]) == 0
    (overlap,) = Results.load(tmp_path / "methods").section("overlap").values()
    assert set(overlap["top"]) == {"norm at attn_z", "attribution at attn_z"}
    with pytest.raises(SystemExit):
        main(["tension", model, "--device", "cpu", "--objective", "helpful", "--out", str(tmp_path / "one")])
    assert "exactly two objectives, each naming its own, got 42 pairs of helpful" in capsys.readouterr().err


def test_a_repair_and_its_page(folders, tmp_path, capsys):
    run = str(tmp_path / "repair")
    sources = ["helpful=embedded", "harmless=embedded"]
    quick = ["--learn-steps", "1", "--fractions", "0.1", "--strengths", "0", "--draws", "1", "--tolerance", "1", "--device", "cpu"]
    pairs = ["--find", *sources, "--test", *sources, "--limit", "20"]
    assert main(["repair", str(folders / "helpful"), *pairs, *quick, "--out", run]) == 0
    assert main(["dashboard", run, "--out", str(tmp_path / "page.html")]) == 0
    assert "Evidence: " in capsys.readouterr().out
    held = json.loads((tmp_path / "repair" / "repair.json").read_text(encoding="utf-8"))
    sizes = {(each["split"], each["name"]): each["pairs"] for each in held["splits"]}
    assert sizes == {(split, name): n for split, n in (("find", 10), ("tune", 10), ("test", 20)) for name in ("helpful", "harmless")}
    assert Results.load(run).section("repair")


def test_train_from_the_command_line(folders, tmp_path, capsys):
    options = ["--objective", "harmless", "--split", "find", "--limit", "8", "--batch-size", "4", "--max-length", "1000"]
    assert main(["train", "--base", str(folders / "helpful"), *options, "--out", str(tmp_path / "model")]) == 0
    assert "Trained on 8 pairs" in capsys.readouterr().out
    assert HookedRewardModel.from_pretrained(tmp_path / "model", device="cpu").cfg.d_vocab_out == 1
