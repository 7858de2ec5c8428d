"""When a cell is done, what it is made from, and what it holds: checked against the same things done by hand."""

import json
import shutil
from dataclasses import replace
from io import StringIO

import pytest
import torch
from helpers.study_runs import make_data, table
from rich.console import Console
from safetensors.torch import load_file, save_file

from tl_reward.analyses.discovery import discover
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.measures.selectivity import selectivity
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.running.scoring import score
from tl_reward.study.compute import cells as cells_module
from tl_reward.study.compute import inputs as inputs_module
from tl_reward.study.compute import plan, side_by_side, store, work
from tl_reward.study.compute.cells import cells
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.compute.plan import print_reproduction_plan
from tl_reward.study.compute.store import is_done, load_matrix
from tl_reward.study.config import parse_config
from tl_reward.study.matrix import Model, ModelEdit
from tl_reward.study.report.runner import reproduce
from tl_reward.study.top_sets import percentile_set

HELPFUL = Model("tiny", "helpful", 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("study"))


def small(folder, /, **change) -> dict:
    """One model, its scores, its neurons and what they do."""
    alone = {"objectives": ["helpful"], "rankings": ["mean"], "fractions": [0.1], "set_fractions": [], "patch_fractions": [], "retrain": {}}
    training = table(folder)["training"] | {"max_pairs": 4, "epochs": 1}
    return table(folder) | alone | {"draws": 0, "training": training} | change


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "small"
    reproduce(parse_config(small(data)), out, data=data)
    return out


def undone(config: dict, data, out) -> list[str]:
    parsed = parse_config(config)
    return [f"{cell.kind} {cell.test}".strip() for cell in cells(parsed) if not is_done(out, cell, Inputs(parsed, data))]


