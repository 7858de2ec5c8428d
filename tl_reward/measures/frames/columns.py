"""Results as pandas tables: the columns that several of them have, with their units in their names. pandas comes at the first use."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_reward.measures.intervals import Estimate

if TYPE_CHECKING:
    from pandas import DataFrame
else:
    DataFrame = Any

REWARD, SHARE = "reward units", "share"


def frame(columns: Mapping[str, Any]) -> DataFrame:
    """A table of columns: tensors and arrays are flattened, lists are as they are, anything else is in every row."""
    import pandas

    return pandas.DataFrame({name: np.asarray(each).ravel() if hasattr(each, "shape") else each for name, each in columns.items()})


def joined(frames: Sequence[DataFrame]) -> DataFrame:
    """Tables one below the other; what one of them lacks is nan there."""
    import pandas

    return pandas.concat(frames, ignore_index=True)


def places(shape: Sequence[int], names: Sequence[str] = ("layer", "neuron")) -> dict[str, np.ndarray]:
    """The index of each number of a tensor, in the order in which it is flattened.

    >>> {name: each.tolist() for name, each in places((2, 2)).items()}
    {'layer': [0, 0, 1, 1], 'neuron': [0, 1, 0, 1]}
    """
    return dict(zip(names, np.indices(tuple(shape)).reshape(len(names), -1), strict=True))


def estimates(name: str, unit: str, found: Sequence[Estimate]) -> dict[str, list[float]]:
    """A column of numbers, and those of both ends of their 95 % intervals.

    >>> estimates("accuracy", "share", [Estimate(0.5, 0.25, 0.75, 12)])
    {'accuracy (share)': [0.5], 'accuracy, low (share)': [0.25], 'accuracy, high (share)': [0.75]}
    """
    parts = {name: 0, f"{name}, low": 1, f"{name}, high": 2}
    return {f"{part} ({unit})": [each[i] for each in found] for part, i in parts.items()}
