"""Does attribution predict what ablation does? Rank correlation, sign and precision of one against the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from tl_reward.errors import InputError, summary_of
from tl_reward.measures.frames.columns import DataFrame, frame
from tl_reward.measures.intervals import Estimate
from tl_reward.measures.json_types import AgreementJson, PrecisionJson
from tl_reward.neurons import NeuronSet


@dataclass(frozen=True)
class Agreement:
    """How well estimated effects of `n` neurons agree with exact ones, each figure with its 95 % bootstrap interval over neurons.

    Attributes:
        spearman, pearson: correlations, in [-1, 1]; nan where one side is constant.
        sign: share of neurons whose effects have the same sign.
        precision: of the k neurons with the largest estimated effect in size, the share that is among the k largest exact ones, by k.
    """

    n: int
    spearman: Estimate
    pearson: Estimate
    sign: Estimate
    precision: dict[int, Estimate]

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a figure, none of which has a unit, with its interval and the count of neurons."""
        found = {"spearman": self.spearman, "pearson": self.pearson, "sign": self.sign}
        found |= {f"precision at {k}": each for k, each in self.precision.items()}
        columns = {name: [getattr(each, name) for each in found.values()] for name in ("value", "low", "high")}
        return frame({"figure": [*found], **columns, "neurons": self.n})

    def largest_precision(self) -> float:
        """At the larger k; nan where there is none."""
        return self.precision[max(self.precision)].value if self.precision else np.nan

    def to_json(self) -> AgreementJson:
        return {
            "neurons": self.n,
            "spearman": self.spearman.to_json_or_none(),
            "pearson": self.pearson.to_json_or_none(),
            "sign": self.sign.to_json_or_none(),
            "precision": {str(k): value.to_json_or_none() for k, value in self.precision.items()},
        }


