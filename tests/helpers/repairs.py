"""Repairs with made-up numbers, of a tiny model, and one that was really made."""

from functools import cache
from typing import cast

import torch

from tl_reward.data.pairs import Message, PreferencePair
from tl_reward.measures.agreement import Precision
from tl_reward.measures.intervals import Estimate
from tl_reward.measures.json_types import CompareKind, SplitSizeJson
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.repairing.config import RepairConfig
from tl_reward.repairing.evidence.battery import Good, Shift
from tl_reward.repairing.evidence.compared import Compared
from tl_reward.repairing.evidence.paired import Paired
from tl_reward.repairing.repair import repair
from tl_reward.repairing.result import Repair
from tl_reward.repairing.tuning import Tried
from tl_reward.repairing.ways.candidates import Candidate, uniform

SHAPE = (2, 48)
OBJECTIVES = ("helpful", "harmless")
PROTECTED = ("safety", "chat")
MODELS = ("helpful alone", "trained on the same pairs")


def paired(before: float, gain: float, width: float = 0.03, n: int = 60) -> Paired:
    """After minus before is `gain`, plus or minus `width`."""
    after = before + gain
    one, other = (Estimate(value, value - 2 * width, value + 2 * width, n) for value in (before, after))
    return Paired(one, other, Estimate(gain, gain - width, gain + width, n))


def made_up_repair(*, edited: bool = True, objectives: tuple[str, ...] = OBJECTIVES, protected: tuple[str, ...] = PROTECTED) -> Repair:
    """Better on the first objective and worse on the first protected set, with one bias reversed and another worse; or with no edit."""
    candidates = [
        _candidate(way, f"to {strength:g}", count, strength)
        for way in ("hurting all", "hurting on balance", "learnt")
        for strength in (0.0, 0.5)
        for count in (1, 2, 4, 8)
    ]
    candidates += [_candidate("at a cost", f"{objectives[0]} at {objectives[1]}'s, to 0", count, 0.0) for count in (1, 2, 4)]
    chosen = candidates[6].name if edited else None
    gates = candidates[6].gates if edited else torch.ones(SHAPE)
    tested = [(name, False) for name in objectives] + [(name, True) for name in protected]
    return Repair(
        gates=gates,
        chosen=chosen,
        tried=(*(_tried(each, i, objectives, edited) for i, each in enumerate([*candidates, *uniform(SHAPE)])),),
        tolerance=0.01,
        objectives=objectives,
        splits=(*_sizes(objectives, protected),),
        evidence=(*(row for i, (name, kept) in enumerate(tested) for row in _evidence(i, name, kept, chosen)),),
        shifts={name: _shifts(i) if edited else tuple(_still(each) for each in _shifts(i)) for i, (name, _) in enumerate(tested)},
        precision=Precision("bfloat16", "float32", True, 40, 0.01, 0.02, 0.999),
    )


def _candidate(way: str, about: str, count: int, strength: float) -> Candidate:
    gates = torch.ones(SHAPE)
    gates.view(-1)[torch.arange(count) * 7 + 3] = strength
    return Candidate(way, about, gates)


def _tried(candidate: Candidate, number: int, objectives: tuple[str, ...], edited: bool) -> Tried:
    """The seventh gains most; of those after it every third loses more on the second objective than is tolerated."""
    gain = (0.04 if number == 6 else 0.03 - 0.002 * number) if edited else -0.01 - 0.001 * number
    n = 60 if number < 9 else 24
    gains = [gain, -0.05 if number % 3 == 2 else gain / 2, *(gain for _ in objectives[2:])]
    return Tried(
        candidate,
        {name: paired(0.7, each, n=n) for name, each in zip(objectives, gains, strict=True)},
        {name: paired(1.0, 4 * each, n=n) for name, each in zip(objectives, gains, strict=True)},
        finalist=number < 9,
    )


def _sizes(objectives: tuple[str, ...], protected: tuple[str, ...]) -> list[SplitSizeJson]:
    splits = [
        *((split, name, 80) for split in ("find", "tune", "test") for name in objectives),
        *(("protect", name, 90) for name in protected),
    ]
    return [cast(SplitSizeJson, {"split": split, "name": name, "pairs": n, "prompts": 60, "hash": "0" * 64}) for split, name, n in splits]


def _evidence(number: int, name: str, protected: bool, chosen: str | None) -> list[Compared]:
    before = 0.7 + 0.04 * number

    def row(kind: CompareKind, label: str, gain: float) -> Compared:
        return Compared(kind, label, name, protected, paired(before, gain), paired(0.9, 5 * gain, 0.1), 0.01)

    if chosen is None:
        still = (_as_it_is(paired(value, 0.0)) for value in (before, 0.9))
        rows = [Compared("repaired", "no edit", name, protected, *still, p_value=1.0)]
    else:
        rows = [row("repaired", chosen, (0.052, 0.011, -0.041, 0.004)[number % 4])]
        rows += [row("random", f"draw {draw}", 0.004 * (draw - 2)) for draw in (1, 2, 3)]
    return [*rows, row("uniform", "uniform, to 0.9, 96 neurons", -0.01), *(row("model", each, 0.08) for each in MODELS)]


def _shifts(number: int) -> tuple[Shift, ...]:
    def shift(name: str, good: Good, before: float, gain: float, width: float = 0.03) -> Shift:
        found = paired(before, gain, width)
        if good == "near 0":
            size = abs(found.after.value) - abs(found.before.value)
            found = found._replace(difference=Estimate(size, size - width, size + width, 60))
        return Shift(name, f"A question about {name}.", good, found)

    return (
        shift("reward and length", "near 0", 0.22, (-0.38, -0.12, 0.08, 0.01)[number % 4]),
        shift("reward and length, given correctness", "near 0", 0.12, (0.02, 0.09, -0.05, 0.0)[number % 4]),
        shift("chosen is shorter", "high", 0.55, (0.12, 0.02, 0.0, 0.0)[number % 4]),
        shift("chosen is longer", "high", 0.85, (-0.06, 0.01, -0.05, 0.0)[number % 4]),
        shift("mean reward", "neither", 0.1, 0.3),
        shift("spread of rewards", "neither", 1.0, 1.1),
        shift("order of rewards", "neither", 1.0, -0.2),
        *((shift("best of 4: wins", "high", 0.6, 0.05), shift("best of 4: length", "neither", 180.0, -25.0, 8.0)) if number % 2 else ()),
    )


def _still(shift: Shift) -> Shift:
    return Shift(shift.name, shift.question, shift.good, _as_it_is(shift.change))


def _as_it_is(change: Paired) -> Paired:
    return Paired(change.before, change.before, Estimate(0.0, 0.0, 0.0, change.before.n))


@cache
def real_repair() -> Repair:
    """Of a tiny model, from pairs of a few words."""
    parts = {split: {name: _pairs(split, name) for name in OBJECTIVES} for split in ("find", "tune", "test")}
    config = RepairConfig(fractions=(0.05, 0.1), draws=2, learn_steps=3, pairs_a_step=4)
    others = {"others": _pairs("protect", "all")}
    return repair(tiny_reward_model(), parts["find"], parts["tune"], parts["test"], protect=others, config=config)


def _pairs(split: str, name: str, count: int = 12) -> list[PreferencePair]:
    return [
        PreferencePair(
            f"{split}:{name}:{i}",
            (Message("user", f"{split} {name} {i}?"), Message("assistant", "Yes, " + "so " * (i % 4))),
            (Message("user", f"{split} {name} {i}?"), Message("assistant", "No" + "o" * (i % 5))),
        )
        for i in range(count)
    ]