def with_other_weights(folder, cell, *args, **kwargs):
    if cell.kind == "train":
        path = next(store.scratch_of(folder, cell).rglob("*.safetensors"))
        save_file({name: tensor * 1.1 for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    store.finish(folder, cell, *args, **kwargs)


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
    with monkeypatch.context() as patch:
        patch.setattr(work, "finish", with_other_weights)
        reproduce(parse_config(small(data)), out, data=data)
    assert sorted(made) == ["ablate_sets", "ablate_sets", "discover", "score", "score", "train"]
    assert undone(small(data), data, out) == []
    assert (out / "report.md").read_bytes() != (done / "report.md").read_bytes()


def test_what_was_trained_again_in_one_process_is_loaded_again(data, done, tmp_path, monkeypatch):
    """And not what was loaded from that folder before."""
    config, out = parse_config(small(data, fractions=[])), tmp_path / "out"
    reproduce(config, out, data=data)
    first = load_matrix(out, Inputs(config, data)).scores[HELPFUL, ModelEdit()]["objective test"].margin
    shutil.rmtree(out / "cells" / "train")
    with monkeypatch.context() as patch:
        patch.setattr(work, "finish", with_other_weights)
        reproduce(config, out, data=data)
    again = load_matrix(out, Inputs(config, data)).scores[HELPFUL, ModelEdit()]["objective test"].margin
    assert abs(again - first).max() > 1e-3


def test_a_training_goes_on_only_from_one_that_left_the_same_neurons_out(data, done, tmp_path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(done, out)
    again = {"kinds": ["masked"], "fractions": [0.1], "objectives": ["helpful"], "pairs": 4}
    config = parse_config(small(data, retrain=again))
    inputs = Inputs(config, data)
    (cell,) = [cell for cell in cells(config) if cell.kind == "retrain"]
    scratch = store.start(out, cell, inputs)
    (scratch / "checkpoint").touch()
    assert (store.start(out, cell, inputs) / "checkpoint").exists()
    note = store.folder_of(out, cell.needs[0]) / "cell.json"
    note.write_text(note.read_text().replace('"content": "', '"content": "0'))
    assert not (store.start(out, cell, inputs) / "checkpoint").exists()


def test_two_runs_do_not_work_in_one_folder(data, done, tmp_path, monkeypatch):
    config, out = parse_config(small(data)), tmp_path / "out"

    def second(*args, **kwargs):
        with pytest.raises(InputError, match=f"{out}: another reproduction is at work there"):
            reproduce(config, out, data=data)
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "make", second)
    with pytest.raises(KeyboardInterrupt):
        reproduce(config, out, data=data)
    monkeypatch.undo()
    shutil.copytree(done, out, dirs_exist_ok=True)
    assert reproduce(config, out, data=data).exists()  # the first one is gone


def test_over_long_pairs_are_counted_and_a_benchmark_of_nothing_else_is_refused_at_once(data, tmp_path):
    lines = (data / "rmb" / "helpful-test.jsonl").read_text().splitlines()[:4]
    row = json.loads(lines[0])
    long = [json.dumps(row | {"id": f"long {i}", "prompt": "many words " * 500}) for i in range(2)]
    for name, some in (("some", [*long, *lines]), ("all", long)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rmb.jsonl").write_text("\n".join(some))
    config = small(data, fractions=[], max_length=2000, limits={"discovery": 4, "rows": 6})
    mixed = parse_config(config | {"benchmarks": {"RMB": [str(tmp_path / "some" / "rmb.jsonl")]}})
    reproduce(mixed, tmp_path / "out", data=data)
    scores = load_matrix(tmp_path / "out", Inputs(mixed, data)).scores[HELPFUL, ModelEdit()]["RMB helpful pairwise"]
    assert (len(scores), scores.dropped) == (4, 2)
    nothing = parse_config(config | {"benchmarks": {"RMB": [str(tmp_path / "all" / "rmb.jsonl")]}})
    with pytest.raises(InputError, match="2000"):
        reproduce(nothing, tmp_path / "none", data=data)
    assert not list((tmp_path / "none").glob("cells/*"))
    with pytest.raises(InputError, match=r"benchmarks\.RMB must list one or more sources of pairs, got none"):
        parse_config(config | {"benchmarks": {"RMB": []}})


def flip_a_sign(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x80
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize(
    ("kind", "name", "damage", "remade"),
    [
        ("score", "run/tensors.safetensors", flip_a_sign, ["score"]),
        ("score", "run/results.json", lambda path: path.write_text(path.read_text().replace('"dropped": 0', '"dropped": 1')), ["score"]),
        ("score", "cell.json", cut, ["score"]),
        ("score", "run/results.json", lambda path: path.unlink(), ["score"]),
        # With the same weights again: what was made from it stays.
        ("train", "model/adapter_model.safetensors", flip_a_sign, ["train"]),
        ("train", "model/adapter_config.json", lambda path: path.write_text(path.read_text().replace("16", "32", 1)), ["train"]),
    ],
)  # fmt: skip
def test_a_cell_with_other_files_than_were_written_is_made_again(data, done, tmp_path, monkeypatch, capsys, kind, name, damage, remade):
    out, config = tmp_path / "out", parse_config(small(data))
    shutil.copytree(done, out)
    (path,) = [path for path in (out / "cells" / kind).glob(f"*/{name}") if "RMB" not in str(path)]
    before = path.read_bytes()
    damage(path)
    assert not path.exists() or path.read_bytes() != before
    printed = StringIO()
    print_reproduction_plan(Inputs(config, data), out, Console(file=printed, width=200))
    assert printed.getvalue().count("  damaged ") == 1
    made: list[str] = []
    monkeypatch.setattr(
        side_by_side,
        "make",
        lambda cell, *args, **kwargs: is_done(*(out, cell, args[1])) or made.append(cell.kind) or work.make(cell, *args, **kwargs),
    )
    reproduce(config, out, data=data)
    assert made == remade and (out / "report.md").read_bytes() == (done / "report.md").read_bytes()
    assert "of 1 the files are not those that were written" in " ".join(capsys.readouterr().err.split())
    assert undone(small(data), data, out) == []


def test_a_changed_share_makes_its_own_conditions_alone(data, tmp_path, monkeypatch):
    """What the cell on disk has of the others is taken from there, to the last bit."""
    trio = {"objectives": ["helpful", "harmless", "mixed"], "set_fractions": [0.1], "patch_fractions": [0.1], "draws": 1, "benchmarks": {}}
    real, made = work.ablate_sets, list[list[str]]()

    def counted(model, pairs, sets, **kwargs):
        made.append([f"{len(neurons)}" for neurons in sets.values()])
        return real(model, pairs, sets, **kwargs)

    def scores(**change) -> dict:
        made.clear()
        config = parse_config(small(data, **trio | change))
        sizes, kinds = plan.Sizes(Inputs(config, data), tmp_path), ("ablate", "sets", "patch")
        sweeps = [sizes.tokens(cell) for cell in cells(config) if cell.kind in kinds]
        reproduce(config, tmp_path, data=data)
        assert len(made) == sum(tokens > 0 for tokens in sweeps)
        assert undone(small(data, **trio | change), data, tmp_path) == []
        return {key: tasks["objective test"] for key, tasks in load_matrix(tmp_path, Inputs(config, data)).scores.items()}

    monkeypatch.setattr(work, "ablate_sets", counted)
    first = scores()
    assert len(made) == 5  # three ablations, sets, and a patch
    more = scores(fractions=[0.2, 0.1], set_fractions=[0.2, 0.1], patch_fractions=[0.2])
    assert len(made) == 5 and [len(sets) for sets in made] == [1, 1, 1, 3, 1]  # of each the new share alone
    for key in first.keys() & more.keys():
        assert (first[key].chosen == more[key].chosen).all() and first[key].ids == more[key].ids
    assert {key for key in first if key[1].kind != "patched"} < more.keys()
    assert ModelEdit("random", "mean 0", 0.2) in {edit for _, edit in more}
    fewer = scores(fractions=[0.2], set_fractions=[0.2], patch_fractions=[0.2])
    assert made == [] and {edit.fraction for _, edit in fewer} == {0.0, 0.2}
    # Other random sets, or other rows: nothing of an ablation stays.
    for change, kinds in (({"draws": 2}, {"ablate"}), ({"limits": {"rows": 2, "discovery": 4}}, {"ablate", "sets", "patch"})):
        shares = {name: [0.2] for name in ("fractions", "set_fractions", "patch_fractions")}
        config = parse_config(small(data, **trio | shares | change))
        again = {cell.kind for cell in cells(config) if store.missing_fractions(tmp_path, cell, Inputs(config, data))}
        assert again == kinds


def test_cells_are_in_the_order_of_what_they_decide(data):
    listed = cells(parse_config(table(data) | {"seeds": [0, 1]}))
    assert [cell.seed for cell in listed] == sorted(cell.seed for cell in listed)
    stages = [(cell.kind, cell.ranking, cell.edit.kind) for cell in listed if cell.seed == 0]
    assert [*dict.fromkeys(stages)] == [
        ("train", "", "none"), ("discover", "", "none"), ("compare", "", "none"), ("score", "", "none"), ("ablate", "mean", "none"),
        ("sets", "", "none"), ("ablate", "random", "none"), ("patch", "", "none"), ("retrain", "", "masked"), ("score", "", "masked"),
        ("retrain", "", "pruned"), ("score", "", "pruned"),
    ]  # fmt: skip
    for i, cell in enumerate(listed):
        assert set(cell.needs) <= set(listed[:i])


def test_cells_of_an_earlier_format_are_made_again(data, done, monkeypatch):
    assert undone(small(data), data, done) == []
    monkeypatch.setattr(cells_module, "FORMAT", cells_module.FORMAT + 1)
    assert len(undone(small(data), data, done)) == len(cells(parse_config(small(data)))) == 6


def test_a_base_on_the_hub_is_one_revision_of_it(data, monkeypatch):
    asked = []

    class Stand:
        @staticmethod
        def from_pretrained(source, *, trust_remote_code):
            assert not trust_remote_code
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


def test_a_base_on_the_hub_is_loaded_at_the_revision_of_its_key(data, tmp_path, monkeypatch):
    """A later one, that came between the key and the training, is another model."""
    asked = []

    class Stand:
        @staticmethod
        def from_pretrained(source, *, trust_remote_code):
            return type("Config", (), {"_commit_hash": "abc"})

    def folder(name, hub):
        asked.append((name, hub))
        return data / "base"

    bases = [{"name": "a", "source": "owner/model"}, {"name": "b", "source": str(data / "base")}]
    hub = Inputs(parse_config(small(data, bases=bases)), data)
    with monkeypatch.context() as patch:
        patch.setattr(inputs_module, "AutoConfig", Stand)
        patch.setattr(inputs_module, "local_folder", folder)
        assert hub.base_at_revision("a") == hub.base_at_revision("b") == str(data / "base")
        assert asked == [("owner/model", {"revision": "abc"})]
        given = []
        patch.setattr(work, "train", lambda source, *args, **kwargs: given.append(source))
        patch.setattr(work, "_base", lambda source, dtype: given.append(source))
        patch.setattr(work, "_model", lambda *args: None)
        patch.setattr(work, "discover", lambda *args, **kwargs: None)
        patch.setattr(work, "record_discovery", lambda *args: None)
        train, found = [cell for cell in cells(hub.config) if cell.base == "a" and cell.kind in ("train", "discover")]
        work._train_cell(train, tmp_path, hub, tmp_path)
        work._discover_cell(found, tmp_path, hub, work.Results(provenance={}))
        assert given == [str(data / "base")] * 2


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
    matrix = load_matrix(tmp_path, Inputs(config, data))
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
    inputs = Inputs(config, data)
    matrix = load_matrix(tmp_path, inputs)
    model = HookedRewardModel.from_pretrained(tmp_path / "cells" / "train" / "tiny, helpful, 0" / "model")
    firing = {name: discover(model, inputs.find(name).pairs).by_side["mlp_gate", "probability"].mean(0) for name in ("helpful", "harmless")}
    by_hand = selectivity(firing).ranking()
    assert torch.allclose(matrix.found[HELPFUL].rankings["entropy"], by_hand, atol=1e-6)
    edits = {edit for _, edit in matrix.scores if edit.name == "entropy"}
    assert edits == {ModelEdit("top", "entropy", 0.02)}  # half of all neurons do not fire often
    # What was found and done by other rankings stays; where no share can be ranked, nothing is zeroed, and that is all.
    unreachable = small(data, rankings=["mean", "entropy"], fractions=[0.5])
    again = parse_config(unreachable)
    assert {cell.kind for cell in cells(again) if not is_done(tmp_path, cell, Inputs(again, data))} == {"ablate"}
    reproduce(again, tmp_path, data=data)
    assert {edit for _, edit in load_matrix(tmp_path, Inputs(again, data)).scores} == {ModelEdit(), ModelEdit("top", "mean", 0.5)}
    alone = parse_config(small(data, rankings=["mean"], fractions=[0.5]))
    assert [cell for cell in cells(alone) if not is_done(tmp_path, cell, Inputs(alone, data))] == []
    pairs = inputs.tested("RMB", "", True).pairs
    zeroed = score(model, pairs, interventions=[ZeroAblation(NeuronSet.top(by_hand, fraction=0.02))])
    mine = [scores for task, scores in matrix.scores[HELPFUL, ModelEdit("top", "entropy", 0.02)].items() if task != "objective test"]
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
    inputs = Inputs(config, data)
    matrix = load_matrix(tmp_path, inputs)
    model = HookedRewardModel.from_pretrained(tmp_path / "cells" / "train" / "tiny, helpful, 0" / "model")
    rounded = discover(model, inputs.find("helpful").pairs, sums_dtype=torch.bfloat16).ranking("mean", "mlp_gate")
    exact = matrix.found[HELPFUL].rankings["mean"]
    assert torch.equal(matrix.found[HELPFUL].beside["mean, bfloat16 sums"], rounded)
    assert not torch.equal(rounded, exact) and torch.allclose(rounded, exact, atol=0.02)
    top = percentile_set(rounded, 0.1)
    pairs, _, _ = inputs.tested("objective test", "helpful", True)
    by_hand = score(model, pairs, interventions=[ZeroAblation(top)])
    assert matrix.scores[HELPFUL, ModelEdit("top", "mean", 0.1)]["objective test"].margin == pytest.approx(by_hand.margin, abs=1e-5)
    report = (tmp_path / "report.md").read_text()
    overlap = report[report.index("## Top overlap") : report.index("## Depth")]
    line = next(line for line in overlap.splitlines() if "helpful–harmless" in line)
    assert f"| {len(top)} |" in line  # the compared sets are those that were ablated
    assert "sums in bfloat16, for float64" in report