def measure_agreement(estimated: np.ndarray, exact: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> Agreement:
    """Compares the effects of the same neurons by two methods, both [neuron].

    >>> exact = np.array([3.0, -2.0, 1.0, 0.5, 0.1, -0.2, 0.3, 0.7])
    >>> found = measure_agreement(exact**3, exact)
    >>> found.spearman.value, found.sign.value, found.precision[2].value
    (1.0, 1.0, 1.0)
    """
    if len(estimated) != len(exact):
        raise InputError(f"both methods must have the same neurons, got {len(estimated)} and {len(exact)}")
    if len(exact) < 3:
        raise InputError(f"agreement needs at least 3 neurons, got {len(exact)}")
    generator = np.random.default_rng(seed)
    draws = generator.integers(0, len(exact), size=(resamples, len(exact)))

    def estimate(figure: Any) -> Estimate:
        value = figure(estimated, exact)
        drawn = np.array([figure(estimated[index], exact[index]) for index in draws])
        return Estimate.of(value, drawn, len(exact))

    sizes = sorted({size for size in (len(exact) // 10, len(exact) // 4) if size >= 1})
    return Agreement(
        n=len(exact),
        spearman=estimate(lambda a, b: _correlation(stats.rankdata(a), stats.rankdata(b))),
        pearson=estimate(_correlation),
        sign=estimate(lambda a, b: float(np.mean(np.sign(a) == np.sign(b)))),
        precision={k: estimate(lambda a, b, k=k: _precision(a, b, k)) for k in sizes},
    )


# An error of 0.2 standard deviations between pairs, if it is independent of them, makes the interval of a mean 2 % wider.
MOST_ERROR, LEAST_CORRELATION = 0.2, 0.95


@dataclass(frozen=True)
class Precision:
    """In which precision matrices were multiplied, and what says that this is enough.

    Attributes:
        dtype: of the products, such as "bfloat16".
        own: of the model, and of all else that it computes.
        asked: whether half precision was asked for. Where `dtype` is the model's own all the same, it was no faster (`margins` is 0), or
            figures did not agree.
        margins: how many margins were computed in both.
        error: the root mean square of their differences, in standard deviations of the model's own; `largest` the largest difference, in
            reward units; `correlation` Spearman's. None where no margin was computed in both, or where all of them are the same.
        figures: what else was computed in both, by name: Spearman's correlation.
    """

    dtype: str
    own: str
    asked: bool = False
    margins: int = 0
    error: float | None = None
    largest: float | None = None
    correlation: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> PrecisionJson:
        return {
            "dtype": self.dtype,
            "own": self.own,
            "asked": self.asked,
            "margins": self.margins,
            "error": self.error,
            "largest": self.largest,
            "correlation": self.correlation,
            "figures": dict(self.figures),
        }


def compare_margins(
    own: Float[np.ndarray, "condition pair"], half: Float[np.ndarray, "condition pair"], found: Precision, dtype: str
) -> Precision:
    """What the same margins in two precisions say: `dtype`, that of `half`, where they agree, and else the model's own.

    They agree where under each condition their differences are at most `MOST_ERROR` standard deviations of its margins (root mean square),
    and the ranks of all correlate by `LEAST_CORRELATION` (Spearman). A condition with small margins must not hide behind the others.
    """
    found = replace(found, margins=own.size, largest=float(np.abs(half - own).max()))
    if own.size < 3 or own.std(axis=1).min() == 0 or half.std() == 0:
        return found
    error = max(_error(*each) for each in zip(own, half, strict=True))
    correlation = _correlation(stats.rankdata(own), stats.rankdata(half))
    agree = error <= MOST_ERROR and correlation >= LEAST_CORRELATION
    return replace(found, error=error, correlation=correlation, dtype=dtype if agree else found.own)


def compare_figures(name: str, own: np.ndarray, half: np.ndarray, found: Precision) -> Precision:
    """What one figure of many neurons, in two precisions, says: the model's own where they do not agree, by the limits of margins."""
    correlation = _correlation(stats.rankdata(own), stats.rankdata(half))
    agree = correlation >= LEAST_CORRELATION and _error(own, half) <= MOST_ERROR  # not so where a correlation is nan
    return replace(found, figures={**found.figures, name: correlation}, dtype=found.dtype if agree else found.own)


def _error(own: np.ndarray, half: np.ndarray) -> float:
    """The root mean square of the differences, in standard deviations of the first."""
    return float(np.sqrt(np.mean((half - own) ** 2)) / own.std())


class NeuronSample(NamedTuple):
    """The neurons with the largest scores in size, and others drawn at random from all; one may be in both."""

    top: NeuronSet
    random: NeuronSet


def sample_neurons(scores: Mapping[str, np.ndarray], *, top: int, random: int, seed: int = 0) -> NeuronSample:
    """The `top` neurons by each absolute score, and a `random` sample: one of extremes alone would flatter any method.

    Args:
        scores: by method, [layer, neuron].
    """
    if not scores or len({score.shape for score in scores.values()}) > 1:
        raise InputError(f"estimates must have one shape, got {', '.join(str(score.shape) for score in scores.values()) or 'none'}")
    shape = next(iter(scores.values())).shape
    size = shape[0] * shape[1]
    if not (0 <= top <= size and 0 <= random <= size):
        raise InputError(f"top and random must be in [0, {size}], got {top} and {random}")
    orders = [np.argsort(-np.abs(score), axis=None, kind="stable")[:top] for score in scores.values()]
    drawn = np.random.default_rng(seed).choice(size, size=random, replace=False)
    return NeuronSample(*(NeuronSet((int(i) // shape[1], int(i) % shape[1]) for i in index) for index in (np.concatenate(orders), drawn)))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant side gives nan
        return float(np.corrcoef(a, b)[0, 1])


def _precision(a: np.ndarray, b: np.ndarray, k: int) -> float:
    first, other = (set(np.argsort(-np.abs(values), kind="stable")[:k].tolist()) for values in (a, b))
    return len(first & other) / k
