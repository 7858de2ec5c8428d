"""A repair as a whole, on a tiny model: every number of its JSON once more, by loops over single transcripts."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from helpers.plain_evidence import Plain, row_of, verdict
from helpers.refusals import refusal
from helpers.repair_pairs import plain_pairs, styled_rows
from helpers.several_outputs import of_one, with_outputs
from torch import Tensor

from tl_reward.data.pairs import PreferencePair
from tl_reward.interventions.ablations import ScaleAblation
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.repairing import repair as repairing
from tl_reward.repairing.config import RepairConfig
from tl_reward.repairing.repair import FINALISTS, repair
from tl_reward.repairing.result import Repair
from tl_reward.repairing.tuning import best_of, tried
from tl_reward.repairing.ways.candidates import UNIFORM, Candidate, random_like
from tl_reward.running import half_precision
from tl_reward.running.batches import batching
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score

EDITED = NeuronSet([(0, 3), (0, 30), (1, 7)])
HALF = torch.ones(2, 48).masked_fill(EDITED.mask(2, 48), 0.5)
CONFIG = RepairConfig(fractions=(0.05, 0.1), learn_steps=2, pairs_a_step=8, draws=2, tolerance=0.2)
FIND = {"helpful": plain_pairs("find helpful", 4), "harmless": plain_pairs("find harmless", 3)}
TUNE = {"helpful": plain_pairs("tune helpful", 10), "harmless": plain_pairs("tune harmless", 11)}
TEST = {"helpful": styled_rows("test helpful", 10), "harmless": plain_pairs("test harmless", 10)}
PROTECT = {"kept": plain_pairs("kept", 20, subsets=2)}


def singles() -> dict[str, HookedRewardModel]:
    return {"helpful": tiny_reward_model(seed=1)}


@cache
def made() -> Repair:
    return repair(
        tiny_reward_model(),
        FIND,
        TUNE,
        TEST,
        protect=PROTECT,
        singles=singles(),
        beside={"other": tiny_reward_model(seed=2)},
        config=CONFIG,
        interventions=[ScaleAblation(EDITED, 0.5)],
    )


def plain_rewards(model: HookedRewardModel, pairs: Sequence[PreferencePair], factor: Tensor | None) -> list[tuple[float, float]]:
    """One transcript at a time, with neurons times a factor."""
    factor = torch.ones(2, 48) if factor is None else factor

    def hook(layer: int) -> Callable[..., Tensor]:
        return lambda activation, hook: activation * factor[layer]

    hooks: list[Any] = [(f"blocks.{layer}.mlp.hook_post", hook(layer)) for layer in range(2)]
    encoded = encode_for(model, pairs)
    with torch.no_grad():
        rewards = [model.run_with_hooks(torch.tensor([row.ids]), fwd_hooks=hooks).item() for row in encoded.rows]
    return [(rewards[one], rewards[other]) for one, other in zip(encoded.chosen, encoded.rejected, strict=True)]


Rewards = list[tuple[float, float]]


def plain(pairs: Sequence[PreferencePair], before: Rewards, after: Rewards, *, intervals: bool) -> Plain:
    return Plain([row_of(*each) for each in zip(pairs, before, after, strict=True)], intervals=intervals)


def same(found: Any, expected: Any, *, intervals: bool) -> None:
    for name in ("before", "after", "difference"):
        for part in ("value", "n", *(("low", "high") if intervals else ())):
            assert found[name][part] == pytest.approx(expected[name][part], abs=1e-4), (name, part)


def test_the_evidence_is_that_of_plain_loops():
    """The edit, the controls and the other models; the interventions of the options are of the model that is repaired alone."""
    found = made().to_json()
    tested = TEST | PROTECT
    kinds = ("repaired", "random", "random", "uniform", "model", "model")
    assert [(each["kind"], each["tested"]) for each in found["evidence"]] == [(kind, name) for name in tested for kind in kinds]
    gates = made().gates
    drawn = [each.gates for each in random_like(gates, draws=2, seed=CONFIG.seed)]
    models = singles() | {"other": tiny_reward_model(seed=2)}
    for name, pairs in tested.items():
        before = plain_rewards(tiny_reward_model(), pairs, HALF)
        rows = [each for each in found["evidence"] if each["tested"] == name]
        assert all(each["protected"] == (name in PROTECT) for each in rows)
        for row in rows if name == "harmless" else rows[:1]:
            if row["kind"] == "model":
                after = plain_rewards(models[row["name"]], pairs, None)
            else:
                factor = {"repaired": gates, "random": drawn[int("draw 2" in row["name"])]}.get(row["kind"])
                if factor is None:
                    factor = torch.full((2, 48), float(row["name"].split(",")[1].split()[1]))
                after = plain_rewards(tiny_reward_model(), pairs, HALF * factor)
            again = plain(pairs, before, after, intervals=name == "harmless")
            same(row["accuracy"], again.accuracy(), intervals=again.intervals)
            same(row["margin"], again.margin(), intervals=again.intervals)
            low, high = row["accuracy"]["difference"]["low"], row["accuracy"]["difference"]["high"]
            assert low is not None and high is not None
            p = again.sign_flip()
            assert row["p_value"] == pytest.approx(p, abs=1e-12)
            assert row["verdict"] == (
                "no clear change" if p > 0.05 else "better" if low > 0 else "worse" if high < 0 else "no clear change"
            )
            if row["kind"] == "repaired":
                expected = again.shifts()
                assert [each["name"] for each in found["shifts"][name]] and {each["name"] for each in found["shifts"][name]} == set(
                    expected
                )
                for shift in found["shifts"][name]:
                    same(shift, expected[shift["name"]], intervals=again.intervals)
                    assert shift["verdict"] == verdict(shift)
    assert {"style: hard", "best of 4: wins"} <= {each["name"] for each in found["shifts"]["helpful"]}
    assert {"subset: s0", "subset: s1"} <= {each["name"] for each in found["shifts"]["kept"]}


def number(value: float | None) -> float:
    assert value is not None
    return value


def test_what_was_tried_and_the_choice():
    found = made().to_json()
    assert found["chosen"] is not None and [each["name"] for each in found["tried"] if each["chosen"]] == [found["chosen"]]
    gains: dict[str, float] = {}
    errors: dict[str, float] = {}
    for each in found["tried"]:
        changes = [each["accuracy"][name]["difference"] for name in ("helpful", "harmless")]
        values = [number(change["value"]) for change in changes]
        if each["way"] != "uniform" and each["finalist"] and min(values) >= -0.2 and sum(values) > 0:
            gains[each["name"]] = sum(values) / 2
            errors[each["name"]] = sum(((number(each["high"]) - number(each["low"])) / 3.92) ** 2 for each in changes) ** 0.5 / 2
    few = {each["name"]: each["neurons"] for each in found["tried"]}
    top = max(gains, key=lambda name: gains[name])
    near = [name for name, gain in gains.items() if gain >= gains[top] - errors[top] - 1e-9]
    assert found["chosen"] in near and few[found["chosen"]] == min(few[name] for name in near)
    assert [each["finalist"] for each in found["tried"]].count(True) == FINALISTS + len(UNIFORM)
    assert {each["way"] for each in found["tried"]} >= {"hurting all", "learnt", "uniform"}
    by_name = {each.candidate.name: each for each in made().tried}
    for name in (found["chosen"], next(name for name in by_name if name != found["chosen"])):
        entry = next(each for each in found["tried"] if each["name"] == name)
        for objective, pairs in TUNE.items():
            before, after = (
                plain_rewards(tiny_reward_model(), pairs, HALF * factor) for factor in (torch.ones(2, 48), by_name[name].candidate.gates)
            )
            again = plain(pairs, before, after, intervals=objective == "harmless")
            same(entry["accuracy"][objective], again.accuracy(), intervals=again.intervals)
            same(entry["margin"][objective], again.margin(), intervals=again.intervals)


def plain_hash(pairs: Sequence[PreferencePair]) -> str:
    each = [json.dumps([[list(message) for message in side] for side in (pair.chosen, pair.rejected)]) for pair in pairs]
    return hashlib.sha256("\n".join(hashlib.sha256(text.encode()).hexdigest()[:16] for text in each).encode()).hexdigest()


def test_the_edit_and_the_splits():
    found, gates = made().to_json(), made().gates
    assert found["objectives"] == ["helpful", "harmless"] and found["shape"] == [2, 48]
    flat = [(layer, neuron, float(gates[layer, neuron])) for layer in range(2) for neuron in range(48) if gates[layer, neuron] != 1]
    neurons: Any = found["neurons"]
    assert [(*place, gate) for place, gate in zip(map(tuple, neurons), found["gates"], strict=True)] == flat
    assert len(flat) == next(each["neurons"] for each in found["tried"] if each["chosen"]) <= round(0.1 * 96)
    assert [(each["split"], each["name"], each["pairs"], each["prompts"], each["hash"]) for each in found["splits"]] == [
        (split, name, len(pairs), len({pair.chosen[:-1] for pair in pairs}), plain_hash(pairs))
        for split, sets in (("find", FIND), ("tune", TUNE), ("test", TEST), ("protect", PROTECT))
        for name, pairs in sets.items()
    ]
    assert found["tolerance"] == 0.2 and found["precision"]["dtype"] == found["precision"]["own"] == "float32"
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_its_model_has_the_edit_in_its_weights(tiny):
    alone = replace(made(), interventions=0)
    for edited in (score(alone.applied(tiny), TEST["harmless"]), score(tiny, TEST["harmless"], interventions=[made().intervention])):
        expected = np.array(plain_rewards(tiny, TEST["harmless"], made().gates))
        np.testing.assert_allclose(np.stack([edited.chosen, edited.rejected], 1), expected, rtol=0, atol=1e-5)


def test_a_repair_of_an_edited_model_has_no_model_of_its_own(tiny):
    """Its evidence is of the model with both edits; a checkpoint would have one of them."""
    message = refusal(made().applied, tiny)
    assert message.startswith(
        "the model was repaired under 1 interventions, which a copy of it has not, so that what was tested is not true"
    )


def test_neither_max_tokens_nor_the_order_of_tested_pairs_matter(tiny):
    def turned(sets: Mapping[str, list[PreferencePair]]) -> dict[str, list[PreferencePair]]:
        return {name: pairs[::-1] for name, pairs in sets.items()}

    again = repair(
        tiny,
        FIND,
        turned(TUNE),
        turned(TEST),
        protect=turned(PROTECT),
        singles=singles(),
        config=CONFIG,
        interventions=[ScaleAblation(EDITED, 0.5)],
        max_tokens=200,
    )
    assert again.chosen == made().chosen
    torch.testing.assert_close(again.gates, made().gates, rtol=0, atol=1e-4)
    one, other = ({(each.kind, each.name, each.tested): each for each in found.evidence} for found in (made(), again))
    assert set(other) == {key for key in one if key[1] != "other"}
    for key, each in other.items():
        assert [part.value for part in each.accuracy] == pytest.approx([part.value for part in one[key].accuracy])
        assert [part.value for part in each.margin] == pytest.approx([part.value for part in one[key].margin], abs=1e-4)
    for name, shifts in again.shifts.items():
        for shift, before in zip(shifts, made().shifts[name], strict=True):
            assert shift.name == before.name and shift.change.after.value == pytest.approx(before.change.after.value, abs=1e-4)


def as_it_prefers(model: HookedRewardModel, sets: Mapping[str, list[PreferencePair]]) -> dict[str, list[PreferencePair]]:
    """The same pairs, turned round where the model prefers the other side: all are right."""
    return {
        name: [
            pair if margin > 0 else replace(pair, chosen=pair.rejected, rejected=pair.chosen)
            for pair, margin in zip(pairs, score(model, pairs).margin, strict=True)
        ]
        for name, pairs in sets.items()
    }


def test_nothing_to_gain_in_half_precision_on_one_of_several_outputs(monkeypatch):
    """No candidate is an improvement where all tune pairs are right: the edit is none, and the evidence says that nothing changes."""
    monkeypatch.setattr(half_precision, "product_gain", lambda model: 2.0)
    model = with_outputs()
    alone = of_one([0, 1, 0])
    found = repair(
        model,
        FIND,
        as_it_prefers(alone, TUNE),
        TEST,
        beside={"alone": alone},
        config=RepairConfig(fractions=(0.1,), strengths=(0.0,), learn_steps=1, draws=2),
        output="safety",
    )
    assert found.chosen is None and bool((found.gates == 1).all()) and len(found.neurons) == 0 and found.output == "safety"
    assert found.precision.dtype == "bfloat16" and found.to_json()["precision"]["dtype"] == "bfloat16"
    assert [each.kind for each in found.evidence] == ["repaired", "uniform", "model"] * 2
    for each in found.evidence:
        if each.kind != "uniform":  # the model of that output alone is the same model, in the same precision
            assert each.accuracy.difference == (0, 0, 0, 10) and each.verdict == "no clear change"
            assert each.margin.difference.value == pytest.approx(0, abs=1e-5)
        exact = score(alone, TEST[each.tested])
        assert each.accuracy.before.value == pytest.approx(exact.accuracy().value, abs=0.06)
    tuned = [each for each in found.tried if each.candidate.way != "uniform"]
    assert tuned and all(each.gain <= 0 for each in found.tried)
    found_json = found.to_json()
    assert not any(each["chosen"] for each in found_json["tried"]) and found_json["gates"] == [] == found_json["neurons"]
    assert json.loads(json.dumps(found_json, allow_nan=False)) == found_json
    assert len(found.to_frame()) == 6 and "chosen=None" in repr(found)
    assert "mean reward" in {each.name for each in found.shifts["helpful"] if each.verdict == "no clear change"}
    assert model.output is None  # the model's own setting is as it was


def test_what_cannot_be_repaired_is_refused_before_anything_runs(tiny, monkeypatch):
    def ran(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the model was run")

    monkeypatch.setattr(repairing, "attribute", ran)
    monkeypatch.setattr(repairing, "gates_towards", ran)

    def refused(**also: Any) -> str:
        return refusal(repair, tiny, FIND, TUNE, TEST, config=CONFIG, **also)

    assert refused(singles={"kind": tiny}) == "singles must be by objective (helpful, harmless), got kind"
    assert refused(singles=singles(), beside=singles()) == "helpful is among singles and beside: give the other model another name"
    assert "outputs" in refused(beside={"several": with_outputs()})
    assert "outputs" in refused(singles={"helpful": with_outputs()})
    few_left = TUNE | {"harmless": [*TUNE["harmless"][:6], *map(lengthened, TUNE["harmless"][6:])]}
    for name, sets in (("tune", (FIND, few_left, TEST)), ("test", (FIND, TEST, few_left))):
        message = refusal(repair, tiny, *sets, config=CONFIG, max_length=200)
        assert message == f"{name}, as the model reads it, has 3 prompts of harmless; at least 10 are needed, of which intervals are drawn"
    with monkeypatch.context() as patch:  # as where memory is scarce: a backward pass takes more of it
        patch.setattr(batching, "_default_length", lambda model, memory, gradients: 200 if gradients else 1000)
        message = refusal(repair, tiny, FIND | {"harmless": [*map(lengthened, FIND["harmless"])]}, TUNE, TEST, config=CONFIG)
        assert message.startswith(f"every one of {len(FIND['harmless'])} pairs is longer than 200 tokens")
    shorter = tiny_reward_model()
    shorter.cfg.n_ctx = 100
    protect = {"long": [*PROTECT["kept"][:6], lengthened(PROTECT["kept"][6])]}
    message = refused(protect=protect, beside={"shorter": shorter})
    assert message == "shorter cannot read 1 of 7 pairs of long (protect): give a max_length that suits it"


def lengthened(pair: PreferencePair) -> PreferencePair:
    """Of more tokens than some models read."""
    (prompt, chosen), (_, rejected) = pair.chosen, pair.rejected
    return replace(pair, chosen=(prompt, chosen._replace(content="a" * 300)), rejected=(prompt, rejected._replace(content="b" * 300)))


def scored(tiny: HookedRewardModel, gains: dict[str, int], neurons: int, gate: float = 0.5) -> Any:
    """A candidate that gets so many more of ten pairs right; five are right before."""
    names = [*gains]
    pairs = {name: plain_pairs(name, 10)[::2] for name in names}
    clean = {name: score(tiny, own) for name, own in pairs.items()}
    ones, half = np.ones(10), np.array([0.0, 2.0] * 5)

    def with_right(name: str, right: int) -> Any:
        return replace(clean[name], chosen=np.where(np.arange(10) < right, 2.0, 0.0), rejected=ones)

    gates = torch.ones(2, 48)
    gates.view(-1)[:neurons] = gate
    before = {name: replace(clean[name], chosen=half, rejected=ones) for name in names}
    return tried(Candidate("learnt", "x", gates), before, {name: with_right(name, 5 + gain) for name, gain in gains.items()})


def test_the_rule_of_choice(tiny):
    """Fewest neurons, of those that gain nearly most; none by which an objective loses more than is tolerated, or that gains nothing."""
    made = {
        "even": scored(tiny, {"a": 1, "b": 1}, 9),
        "few": scored(tiny, {"a": 2, "b": 0}, 4),
        "greedy": scored(tiny, {"a": 5, "b": -1}, 4),
        "nothing": scored(tiny, {"a": 0, "b": 0}, 1),
    }
    assert [each.gain for each in made.values()] == pytest.approx([0.1, 0.1, 0.2, 0])
    assert best_of([*made.values()], 0.01) is made["few"]
    assert best_of([*made.values()], 0.1) is made["greedy"]
    assert best_of([made["nothing"], made["greedy"]], 0.0999) is None and best_of([], 1) is None
    balanced = scored(tiny, {"a": 1, "b": 2, "c": -3}, 4)  # 0.1 + 0.2 - 0.3 is 3e-17 where numbers are rounded
    assert balanced.gain == 0 and best_of([balanced], 1) is None
