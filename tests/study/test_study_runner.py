"""A reproduction on a tiny model: killed anywhere and started again it reports the same, and computes nothing twice."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from helpers.study_runs import make_data, table
from rich.console import Console
from transformers import Trainer

from tl_reward.cli import main
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation, random_like
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.results.store import Results
from tl_reward.running.scoring import score
from tl_reward.study.compute import plan, side_by_side, store, work
from tl_reward.study.compute.cells import cells
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.compute.plan import print_reproduction_plan
from tl_reward.study.compute.store import load_matrix
from tl_reward.study.config import parse_config
from tl_reward.study.matrix import Model, ModelEdit
from tl_reward.study.report import runner
from tl_reward.study.report.runner import reproduce


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("study"))


def report(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in [out / "report.md", *sorted((out / "tables").iterdir())]}


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "whole"
    path = reproduce(parse_config(table(data)), out, data=data)
    assert path == out / "report.md"
    return out


def test_every_cell_is_there_and_read(data, whole):
    config = parse_config(table(data))
    listed = cells(config)
    folders = {(path.parent.parent.name, path.parent.name) for path in whole.glob("cells/*/*/cell.json")}
    assert folders == {(cell.kind, cell.name) for cell in listed} and len(folders) == len(listed)
    assert [path for path in whole.glob("cells/*/.*")] == []
    matrix = load_matrix(whole, Inputs(config, data))
    assert set(matrix.found) == {Model("tiny", name, 0) for name in config.objectives}
    edits = {edit for model, edit in matrix.scores if model.objective == "mixed"}
    assert {edit.kind for edit in edits} == {"none", "top", "random", "set", "patched", "masked", "pruned"}
    assert ModelEdit("random", "mean 1", 0.1) in edits and ModelEdit("masked", "mean", 0.0) in edits
    # A set with over half of a layer has no random set beside it; a random ranking needs none.
    assert not {ModelEdit("random", "mean 0", 1.0), ModelEdit("random", "random 0", 0.1)} & edits
    for tasks in matrix.scores.values():
        assert {name: len(scores) for name, scores in tasks.items() if name != "objective test"} == {
            "RMB helpful pairwise": 3,
            "RMB harmless pairwise": 3,
        }
    assert len(matrix.scores[Model("tiny", "mixed", 0), ModelEdit()]["objective test"]) == 6


def test_an_ablation_is_what_it_is_by_hand(data, whole):
    config = parse_config(table(data))
    matrix = load_matrix(whole, Inputs(config, data))
    name = Model("tiny", "helpful", 0)
    ranking = matrix.found[name].rankings["mean"]
    top = NeuronSet.top(ranking, fraction=0.2)
    model = HookedRewardModel.from_pretrained(whole / "cells" / "train" / "tiny, helpful, 0" / "model")
    pairs, tasks, _ = Inputs(config, data).tested("RMB", "", True)
    sets = {ModelEdit("top", "mean", 0.2): top, ModelEdit("random", "mean 1", 0.2): random_like(top, 48, draws=2, seed=0)[1]}
    for edit, neurons in sets.items():
        by_hand = score(model, pairs, interventions=[ZeroAblation(neurons)])
        for task, scores in matrix.scores[name, edit].items():
            if task != "objective test":
                rows = [i for i, each in enumerate(by_hand.ids) if tasks[each] == task]
                assert scores.margin == pytest.approx(by_hand.margin[rows], abs=1e-5) and scores.ids == by_hand.take(rows).ids


def test_pruned_and_masked_models_are_one_in_the_end(data, whole):
    """The same neurons write nothing and learn nothing, whether their weights are there or not; a control keeps them."""
    matrix = load_matrix(whole, Inputs(parse_config(table(data)), data))
    masked, pruned, control = (
        matrix.scores[Model("tiny", "mixed", 0), ModelEdit(kind, "mean", fraction)]["objective test"].margin
        for kind, fraction in (("masked", 0.1), ("pruned", 0.1), ("masked", 0.0))
    )
    assert masked == pytest.approx(pruned, abs=0.02)  # weights are stored as bf16, adapters apart or merged
    assert abs(masked - control).max() > 0.02


class Killed(BaseException):
    pass


def test_killed_at_five_points_it_reports_the_same(data, whole, tmp_path, monkeypatch):
    config, out = parse_config(table(data)), tmp_path / "out"
    made: list[tuple[str, str]] = []
    finish = store.finish

    def counted(folder, cell, *args, **kwargs):
        finish(folder, cell, *args, **kwargs)
        made.append((cell.kind, cell.name))

    points = [
        (Trainer, "training_step", 4),
        (work, "record_discovery", 1),
        (work, "ablate_sets", 2),
        (Results, "save", 9),
        (work, "_loaded", 6),
    ]
    for owner, name, calls in points:
        left = [calls]
        original = getattr(owner, name)

        def deadly(*args, original=original, left=left, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return original(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(work, "finish", counted)
            patch.setattr(owner, name, deadly)
            with pytest.raises(Killed):
                reproduce(config, out, data=data)
        assert not (out / "report.md").exists()
    monkeypatch.setattr(work, "finish", counted)
    reproduce(config, out, data=data)
    assert len(made) == len(set(made)) == len(cells(config))  # no cell was made twice
    assert report(out) == report(whole)


def test_a_real_kill_in_the_middle_of_a_training(data, whole, tmp_path):
    out, config = tmp_path / "out", tmp_path / "config.json"
    config.write_text(json.dumps(table(data)))
    script = (
        "import json, sys; from tl_reward.study.config import parse_config; from tl_reward.study.report.runner import reproduce\n"
        f"reproduce(parse_config(json.load(open({str(config)!r}))), {str(out)!r}, data={str(data)!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    saves = out / "cells" / "train" / ".tiny, mixed, 0.partial" / "model" / "checkpoints"
    try:
        for _ in range(6000):
            if list(saves.glob("checkpoint-*/trainer_state.json")) or process.poll() is not None:
                break
            time.sleep(0.02)
        assert process.poll() is None and saves.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = {path: path.stat().st_mtime_ns for path in out.glob("cells/*/[!.]*/cell.json")}
    assert 0 < len(done) < len(cells(parse_config(table(data)))) and not (out / "report.md").exists()
    reproduce(parse_config(table(data)), out, data=data)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert report(out) == report(whole)


def left(folder: Path, out: Path, change: dict) -> set[str]:
    """The cells that a changed config would compute in a folder: kind, objective, test and edit."""
    config = parse_config(table(folder) | change)
    inputs = Inputs(config, folder)
    undone = [cell for cell in cells(config) if not store.is_done(out, cell, inputs)]
    return {" ".join(filter(None, [cell.kind, cell.objective, cell.test, cell.edit.kind])) for cell in undone}


def test_a_change_reruns_what_depends_on_it(data, whole):
    tests = ("objective test", "RMB")
    assert left(data, whole, {}) == set()
    assert left(data, whole, {"draws": 1}) == {f"ablate {name} {test} none" for name in ("helpful", "harmless", "mixed") for test in tests}
    assert left(data, whole, {"set_fractions": [0.2]}) == {f"sets mixed {test} none" for test in tests}
    again = {"kinds": ["masked"], "fractions": [0.1], "objectives": ["mixed"], "pairs": 6}
    assert left(data, whole, {"retrain": again}) == {"retrain mixed masked", *(f"score mixed {test} masked" for test in tests)}
    found_on_more = left(data, whole, {"limits": {"rows": 3, "discovery": 6}})
    assert {each.split()[0] for each in found_on_more} == {"discover", "ablate", "compare", "sets", "patch", "retrain", "score"}
    assert not any(each.startswith("score") and each.endswith("none") for each in found_on_more)  # only of what was trained again
    everything = left(data, whole / "nothing", {})
    assert left(data, whole, {"training": table(data)["training"] | {"epochs": 1}}) == everything
    fewer = {"train": [{"source": "embedded", "limit": 10}], "test": ["embedded"]}
    assert left(data, whole, {"data": table(data)["data"] | {"harmless": fewer}}) == {
        each for each in everything if each.split()[1] != "helpful"
    }


def test_a_change_is_run_and_what_is_done_is_not(data, whole, tmp_path, monkeypatch):
    out = tmp_path / "out"
    made = []
    monkeypatch.setattr(side_by_side, "make", lambda cell, *args, **kwargs: made.append(cell.name) or work.make(cell, *args, **kwargs))
    small = table(data) | {"objectives": ["helpful"], "rankings": ["mean"], "set_fractions": [], "patch_fractions": [], "retrain": {}}
    reproduce(parse_config(small), out, data=data)
    assert len(made) == 6
    first = report(out)
    made.clear()
    reproduce(parse_config(small), out, data=data)
    assert made == [] and report(out) == first
    reproduce(parse_config(small | {"fractions": [0.1]}), out, data=data)
    assert made == ["tiny, helpful, 0, mean, objective test", "tiny, helpful, 0, mean, RMB"]
    assert report(out) != first
    # Side by side it is the same as in turn.
    reproduce(parse_config(small), tmp_path / "two", data=data, jobs=2)
    assert report(tmp_path / "two") == first
    assert made == ["tiny, helpful, 0, mean, objective test", "tiny, helpful, 0, mean, RMB"]  # others made those
    with pytest.raises(InputError, match="jobs must be at least 1, got 0"):
        reproduce(parse_config(small), out, data=data, jobs=0)


def planned(config, data, out) -> str:
    printed = StringIO()
    console = Console(file=printed, markup=False, width=200)
    with suppress(InputError):
        print_reproduction_plan(Inputs(config, data), out, console)
    return printed.getvalue()


def test_the_plan_says_what_is_done_and_what_is_missing(data, whole, tmp_path, monkeypatch):
    config = parse_config(table(data))
    text = planned(config, data, whole)
    assert f"{len(cells(config))} of {len(cells(config))} cells are done; 0 tokens are left" in text and "measured on cells" in text
    text = planned(parse_config(table(data) | {"draws": 1}), data, whole)
    assert "changed ablate" in text and "to do" not in text
    text = planned(config, data, tmp_path / "none")
    assert "to do   train    tiny, helpful, 0" in text and "assumed, from the model's size" in text and "GB free" in text

    monkeypatch.setattr(plan, "reachable", lambda: False)
    (tmp_path / "rmb").mkdir()
    (tmp_path / "rmb" / "harmless-test.jsonl").write_text("{")
    bases = [{"name": "hub", "source": "nobody/no-such-model"}, {"name": "empty", "source": str(tmp_path / "rmb")}]
    hub = {"train": ["Anthropic/hh-rlhf"], "test": ["embedded"]}
    lacking = parse_config(table(data) | {"bases": bases, "data": {"helpful": hub, "harmless": hub}})
    text = planned(lacking, tmp_path, tmp_path / "out")
    for line in (
        f"Problem: data {tmp_path / 'rmb' / 'helpful-test.jsonl'}: no such file",
        "malformed JSON",
        "Problem: data Anthropic/hh-rlhf: no network",
        "Problem: model nobody/no-such-model: no network",
        f"Problem: model {tmp_path / 'rmb'}:",
        "hub: 3 train, 3 discover, 1 compare, 12 score, 12 ablate, 2 sets, 2 patch, 3 retrain",
    ):
        assert line in text
    with pytest.raises(InputError, match=r"5 problems \(above\); none of the 76 cells runs before they are solved"):
        print_reproduction_plan(Inputs(lacking, tmp_path), tmp_path / "out", Console(file=StringIO()))
    # A path with a mistake in it is no hub id.
    typo = parse_config(table(data) | {"benchmarks": {"RMB": ["rmb/helpful-tset.jsonl"]}})
    assert "Problem: data rmb/helpful-tset.jsonl: no such file" in planned(typo, data, tmp_path / "out")
    with pytest.raises(InputError, match=r"no such file.*; .*no network") as caught:
        reproduce(lacking, tmp_path / "out", data=tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert "give the folder that $DATA stands for (--data)" in planned(config, None, tmp_path / "out")


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("has", [True, False])
def test_a_precision_without_kernels_is_said_before_anything_runs(data, tmp_path, monkeypatch, dtype, has):
    monkeypatch.setattr(plan, "has_bf16", lambda: has)
    monkeypatch.setattr(runner, "_run", lambda *_: tmp_path)
    config, line = parse_config(table(data) | {"dtype": dtype}), 'dtype = "bfloat16": torch has no kernels for it on this machine'
    slow = dtype == "bfloat16" and not has
    assert (line in planned(config, data, tmp_path / "none")) == slow
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reproduce(config, tmp_path / "out", data=data)
    assert [line in str(each.message) for each in caught] == [True] * slow


def test_a_benchmark_may_be_of_a_file_with_any_name(data, tmp_path):
    row = json.loads((data / "rmb" / "helpful-test.jsonl").read_text().splitlines()[0])
    (tmp_path / "mine.jsonl").write_text(json.dumps(row))
    for name, found in (("RMB", "RMB helpful pairwise"), ("HH-RLHF", "HH-RLHF helpful")):
        inputs = Inputs(parse_config(table(data) | {"benchmarks": {name: [str(tmp_path / "mine.jsonl")]}}), data)
        assert set(inputs.tested(name, "", False).tasks.values()) == {found}
    unknown = Inputs(parse_config(table(data) | {"benchmarks": {"Mine": [str(tmp_path / "mine.jsonl")]}}), data)
    with pytest.raises(InputError, match=r"benchmarks\.Mine: data set .*/mine' is of no known benchmark; known are RM-Bench"):
        unknown.tested("Mine", "", False)
    del row["objective"]
    (tmp_path / "rmb.jsonl").write_text(json.dumps(row))
    bare = Inputs(parse_config(table(data) | {"benchmarks": {"RMB": [str(tmp_path / "rmb.jsonl")]}}), data)
    with pytest.raises(InputError, match='its source may say objective = "helpful" or "harmless"'):
        bare.tested("RMB", "", False)


def test_an_interrupt_is_said_in_one_line(data, tmp_path, monkeypatch, capsys):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(side_by_side, "make", interrupted)
    (tmp_path / "c.toml").write_text(MINIMAL.replace("BASE", str(data / "base")))
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", "--config", str(tmp_path / "c.toml"), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 130 and "Stopped. The same command goes on from here." in capsys.readouterr().out


MINIMAL = """
objectives = ["helpful"]
seeds = [0]
rankings = ["mean"]
fractions = [0.1]
[training]
[[bases]]
name = "tiny"
source = "BASE"
[data.helpful]
train = ["embedded"]
test = ["embedded"]
"""


def test_the_command_plans(data, tmp_path, capsys):
    benchmarks = '[benchmarks]\nRMB = ["$DATA/rmb/helpful-test.jsonl"]'
    (tmp_path / "c.toml").write_text(MINIMAL.replace("BASE", str(data / "base")) + benchmarks)
    assert main(["reproduce", "--config", str(tmp_path / "c.toml"), "--data", str(data), "--out", str(tmp_path / "out"), "--plan"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "0 of 6 cells are done" in text and not (tmp_path / "out").exists()
    assert "Claims (decided; half-width of the interval" in text and "can be spoken to by this config's models and data" in text
