"""Matrices of a few rows, each there ten times, whose every number can be computed by hand: no mean goes over fewer than ten prompts."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from tl_reward.measures.scores import Scores
from tl_reward.study.matrix import Found, Matrix, Model, ModelEdit

BASE = "smollm2-135m-instruct"
HELPFUL, HARMLESS, OWN = "RMB helpful pairwise", "RMB harmless pairwise", "objective test"
TOP = ModelEdit("top", "mean", 0.1)


TIMES = 10


def pairs(margins: Sequence[float], *, rejected: float = 0.0, groups: Sequence[str] = (), times: int = 1) -> Scores:
    """Pairs with these margins, each of a prompt of its own, or of its group's; all of them so many times."""
    margins = [*margins] * times
    ids = [f"p{i}" for i in range(len(margins))]
    low = np.full(len(margins), rejected)
    return Scores(tuple(ids), low + np.array(margins, dtype=float), low, tuple(groups or ids), ("",) * len(ids))


def best_of_nine(margins: Sequence[Sequence[float]], times: int = 1) -> Scores:
    """RM-Bench rows, each with these margins by chosen and rejected style."""
    ids = tuple(f"{row}/{i}-{j}" for row in range(times) for i in range(3) for j in range(3))
    chosen = np.tile(np.array(margins, dtype=float).flatten(), times)
    return Scores(ids, chosen, np.zeros(9 * times), tuple(name.split("/")[0] for name in ids), ("",) * 9 * times)


def scored(
    by_objective: Mapping[str, Mapping[ModelEdit, Mapping[str, Sequence[float]]]], *, seed: int = 0, base: str = BASE, times: int = 1
) -> dict[tuple[Model, ModelEdit], dict[str, Scores]]:
    """Scores of a matrix from margins, by objective, edit and sub-task."""
    return {
        (Model(base, objective, seed), edit): {task: pairs(margins, times=times) for task, margins in tasks.items()}
        for objective, edits in by_objective.items()
        for edit, tasks in edits.items()
    }


def found(best: Mapping[str, Sequence[tuple[int, int]]], *, layers: int = 3, width: int = 10, seed: int = 0) -> dict[Model, Found]:
    """Models whose highest scores by mean are at these neurons, the first the highest."""
    made = {}
    for objective, coords in best.items():
        score = torch.zeros(layers, width)
        for rank, (layer, neuron) in enumerate(coords):
            score[layer, neuron] = 100 - rank
        made[Model(BASE, objective, seed)] = Found({"mean": score})
    return made


def whole() -> Matrix:
    """Something for every table: three models, one seed, each edit at 10 %."""
    sets = {ModelEdit("set", name, 0.1): margins for name, margins in (("helpful-only", [1, -1, 1, -1]), ("harmless-only", [1, 1, 1, -1]))}
    sets[ModelEdit("set", "shared", 0.1)] = [-1, -1, 1, -1]
    scores = {}
    for objective, margins in {"helpful": [1, 2, -1, -1], "harmless": [-1, 1, 1, -1], "mixed": [1, 1, 1, -1]}.items():
        edits = {
            ModelEdit(): margins,
            TOP: [1, -1, -1, -1],
            ModelEdit("random", "mean 0", 0.1): margins,
            ModelEdit("random", "mean 1", 0.1): [1, 1, 1, 1],
        }
        edits |= {ModelEdit("masked", "mean", 0.0): [1, 1, 1, -1], ModelEdit("pruned", "mean", 0.1): [1, 1, -1, -1]}
        for edit, values in (edits | (sets if objective == "mixed" else {})).items():
            turned = [-value for value in values]
            tasks = {name: pairs(each, times=TIMES) for name, each in ((HELPFUL, values), (HARMLESS, turned), (OWN, values))}
            scores[Model(BASE, objective, 0), edit] = tasks | {"RM-Bench chat": best_of_nine([values[:3]] * 3, TIMES)}
    tops = {"helpful": [(0, 0), (1, 0), (2, 0)], "harmless": [(0, 0), (1, 1), (2, 1)], "mixed": [(0, 0), (1, 0), (2, 1)]}
    return Matrix(scores, found(tops))
