"""How many rows of each sub-task does a config mean: a number, or as many as a half-width asks for?"""

from collections.abc import Callable, Mapping, Sequence

from tl_reward.data.pairs import PreferencePair
from tl_reward.study.benchmarks import OBJECTIVE_TEST, TIES, by_pairs, group_of
from tl_reward.study.config import StudyConfig
from tl_reward.study.config_values import asked_of
from tl_reward.study.expected import SubTaskRows, dealt, row_variance

Named = tuple[PreferencePair, str]  # a pair, and the sub-task that it is of
# All pairs of a test, an objective, and for edited models or not, in parts (`Inputs.named`).
AllPairs = Callable[[str, str, bool], list[list[Named]]]
CHARACTERS_A_TOKEN = 4  # where no tokenizer is asked


def row_of(pair: PreferencePair) -> str:
    return pair.group or pair.id


def characters(pair: PreferencePair) -> tuple[int, int]:
    """Of both transcripts."""
    chosen, rejected = (sum(len(message.content) for message in side) for side in (pair.chosen, pair.rejected))
    return chosen, rejected


def rows_to_take(config: StudyConfig, named: AllPairs, test: str, objective: str, edited: bool) -> Mapping[str, int | None]:
    """By sub-task, of each part the number of first rows that are taken; None is all."""
    parts, asked = named(test, objective, edited), asked_of(config.limits.half_width, test)
    fixed = _fixed(config, test, edited)
    tasks = dict.fromkeys(task for part in parts for _, task in part)
    if asked is None:
        return dict.fromkeys(tasks, fixed)
    found: dict[str, int | None] = {}
    for task in tasks:
        together = _together(config, named, test, task, objective, edited)
        rows = dealt(together, asked)[task]
        each = -(-rows // len(parts))  # a mixed model's own pairs are of both objectives
        found[task] = each if fixed is None else min(each, fixed)
    return found


def _fixed(config: StudyConfig, test: str, edited: bool) -> int | None:
    limits = [config.limits.rows, config.limits.edited.get(test) if edited else None]
    return min((limit for limit in limits if limit is not None), default=None)


def longest(config: StudyConfig, test: str, edited: bool) -> int | None:
    """Tokens of a transcript that a model is given, None is all that it takes; of an edited one they may be fewer."""
    limits = [config.max_length, asked_of(config.limits.edited_max_length, test) if edited else None]
    return min((limit for limit in limits if limit is not None), default=None)


def _together(config: StudyConfig, named: AllPairs, test: str, task: str, objective: str, edited: bool) -> dict[str, SubTaskRows]:
    """The sub-tasks over which a mean is to have the half-width: of unedited models each by itself, of edited ones the sub-tasks of a group
    on which they are tested."""
    alone = not edited or test == OBJECTIVE_TEST or task == TIES or not group_of(task)
    tests = [test] if alone else [name for name in config.benchmarks if _joins(config, name, test)]
    found: dict[str, SubTaskRows] = {}
    for name in tests:
        by_task: dict[str, list[PreferencePair]] = {}
        for pair, own in (each for part in named(name, objective, edited) for each in part):
            if own == task if alone else (group_of(own) == group_of(task) and own != TIES):
                by_task.setdefault(own, []).append(pair)
        limit = _fixed(config, name, edited)
        found |= {own: _sub_task(own, pairs, edited, limit) for own, pairs in by_task.items()}
    return found


def _joins(config: StudyConfig, other: str, test: str) -> bool:
    return asked_of(config.limits.half_width, other) == asked_of(config.limits.half_width, test) and _fixed(config, other, True) != 0


def _sub_task(task: str, pairs: Sequence[PreferencePair], edited: bool, limit: int | None) -> SubTaskRows:
    rows = len({row_of(pair) for pair in pairs})
    each = len(pairs) / rows if by_pairs(task) else 1
    cost = sum(sum(characters(pair)) for pair in pairs) / rows
    return SubTaskRows(min(rows, limit or rows), cost, row_variance(edited=edited) / each)
