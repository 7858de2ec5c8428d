"""Which pairs find the neurons of a repair, which tune it, which test it, and which it must not make worse? No prompt is in two of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tl_reward.data.pairs import PreferencePair, Transcript
from tl_reward.data.readers import GivenPairs, as_pairs
from tl_reward.errors import InputError
from tl_reward.measures.intervals import FEW
from tl_reward.measures.scores import prompt_name

# Pairs of each objective by its name; or pairs that name their objective themselves.
ByObjective = Mapping[str, GivenPairs] | GivenPairs
Objectives = Mapping[str, tuple[PreferencePair, ...]]


@dataclass(frozen=True)
class Splits:
    """Pairs by objective, in the same order everywhere, each marked with its objective; `protect` is by the name of a set."""

    find: Objectives
    tune: Objectives
    test: Objectives
    protect: Objectives

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives."""
        return tuple(self.find)


def split_of(find: ByObjective, tune: ByObjective, test: ByObjective, protect: Mapping[str, GivenPairs] | None = None) -> Splits:
    """The three sets of a repair, and the sets that it must not make worse.

    Raises:
        InputError: fewer than two objectives, or others in one of the sets; a prompt that two sets share; fewer than 10 prompts of an
            objective to tune or to test on; a protected set that is called like an objective.
    """
    given = {"find": find, "tune": tune, "test": test}
    sets = {name: _by_objective(name, pairs) for name, pairs in given.items()}
    names = tuple(sets["find"])
    if not all(name.strip() for parts in sets.values() for name in parts):
        raise InputError("an objective must have a name, got an empty one")
    if len(names) < 2:
        raise InputError(f"a repair needs pairs of at least two objectives, got {', '.join(names) or 'none'}")
    for name, parts in sets.items():
        if set(parts) != set(names):
            raise InputError(f"find has the objectives {', '.join(names)}, and {name} has {', '.join(parts)}: they must be the same")
        sets[name] = _with_own_ids({objective: parts[objective] for objective in names})
    protected = {name: tuple(as_pairs(pairs)) for name, pairs in (protect or {}).items()}
    if clash := next((name for name in protected if name in names), None):
        raise InputError(f"{clash} is an objective and a protected set: give the protected one another name")
    _check_apart({name: _all(parts) for name, parts in sets.items()}, protected)
    for name in ("tune", "test"):
        for objective, pairs in sets[name].items():
            check_enough(name, objective, pairs)
    return Splits(sets["find"], sets["tune"], sets["test"], protected)


def check_enough(name: str, objective: str, pairs: Sequence[PreferencePair]) -> None:
    """Raises InputError for pairs of too few prompts. Once more for those that are left when a model has read them."""
    if (prompts := len(_prompts(pairs))) < FEW:
        raise InputError(f"{name} has {prompts} prompts of {objective}; at least {FEW} are needed, of which intervals are drawn")


def halves_by_prompt(pairs: GivenPairs) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Pairs in two halves, such as those to find and to tune on: no prompt is in both, and of each objective both have as many prompts."""
    given = as_pairs(pairs)
    number: dict[str, int] = {}  # of each prompt
    ends = [[number.setdefault(prompt, len(number)) for prompt in sorted(_prompts([pair]))] for pair in given]
    links = coo_array((np.ones(len(ends)), ([end[0] for end in ends], [end[-1] for end in ends])), shape=(len(number), len(number)))
    joined = connected_components(links, directed=False)[1]  # a pair's sides may answer different prompts, which have to be in one half
    counts: dict[str | None, list[int]] = {}
    half: dict[int, int] = {}
    result: tuple[list[PreferencePair], list[PreferencePair]] = [], []
    for pair, end in zip(given, ends, strict=True):
        group, count = int(joined[end[0]]), counts.setdefault(pair.objective, [0, 0])
        if group not in half:
            half[group] = count.index(min(count))
            count[half[group]] += 1
        result[half[group]].append(pair)
    return result


def _by_objective(name: str, given: ByObjective) -> dict[str, tuple[PreferencePair, ...]]:
    if isinstance(given, Mapping) and not _holds_columns(given):
        return {str(objective): _marked(as_pairs(pairs), str(objective)) for objective, pairs in given.items()}
    pairs = as_pairs(given)
    if nameless := next((pair.id for pair in pairs if pair.objective is None), None):
        raise InputError(f"{name}: pair {nameless} names no objective; give pairs by objective, such as {{'helpful': …, 'harmless': …}}")
    objectives = sorted({str(pair.objective) for pair in pairs})
    return {objective: tuple(pair for pair in pairs if pair.objective == objective) for objective in objectives}


def _holds_columns(given: Mapping[Any, Any]) -> bool:
    """Whether a mapping is one table, with a column a key."""
    return {"chosen", "rejected"} <= set(given)


def _marked(pairs: Sequence[PreferencePair], objective: str) -> tuple[PreferencePair, ...]:
    return tuple(pair if pair.objective == objective else replace(pair, objective=objective) for pair in pairs)


def _with_own_ids(parts: dict[str, tuple[PreferencePair, ...]]) -> dict[str, tuple[PreferencePair, ...]]:
    """Pairs of several objectives run together: where two have an id in common, each gets its objective's name before it."""
    own = [{name for pair in pairs for name in (pair.id, pair.group) if name is not None} for pairs in parts.values()]
    if sum(map(len, own)) == len(set().union(*own)):
        return parts
    return {
        objective: tuple(replace(pair, id=f"{objective}: {pair.id}", group=pair.group and f"{objective}: {pair.group}") for pair in pairs)
        for objective, pairs in parts.items()
    }


def _all(parts: Objectives) -> tuple[PreferencePair, ...]:
    return tuple(pair for pairs in parts.values() for pair in pairs)


def _prompts(pairs: Sequence[PreferencePair]) -> set[str]:
    """A pair whose sides answer different prompts is of both. Prompts that differ in case or spaces alone are one."""
    return {prompt_name(_plain(side[:-1])) for pair in pairs for side in (pair.chosen, pair.rejected)}


def _plain(prompt: Transcript) -> Transcript:
    return tuple(message._replace(content=" ".join(message.content.split()).casefold()) for message in prompt)


def _check_apart(sets: Mapping[str, Sequence[PreferencePair]], protected: Mapping[str, Sequence[PreferencePair]]) -> None:
    """Protected sets may hold what is tested, but nothing that a choice was made by."""
    seen: dict[str, str] = {}
    for name, pairs in sets.items():
        _refuse_shared(name, pairs, seen)
        seen |= dict.fromkeys(_prompts(pairs), name)
    chosen_by = {prompt: name for prompt, name in seen.items() if name != "test"}
    for name, pairs in protected.items():
        _refuse_shared(f"protect {name}", pairs, chosen_by)


def _refuse_shared(name: str, pairs: Sequence[PreferencePair], seen: Mapping[str, str]) -> None:
    both = {prompt for prompt in _prompts(pairs) if prompt in seen}
    if both:
        pair = next(pair for pair in pairs if _prompts([pair]) & both)
        other = seen[next(iter(_prompts([pair]) & both))]
        raise InputError(f"{other} and {name} share {len(both)} prompts, such as that of pair {pair.id}: a prompt may be in one alone")
