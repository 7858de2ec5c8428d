"""The names by which rankings of neurons, and methods that estimate their effects, are asked for."""

from collections.abc import Mapping
from typing import Literal, get_args

from tl_reward.errors import InputError
from tl_reward.measures.contrast import CONTRASTS, ContrastName
from tl_reward.measures.neuron_statistics import STATISTICS, StatisticName

RankingName = Literal[StatisticName, ContrastName, "entropy", "random"]
RANKINGS: tuple[RankingName, ...] = (*STATISTICS, *CONTRASTS, "entropy", "random")

Method = Literal["gradient", "integrated", "mean", "pair", "direct"]
METHODS: Mapping[Method, str] = {
    "gradient": "activation x gradient, against zero",
    "integrated": "integrated gradients, against zero",
    "mean": "activation x gradient, against the neuron's mean",
    "pair": "activation x gradient, against the paired transcript",
    "direct": "direct reward attribution",
}

AblationKind = Literal["zero", "mean", "resample", "halve"]


def check_ranking(name: str) -> None:
    if name not in RANKINGS:
        raise InputError(f"score must be one of {', '.join(RANKINGS)}, got {name!r}")


def check_method(name: str) -> None:
    if name not in get_args(Method):
        raise InputError(f"method must be one of {', '.join(get_args(Method))}, got {name!r}")
