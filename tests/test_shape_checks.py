"""The checks of types and shapes that tests put on the package: what they refuse, and that they are there."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal, cast

import jaxtyping
import pytest
import torch
from helpers.shape_checks import check
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from tl_reward.measures import scores
from tl_reward.measures.neuron_statistics import NeuronStatistics
from tl_reward.sites import Site


@check
def outer(a: Float[Tensor, " left"], b: Float[Tensor, "left right"], size: int = 0) -> Float[Tensor, "left right"]:
    return a[:, None] * b if not size else torch.zeros(size, size)


@check
def count(n: "int", how: Literal["up", "down"] | None = None) -> list[str]:
    return [str(n)] if n > 0 else cast(Any, str(n))


@check
def counted(n: int) -> Iterator[int]:
    yield from range(n)


@dataclasses.dataclass(frozen=True)
class Pair:
    a: Float[Tensor, " same"]
    b: Float[Tensor, " same"]


Pair.__init__ = check(Pair.__init__)
TWO, THREE = torch.ones(2), torch.ones(3)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: outer(THREE, torch.ones(2, 3)),  # one name, two sizes
        lambda: outer(THREE.to(torch.int64), torch.ones(3, 2)),
        lambda: outer(TWO, torch.ones(2, 3), 2),  # the result is of other sizes than the arguments
        lambda: outer(cast(Any, [1.0]), torch.ones(1, 3)),
        lambda: count(cast(Any, "1")),
        lambda: count(0),
        lambda: count(1, cast(Any, 3)),
        lambda: counted(cast(Any, "1")),
        lambda: Pair(TWO, THREE),
    ],
)
def test_what_is_not_as_it_is_annotated_is_refused(wrong: Callable[[], Any]):
    with pytest.raises(TypeCheckError):
        wrong()


def test_what_is_as_it_is_annotated_is_given_back():
    assert outer(TWO, torch.ones(2, 3)).shape == (2, 3)
    assert outer(THREE, torch.ones(3, 2)).shape == (3, 2)  # each call has sizes of its own
    assert count(1, cast(Any, "sideways")) == ["1"]  # which words are allowed, the package checks itself
    assert [*counted(2)] == [0, 1]
    assert Pair(TWO, TWO).a is TWO


def test_they_can_be_switched_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    assert count(0) == cast(Any, "0") and Pair(TWO, THREE).b is THREE


def test_the_package_is_checked():
    with pytest.raises(TypeCheckError):
        Site(cast(Any, "0"), "mlp_post")
    with pytest.raises(TypeCheckError):
        NeuronStatistics(n_layers=1, n_units=2).count(torch.ones(3))
    own = [value for value in vars(scores).values() if callable(value) and getattr(value, "__module__", "") == scores.__name__]
    functions = [value for value in own if not isinstance(value, type)]
    assert functions and all(hasattr(value, "__wrapped__") for value in functions)
