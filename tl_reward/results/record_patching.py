"""How patching and the reward lens enter a run: what their sections of `Results` hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from tl_reward.analyses.attribution import Attribution
from tl_reward.analyses.exact_effects import Comparison
from tl_reward.analyses.model_patching import ModelPatching
from tl_reward.analyses.pair_patching import PairPatching
from tl_reward.analyses.reward_lens import RewardLens
from tl_reward.data.pairs import PreferencePair
from tl_reward.data.text import token_texts
from tl_reward.results.record_edits import tested_pairs_that_found
from tl_reward.results.record_neurons import record_attribution
from tl_reward.results.store import Results


def record_patching(results: Results, model: str, dataset: str, found: PairPatching, *, tokens: Sequence[Mapping[str, str]] = ()) -> None:
    """One entry a cell, with the positions that were patched; what moved in each pair as tensors `noised` and `denoised` [cell, pair],
    float64.

    Args:
        tokens: of a single pair, patched token by token, the text of each place from the first patched one on: {chosen, rejected}.
    """
    entry = {"model": model, "dataset": dataset} | found.to_json() | ({"tokens": list(tokens)} if tokens else {})
    tensors = {"noised": torch.from_numpy(found.noised), "denoised": torch.from_numpy(found.denoised)}
    results.add("patching", f"{model} · {dataset}", entry, tensors)


def record_model_patching(
    results: Results,
    model: str,
    source_model: str,
    dataset: str,
    found: ModelPatching,
    *,
    ranking: str,
    site: str,
    where: str,
    source: Mapping[str, Any],
    pairs: Sequence[PreferencePair],
) -> None:
    """A curve over the share of neurons that are patched.

    Args:
        ranking: what ranked the neurons.
        source: where they were found: `dataset`, and `pair_hashes`.
        pairs: the tested pairs.
    """
    entry = {
        "model": model,
        "source_model": source_model,
        "dataset": dataset,
        "ranking": ranking,
        "site": site,
        "where": where,
        "found_on": source["dataset"],
        "tested_pairs_that_found": tested_pairs_that_found(source, pairs),
    }
    results.add("model_patching", f"{source_model} into {model} · {dataset}", entry | found.to_json())


def record_gain(results: Results, model: str, source_model: str, dataset: str, found: Attribution, comparison: Comparison) -> None:
    """The estimate that ranks neurons to patch, and its agreement with exact patches, as an attribution: effects are margins that
    patching *takes away*."""
    effect = Attribution(-found.effect, found.error, found.pairs, found.prompts)
    about = {"gradient": f"attribution patching from {source_model}"}
    record_attribution(results, f"{source_model} into {model}", dataset, {"gradient": effect}, comparison, about=about)


def record_lens(
    results: Results, model: str, dataset: str, found: RewardLens, tokenizer: PreTrainedTokenizerBase, *, show: int = 3
) -> None:
    """Margins as a tensor `margins` [depth, pair], float64; of the first `show` pairs also the reward at every token, with its text."""
    shown = [
        {
            "id": pair_id,
            "shared": curve.shared,
            "decided_at_token": curve.decided_at(),
            "chosen": {"tokens": token_texts(curve.chosen_ids, tokenizer)[curve.shared :], "reward": curve.chosen[curve.shared :].tolist()},
            "rejected": {
                "tokens": token_texts(curve.rejected_ids, tokenizer)[curve.shared :],
                "reward": curve.rejected[curve.shared :].tolist(),
            },
        }
        for pair_id, curve in list(zip(found.scores[0].ids, found.curves, strict=True))[:show]
    ]
    entry = {"model": model, "dataset": dataset, "shown": shown} | found.to_json()
    results.add("lens", f"{model} · {dataset}", entry, {"margins": torch.from_numpy(found.margins())})
