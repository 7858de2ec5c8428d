"""How a model is run over pairs: the options that every function which does so takes."""

from collections.abc import Sequence
from typing import Literal, TypedDict

from tl_reward.data.pairs import Overlong
from tl_reward.interventions.protocol import Intervention


class RunOptions(TypedDict, total=False):
    """How a model is run over pairs, for every function that does.

    interventions: edits of the model under study (`tl_reward.interventions`), in their order. Whatever is asked of the model is asked of
        the edited one: its scores, its statistics, its gradients; what a function edits besides comes after them.
    max_tokens: tokens a batch; a prefix that transcripts share counts once. Default: as many as run fastest and fit.
    max_memory_gb: memory that a batch may take besides the model's weights, in GiB. Default: half of what is free.
    max_length: longest transcript, in tokens. Default: the model's context, or what fits in memory where that does not (`reading` of a
        result says so where a pair was left out for it).
    overlong: what to do with longer ones; see `encoding.encode_pairs`.
    on_bad: "drop" leaves out pairs that the model's chat template refuses, and counts them; by default they are an error.
    """

    interventions: Sequence[Intervention]
    max_tokens: int | None
    max_memory_gb: float | None
    max_length: int | None
    overlong: Overlong
    on_bad: Literal["error", "drop"]
