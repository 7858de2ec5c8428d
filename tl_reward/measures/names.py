"""The names by which rankings of neurons, and methods that estimate their effects, are asked for.

They are apart from what computes them, so that a command line that lists them is built without torch.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from tl_reward.errors import InputError

StatisticName = Literal["mean", "abs_mean", "rms", "probability", "change", "change_ms", "norm"]
STATISTICS: tuple[StatisticName, ...] = get_args(StatisticName)

ContrastName = Literal["difference", "welch_t", "cohens_d", "auroc"]
CONTRASTS: tuple[ContrastName, ...] = get_args(ContrastName)

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


EDITED = " + "  # between a model and each of its interventions, in what runs, tables and pages call an edited one


def labelled(model: str, output: str) -> str:
    """What runs, tables and pages call a model that is read by one of several outputs: the one place where the two names come together.

    >>> labelled("armo", "helpfulness"), labelled("armo · helpfulness", "helpfulness"), labelled("helpful", "")
    ('armo · helpfulness', 'armo · helpfulness', 'helpful')
    """
    return model if not output or model.endswith(f" · {output}") else f"{model} · {output}"


def check_statistic(name: str) -> None:
    if name not in STATISTICS:
        raise InputError(f"score must be one of {', '.join(STATISTICS)}, got {name!r}")


def check_ranking(name: str) -> None:
    if name not in RANKINGS:
        raise InputError(f"score must be one of {', '.join(RANKINGS)}, got {name!r}")


def check_method(name: str) -> None:
    if name not in get_args(Method):
        raise InputError(f"method must be one of {', '.join(get_args(Method))}, got {name!r}")
