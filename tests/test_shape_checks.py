"""What tests check of shapes and types at every call (helpers/shape_checks.py) is still found where a function was right before."""

import functools
from dataclasses import dataclass

import pytest
import torch
from beartype import beartype
from helpers.shape_checks import jaxtyped
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.scoring import score

CHECKED = functools.partial(jaxtyped, typechecker=beartype)


@CHECKED
def first_column(matrix: Float[Tensor, "rows columns"], kept: int) -> Float[Tensor, " rows"]:
    return matrix[:kept, 0]


def test_the_package_is_checked():
    assert hasattr(score, "checked") and hasattr(HookedRewardModel.from_hf, "checked")


def test_a_wrong_shape_is_found_after_a_right_one():
    first_column(torch.zeros(4, 2), 4)
    with pytest.raises(TypeCheckError, match=r"parameters of .*first_column"):
        first_column(torch.zeros(4, 2, 1), 4)
    with pytest.raises(TypeCheckError, match=r"parameters of .*first_column"):
        first_column(torch.zeros(4, 2, dtype=torch.int64), 4)
    with pytest.raises(TypeCheckError, match=r"return value of .*first_column"):
        first_column(torch.zeros(4, 2), 3)


def test_arguments_are_checked_before_the_call():
    @CHECKED
    def refuse(matrix: Float[Tensor, "rows columns"]) -> None:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        refuse(torch.ones(1, 1))
    with pytest.raises(TypeCheckError):
        refuse(torch.ones(1))


def test_shapes_agree_across_arguments_of_an_inner_function():
    def outer(a: Tensor, b: Tensor) -> Tensor:
        @CHECKED
        def inner(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
            return a + b

        return inner(a, b)

    assert outer(torch.ones(3), torch.ones(3)).tolist() == [2, 2, 2]
    with pytest.raises(TypeCheckError):
        outer(torch.ones(3), torch.ones(1))


def test_entries_of_lists_and_fields_of_dataclasses_are_checked():
    @CHECKED
    def total(parts: list[Float[Tensor, " n"]]) -> Float[Tensor, " n"]:
        return sum(parts[1:], parts[0])

    @CHECKED
    @dataclass
    class Scores:
        margins: Float[Tensor, " pairs"]

    total([torch.ones(2), torch.ones(2)])
    Scores(torch.ones(2))
    with pytest.raises(TypeCheckError):
        total([torch.ones(2, 1), torch.ones(2, 1)])
    with pytest.raises(TypeCheckError):
        Scores(torch.ones(2, 1))


def test_a_shape_that_depends_on_a_value_is_checked_for_every_value():
    @CHECKED
    def first(matrix: Float[Tensor, "rows columns"], kept: int) -> Float[Tensor, "{kept} columns"]:
        return matrix[: min(kept, 2)]

    assert first(torch.ones(4, 2), 1).shape == (1, 2) and first(torch.ones(4, 2), 2).shape == (2, 2)
    with pytest.raises(TypeCheckError, match=r"return value of .*first"):
        first(torch.ones(4, 2), 3)
