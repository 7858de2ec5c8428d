"""The benchmarks' arithmetic, and a dry run of the one for a GPU. (The contests themselves check their numbers as they run.)"""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import gpu
import gpu_measure
from measure import alternate, exponent, fastest, ratio


def test_a_ratio_is_the_median_of_neighbours_in_time():
    assert ratio([2.0, 9.0, 40.0], [1.0, 3.0, 10.0], ">= 2") == {"ratio": 3.0, "low": 2.0, "high": 4.0, "target": ">= 2"}


def test_contestants_take_turns():
    order = []
    taken = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 3
    assert [len(times) for times in taken.values()] == [3, 3]


def test_an_exponent_is_the_slope_of_a_power_law():
    assert exponent([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0]) == pytest.approx(2)


def test_each_size_is_tried_once_after_one_to_warm_up():
    tried = []
    assert fastest(tried.append, (4, 8)) in (4, 8)
    assert tried == [4, 4, 8]


def test_the_benchmark_of_a_gpu_runs_without_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(gpu.SHAPES, "tiny", gpu.SHAPES["tiny"]._replace(layers=3, pairs=2))
    monkeypatch.setattr(gpu_measure, "STEADY", 1)
    gpu.main(gpu.Config(shapes=("tiny",), seconds=300, out=tmp_path / "gpu.json"), time.time())
    report = json.loads((tmp_path / "gpu.json").read_text())
    figures = report["shapes"]["tiny"]
    assert "no figure here is one of a GPU" in report["device"] or torch.cuda.is_available()
    for key in gpu.TARGETS:
        assert figures[key]["ratio"] > 0 and figures[key]["steady"] > 0, figures[key]
    assert figures["largest_difference_of_rewards"]["in_standard_deviations"] < 0.1
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| tiny |")]
    assert len(rows) == len(gpu.TARGETS)
    if not torch.cuda.is_available():
        score = figures["score"]
        # On a CPU a packed batch takes a call a transcript: so the counter counts.
        assert score["batches"] == 1 and score["attention_calls_a_layer"] > 1 and score["waits_a_batch"] is None


def test_a_step_that_fails_or_takes_too_long_says_so_and_the_next_has_its_turn(monkeypatch):
    monkeypatch.setattr(gpu, "STEP", 1.0)
    figures, written = {}, []
    steps = gpu.Steps("tiny", figures, lambda: written.append(len(figures)), 60)
    assert steps("one", lambda: time.sleep(30)) is None
    assert steps("two", lambda: torch.ones(2) @ torch.ones(3)) is None
    assert steps("three", lambda: 3) == 3
    steps.end = time.monotonic()
    assert steps("four", lambda: 4) is None
    assert figures["one"] == "not measured: stopped after 1 s" and figures["two"].startswith("not measured: RuntimeError: ")
    assert figures["three"] == 3 and figures["four"] == "not measured: no time was left" and written == [1, 2, 3, 4]


def test_pairs_that_come_again_have_other_tokens():
    model = gpu.HookedRewardModel.from_hf(gpu.random_model(gpu.SHAPES["tiny"], torch.device("cpu")), gpu.byte_tokenizer())
    pairs = gpu.rows_of(model, "embedded", 100)
    again = len(pairs.pairs) - 84
    assert len({pair.id for pair in pairs.pairs}) == 100 and again == 16
    for i in range(again):
        for side in (pairs.chosen, pairs.rejected):
            one, other = pairs.rows[side[i]], pairs.rows[side[i + 84]]
            assert len(one.ids) == len(other.ids) and one.response_start == other.response_start and one.ids[0] != other.ids[0]
