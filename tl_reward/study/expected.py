"""How much do rows vary where nothing is known of them yet, and how many of each sub-task give an interval of a half-width?

The defaults are stated, not measured here: they are about what docs/reproduction shows of SmolLM2-135M-Instruct. They say nothing of
another model; `power` takes scores that are at hand before them.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

ACCURACY = 0.65
CHANGED = 0.5  # share of rows that change sides when 10 % of all neurons are zeroed, those that rank highest
CHANGED_AT_RANDOM = 0.15  # and as many random ones of the same layers
SEEDS_ALIKE = 0.7  # share of rows that models of one kind answer alike whatever their seed; the others they answer by chance
LEVEL = 1.0  # standard deviation of a row's mean reward, in reward units
EFFECT = 0.1  # a difference, where the study gives none
QUANTILE = 1.96
FEWEST_DEALT = 20  # rows: a sub-task of fewer prompts than `rows.FEWEST` counts in no mean


class SubTaskRows(NamedTuple):
    """What a sub-task has: rows, what one costs (characters), and how much one varies (its variance)."""

    rows: int
    cost: float
    variance: float


def row_variance(*, edited: bool) -> float:
    """Of whether a row is right, or of the change of that under an edit: 1, 0 or -1."""
    return CHANGED if edited else ACCURACY * (1 - ACCURACY)


def dealt(tasks: Mapping[str, SubTaskRows], half_width: float) -> dict[str, int]:
    """How many rows of each sub-task make the mean over all of them as certain as asked for, at the least cost: in proportion to a row's
    standard deviation over the square root of what it costs (Neyman's allocation). A sub-task that has fewer gives all it has, and the
    others make up for it; where all together have too few, all is taken.

    >>> even = SubTaskRows(1000, 1.0, 0.25)
    >>> dealt({"a": even}, 0.1), dealt({"a": even, "b": even}, 0.1), dealt({"a": even, "b": even._replace(cost=4.0)}, 0.1)
    ({'a': 97}, {'a': 49, 'b': 49}, {'a': 73, 'b': 37})
    """
    budget = (half_width * len(tasks) / QUANTILE) ** 2  # of the sum of variance / rows
    found: dict[str, int] = {}
    left = dict(tasks)
    while left:
        spent = sum(tasks[name].variance / max(rows, 1) for name, rows in found.items())
        if budget <= spent:
            return found | {name: task.rows for name, task in left.items()}
        scale = sum(math.sqrt(task.variance * task.cost) for task in left.values()) / (budget - spent)
        wanted = {name: math.ceil(scale * math.sqrt(task.variance / task.cost)) for name, task in left.items()}
        short = [name for name, rows in wanted.items() if rows >= left[name].rows]
        if not short:
            return found | {name: min(max(rows, FEWEST_DEALT), left[name].rows) for name, rows in wanted.items()}
        found |= {name: left.pop(name).rows for name in short}
    return found
