"""The numbers of a repair once more: by loops over pairs and draws, with no code of the package's own."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np

from tl_reward.data.pairs import PreferencePair

Drawn = Callable[[np.ndarray], float]  # a figure of the pairs of these numbers, some of them several times
RESAMPLES = 2000


class Row(NamedTuple):
    """A pair: what its sides are (prompt and answer), how long their answers are, and both rewards before and after."""

    id: str
    group: str
    prompt: Any
    subset: str
    sides: tuple[Any, Any]
    lengths: tuple[float, float]
    before: tuple[float, float]
    after: tuple[float, float]


def length_of(pair: PreferencePair, side: str) -> float:
    """Of an answer in tokens of the byte tokenizer, with the space before it."""
    return 1.0 + len(getattr(pair, side)[-1].content.encode())


def row_of(pair: PreferencePair, before: tuple[float, float], after: tuple[float, float]) -> Row:
    lengths = length_of(pair, "chosen"), length_of(pair, "rejected")
    sides = pair.chosen, pair.rejected
    return Row(pair.id, pair.group or pair.id, pair.chosen[:-1], pair.subset or "", sides, lengths, before, after)


class Plain:
    """Every figure of some pairs. Without `intervals`, none is drawn."""

    def __init__(self, rows: Sequence[Row], *, intervals: bool = True) -> None:
        self.rows = list(rows)
        self.intervals = intervals

    def paired(self, before: Drawn, after: Drawn, prompts: Sequence[Any] | None = None, *, size: bool = False) -> dict[str, Any]:
        prompts = [row.prompt for row in self.rows] if prompts is None else prompts
        draws = _draws(prompts) if self.intervals else []
        every = np.arange(len(prompts))
        whole = [before(every), after(every)]
        drawn = np.array([[before(draw), after(draw)] for draw in draws]).reshape(-1, 2)
        found = {name: _estimate(whole[i], drawn[:, i], len(set(prompts))) for i, name in enumerate(("before", "after"))}
        if size:
            whole, drawn = [abs(each) for each in whole], np.abs(drawn)
        return found | {"difference": _estimate(whole[1] - whole[0], drawn[:, 1] - drawn[:, 0], len(set(prompts)))}

    def means(self, before: Any, after: Any, prompts: Sequence[Any] | None = None) -> dict[str, Any]:
        one, other = np.array(before), np.array(after)
        return self.paired(lambda i: one[i].mean(), lambda i: other[i].mean(), prompts)

    def accuracy(self) -> dict[str, Any]:
        before, after = ([_right(*rewards) for rewards in side] for side in self._rewards())
        return self.means(before, after)

    def sign_flip(self) -> float:
        """Over all flips of the signs of prompts' sums; only where that is of few prompts."""
        changes: dict[Any, float] = {}
        for row in self.rows:
            changes[row.prompt] = changes.get(row.prompt, 0.0) + _right(*row.after) - _right(*row.before)
        moved = [each for each in changes.values() if each]
        flipped = [abs(sum(s * each for s, each in zip(signs, moved, strict=True))) for signs in product((1, -1), repeat=len(moved))]
        return sum(each >= abs(sum(moved)) - 1e-12 for each in flipped) / len(flipped)

    def margin(self) -> dict[str, Any]:
        """In standard deviations of that model's rewards of the very draw."""

        def standard(rewards: np.ndarray) -> Drawn:
            def figure(i: np.ndarray) -> float:
                spread = rewards[i].std()
                return float((rewards[i, 0] - rewards[i, 1]).mean() / spread) if spread > 0 else np.nan

            return figure

        before, after = map(standard, self._rewards())
        return self.paired(before, after)

    def _rewards(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array([row.before for row in self.rows]), np.array([row.after for row in self.rows])

    def of(self, here: Callable[[Row], bool]) -> "Plain | None":
        rows = [row for row in self.rows if here(row)]
        return Plain(rows, intervals=self.intervals) if len({row.prompt for row in rows}) >= 10 else None

    def shifts(self) -> dict[str, dict[str, Any]]:
        """By name, each with which way is good."""
        found = self._length() | self._parts() | self._drift()
        for count in (4, 16):
            found |= self._best_of(count)
        return found

    def _length(self) -> dict[str, dict[str, Any]]:
        lengths = np.array([row.lengths for row in self.rows])
        if len(set(lengths.ravel())) == 1:
            return {}
        long = _ranks(lengths)
        before, after = self._rewards()
        sides = [_ranks(lengths[:, side]) for side in (0, 1)]

        def over_all(rewards: np.ndarray) -> Drawn:
            ranks = _ranks(rewards)
            return lambda i: _pearson(ranks[i].ravel(), long[i].ravel())

        def given(rewards: np.ndarray) -> Drawn:
            ranks = [_ranks(rewards[:, side]) for side in (0, 1)]
            return lambda i: (_pearson(ranks[0][i], sides[0][i]) + _pearson(ranks[1][i], sides[1][i])) / 2

        found = {
            "reward and length": self.paired(over_all(before), over_all(after), size=True),
            "reward and length, given correctness": self.paired(given(before), given(after), size=True),
        }
        found = {name: each | {"good": "near 0"} for name, each in found.items()}
        for name, part in (
            ("shorter", self.of(lambda row: row.lengths[0] < row.lengths[1])),
            ("longer", self.of(lambda row: row.lengths[0] > row.lengths[1])),
        ):
            if part:
                found[f"chosen is {name}"] = part.accuracy() | {"good": "high"}
        return found

    def _parts(self) -> dict[str, dict[str, Any]]:
        names = {row.subset for row in self.rows}
        parts = {f"subset: {name}": self.of(lambda row, name=name: row.subset == name) for name in names if name and len(names - {""}) > 1}
        ends = {row.group: {other.id.split("/")[-1] for other in self.rows if other.group == row.group} for row in self.rows}
        if all(found == {f"{a}-{b}" for a in "012" for b in "012"} for found in ends.values()):
            for name, sign in (("easy", 1), ("normal", 0), ("hard", -1)):
                parts[f"style: {name}"] = self.of(lambda row, sign=sign: np.sign(int(row.id[-3]) - int(row.id[-1])) == sign)
        return {name: part.accuracy() | {"good": "high"} for name, part in parts.items() if part}

    def _drift(self) -> dict[str, dict[str, Any]]:
        before, after = self._rewards()
        unit = before.std() or 1.0

        def spread(rewards: np.ndarray) -> Drawn:
            squares = (rewards - rewards.mean(0)) ** 2
            return lambda i: float(np.sqrt(squares[i].mean()) / unit)

        ranks, other = _ranks(before), _ranks(after)
        found = {
            "mean reward": self.means(before.mean(1) / unit, after.mean(1) / unit),
            "spread of rewards": self.paired(spread(before), spread(after)),
            "order of rewards": self.paired(
                lambda i: _pearson(ranks[i].ravel(), ranks[i].ravel()), lambda i: _pearson(ranks[i].ravel(), other[i].ravel())
            ),
        }
        return {name: each | {"good": "neither"} for name, each in found.items()}

    def _best_of(self, count: int) -> dict[str, dict[str, Any]]:
        prompts, picked = [], []
        for prompt in dict.fromkeys(row.prompt for row in self.rows):
            rows = [row for row in self.rows if row.prompt == prompt]
            known = {row.sides[i]: (row.before[i], row.after[i], row.lengths[i]) for row in rows for i in (0, 1)}
            wins = {answer: float(np.mean([answer == row.sides[0] for row in rows if answer in row.sides])) for answer in known}
            if len(known) >= count:
                prompts.append(prompt)
                picked.append([_brute(known, wins, count, when) for when in (0, 1)])
        if len(prompts) < 10:
            return {}
        figures = np.array(picked)  # [prompt, when, wins or length]
        of = f"best of {count}"
        return {
            f"{of}: wins": self.means(figures[:, 0, 0], figures[:, 1, 0], prompts) | {"good": "high"},
            f"{of}: length": self.means(figures[:, 0, 1], figures[:, 1, 1], prompts) | {"good": "neither"},
        }


def verdict(shift: Mapping[str, Any]) -> str:
    """In words of an interval: on which side of 0 it is."""

    def side(interval: Mapping[str, Any]) -> int:
        if interval["low"] is None:
            return 0
        return 1 if interval["low"] > 0 else -1 if interval["high"] < 0 else 0

    moved = side(shift["difference"])
    if shift["good"] == "near 0" and side(shift["before"]) * side(shift["after"]) == -1:
        return "reversed"
    if moved == 0:
        return "no clear change"
    if shift["good"] == "neither":
        return "moved"
    return "better" if moved == (1 if shift["good"] == "high" else -1) else "worse"


def _draws(prompts: Sequence[Any]) -> list[np.ndarray]:
    members: dict[Any, list[int]] = {}
    for i, prompt in enumerate(prompts):
        members.setdefault(prompt, []).append(i)
    own = [np.array(each) for each in members.values()]
    drawn = np.random.default_rng(0).integers(0, len(own), size=(RESAMPLES, len(own)))
    return [np.concatenate([own[i] for i in draw]) for draw in drawn]


def _estimate(value: float, drawn: np.ndarray, n: int) -> dict[str, Any]:
    drawn = drawn[np.isfinite(drawn)]
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist() if len(drawn) and n > 1 else (None, None)
    return {"value": float(value) if np.isfinite(value) else None, "low": low, "high": high, "n": n}


def _right(chosen: float, rejected: float) -> float:
    return 1.0 if chosen > rejected else 0.5 if chosen == rejected else 0.0


def _ranks(values: np.ndarray) -> np.ndarray:
    """The mean place among all values, ties alike."""
    flat = values.ravel()
    return np.array([(flat < each).sum() + ((flat == each).sum() + 1) / 2 for each in flat]).reshape(values.shape)


def _pearson(one: np.ndarray, other: np.ndarray) -> float:
    if one.std() == 0 or other.std() == 0:
        return np.nan
    return float(((one - one.mean()) * (other - other.mean())).mean() / (one.std() * other.std()))


def _brute(known: Mapping[Any, tuple[float, ...]], wins: Mapping[Any, float], count: int, when: int) -> tuple[float, float]:
    """Every draw of so many answers, and of those with the most reward in it the mean share of wins and length."""
    found = []
    for drawn in combinations(known, count):
        best = max(known[answer][when] for answer in drawn)
        top = [answer for answer in drawn if known[answer][when] == best]
        found.append((np.mean([wins[answer] for answer in top]), np.mean([known[answer][2] for answer in top])))
    one, other = np.mean(found, axis=0)
    return float(one), float(other)
