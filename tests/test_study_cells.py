"""When a cell is done, what it is made from, and what it holds: checked against the same things done by hand."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from study_runs import make_data, table

from tl_reward.discovery import discover
from tl_reward.entropy import selectivity
from tl_reward.errors import InputError
from tl_reward.interventions import ZeroAblation
from tl_reward.model import HookedRewardModel
from tl_reward.run import score
from tl_reward.sites import NeuronSet
from tl_reward.study import cells as cells_module
from tl_reward.study import inputs as inputs_module
from tl_reward.study import store, work
from tl_reward.study.cells import cells
from tl_reward.study.config import parse_config
from tl_reward.study.conventions import percentile_set
from tl_reward.study.inputs import Inputs
from tl_reward.study.matrix import Edit, Model
from tl_reward.study.runner import reproduce
from tl_reward.study.store import is_done, load_matrix

HELPFUL = Model("tiny", "helpful", 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("study"))


def small(folder, /, **change) -> dict:
    """One model, its scores, its neurons and what they do."""
    alone = {"objectives": ["helpful"], "rankings": ["mean"], "fractions": [0.1], "set_fractions": [], "patch_fractions": [], "retrain": {}}
    return table(folder) | alone | {"draws": 0} | change


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "small"
    reproduce(parse_config(small(data)), out, data=data)
    return out


def undone(config: dict, data, out) -> list[str]:
    parsed = parse_config(config)
    return [f"{cell.kind} {cell.test}".strip() for cell in cells(parsed) if not is_done(out, cell, Inputs(parsed, data))]


def test_a_model_that_is_trained_again_from_the_same_need_not_be_the_same(data, done, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    made: list[str] = []
    for name in ("train", "score", "discover", "ablate_sets"):
        real = getattr(work, name)
        monkeypatch.setattr(work, name, lambda *args, name=name, real=real, **kwargs: made.append(name) or real(*args, **kwargs))

    shutil.rmtree(out / "cells" / "train")
    assert len(undone(small(data), data, out)) == 6
    reproduce(parse_config(small(data)), out, data=data)
    assert made == ["train"]  # with the same weights: all that was made from them stays
    assert (out / "report.md").read_bytes() == (done / "report.md").read_bytes()

    made.clear()
    shutil.rmtree(out / "cells" / "train")
    finish = store.finish

    def other_weights(folder, cell, *args, **kwargs):
        if cell.kind == "train":
            path = next(store.scratch_of(folder, cell).rglob("*.safetensors"))
            save_file({name: tensor * 1.01 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
        finish(folder, cell, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(work, "finish", other_weights)
        reproduce(parse_config(small(data)), out, data=data)
    assert sorted(made) == ["ablate_sets", "ablate_sets", "discover", "score", "score", "train"]
    assert undone(small(data), data, out) == []
    assert (out / "report.md").read_bytes() != (done / "report.md").read_bytes()


def test_cells_of_an_earlier_format_are_made_again(data, done, monkeypatch):
    assert undone(small(data), data, done) == []
    monkeypatch.setattr(cells_module, "FORMAT", cells_module.FORMAT + 1)
    assert len(undone(small(data), data, done)) == len(cells(parse_config(small(data)))) == 6


def test_a_base_on_the_hub_is_one_revision_of_it(data, monkeypatch):
    asked = []

    class Stand:
        @staticmethod
        def from_pretrained(source):
            asked.append(source)
            return type("Config", (), {"_commit_hash": "abc"})

    monkeypatch.setattr(inputs_module, "AutoConfig", Stand)
    hub = parse_config(small(data, bases=[{"name": "a", "source": "owner/model"}, {"name": "b", "source": str(data / "base")}]))
    hashes = Inputs(hub, data).base_hashes
    assert hashes["a"] == "owner/model abc" and asked == ["owner/model"] and len(hashes["b"]) == 64
    config = data / "base" / "config.json"
    text = config.read_text()
    try:
        config.write_text(text + " ")
        assert Inputs(hub, data).base_hashes["b"] != hashes["b"]
    finally:
        config.write_text(text)


def test_what_is_recorded_of_pairs_is_part_of_what_cells_are_made_from(data):
    inputs = Inputs(parse_config(small(data)), data)
    pairs = inputs.tested("RMB", "", False).pairs
    named = [(pair, "RMB helpful pairwise") for pair in pairs]
    for change in ({"id": "another"}, {"group": "a row"}, {"subset": "a part"}):
        renamed = [(replace(pairs[0], **change), named[0][1]), *named[1:]]
        assert inputs_module._joined(named).hash != inputs_module._joined(renamed).hash


def test_edited_models_may_be_tested_on_fewer_rows_or_on_none(data, tmp_path):
    limits = {"rows": 4, "discovery": 4, "edited": {"RMB": 2, "objective test": 0}}
    config = parse_config(small(data, limits=limits))
    assert [cell.test for cell in cells(config) if cell.kind == "ablate"] == ["RMB"]
    reproduce(config, tmp_path, data=data)
    matrix = load_matrix(tmp_path, config, data)
    count = {edit.kind: {task: len(scores) for task, scores in matrix.scores[HELPFUL, edit].items()} for _, edit in matrix.scores}
    assert count["none"] == {"objective test": 4, "RMB helpful pairwise": 4, "RMB harmless pairwise": 4}
    assert count["top"] == {"RMB helpful pairwise": 2, "RMB harmless pairwise": 2}
    assert len(Inputs(parse_config(small(data, limits=limits | {"rows": 1})), data).tested("RMB", "", True).pairs) == 2  # rows bounds both
    for edited, message in (({"RMBench": 3}, "names no benchmark 'RMBench'; there are objective test, RMB"), ({"RMB": -1}, "at least 0")):
        with pytest.raises(InputError, match=message):
            parse_config(small(data, limits={"edited": edited}))


def test_the_first_pairs_are_of_every_source(data, tmp_path):
    lines = (data / "rmb" / "helpful-test.jsonl").read_text().splitlines()
    sources = []
    for name, part in (("one", lines[:20]), ("other", lines[20:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(part))
        sources.append(str(tmp_path / f"{name}.jsonl"))
    of_two = {"helpful": {"train": sources, "test": sources}}
    inputs = Inputs(parse_config(small(data, data=of_two, limits={"rows": 4, "discovery": 6})), data)
    own = [{pair.id for pair in inputs.read(source, "helpful", "train")} for source in inputs.config.data["helpful"].train]
    for pairs, each in ((inputs.find("helpful").pairs, 3), (inputs.tested("objective test", "helpful", False).pairs, 2)):
        assert [len(ids & {pair.id for pair in pairs}) for ids in own] == [each, each]
    assert len(inputs.train("helpful").pairs) == sum(map(len, own))


def test_entropy_compares_firing_on_both_objectives_pairs(data, tmp_path):
    config = parse_config(small(data, rankings=["mean", "entropy"], fractions=[0.02, 0.5]))
    reproduce(config, tmp_path, data=data)
    matrix, inputs = load_matrix(tmp_path, config, data), Inputs(config, data)
    model = HookedRewardModel.from_pretrained(tmp_path / "cells" / "train" / "tiny, helpful, 0" / "model")
    firing = {name: discover(model, inputs.find(name).pairs).by_side["mlp_gate", "probability"].mean(0) for name in ("helpful", "harmless")}
    by_hand = selectivity(firing).ranking()
    assert torch.allclose(matrix.found[HELPFUL].rankings["entropy"], by_hand, atol=1e-6)
    edits = {edit for _, edit in matrix.scores if edit.name == "entropy"}
    assert edits == {Edit("top", "entropy", 0.02)}  # half of all neurons do not fire often
    pairs = inputs.tested("RMB", "", True).pairs
    zeroed = score(model, pairs, interventions=[ZeroAblation(NeuronSet.top(by_hand, fraction=0.02))])
    mine = [scores for task, scores in matrix.scores[HELPFUL, Edit("top", "entropy", 0.02)].items() if task != "objective test"]
    assert {name: margin for each in mine for name, margin in zip(each.ids, each.margin, strict=True)} == pytest.approx(
        dict(zip(zeroed.ids, zeroed.margin, strict=True)), abs=1e-5
    )
    with pytest.raises(InputError, match=r"data\.harmless is missing; .*entropy compares both objectives"):
        parse_config(small(data, rankings=["entropy"], data={"helpful": table(data)["data"]["helpful"]}))
    with pytest.raises(InputError, match=r"rankings\[0\], by which sets are made, must not be entropy"):
        parse_config(table(data) | {"rankings": ["entropy", "mean"]})


def test_the_studys_conventions_cut_what_bfloat16_sums_rank(data, tmp_path):
    trio = {"objectives": ["helpful", "harmless", "mixed"], "set_fractions": [0.1]}
    config = parse_config(small(data, **trio, conventions="study"))
    reproduce(config, tmp_path, data=data)
    matrix, inputs = load_matrix(tmp_path, config, data), Inputs(config, data)
    model = HookedRewardModel.from_pretrained(tmp_path / "cells" / "train" / "tiny, helpful, 0" / "model")
    rounded = discover(model, inputs.find("helpful").pairs, sums_dtype=torch.bfloat16).ranking("mean", "mlp_gate")
    exact = matrix.found[HELPFUL].rankings["mean"]
    assert torch.equal(matrix.found[HELPFUL].beside["mean, bfloat16 sums"], rounded)
    assert not torch.equal(rounded, exact) and torch.allclose(rounded, exact, atol=0.02)
    top = percentile_set(rounded, 0.1)
    pairs, _, _ = inputs.tested("objective test", "helpful", True)
    by_hand = score(model, pairs, interventions=[ZeroAblation(top)])
    assert matrix.scores[HELPFUL, Edit("top", "mean", 0.1)]["objective test"].margin == pytest.approx(by_hand.margin, abs=1e-5)
    report = (tmp_path / "report.md").read_text()
    overlap = report[report.index("## Top overlap") : report.index("## Depth")]
    line = next(line for line in overlap.splitlines() if "helpful–harmless" in line)
    assert f"| {len(top)} |" in line  # the compared sets are those that were ablated
    assert "sums in bfloat16, for float64" in report
