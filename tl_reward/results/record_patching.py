"""How patching and the reward lens enter a run: what their sections of `Results` hold."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedTokenizerBase

from tl_reward.analyses.attribution import Attribution
from tl_reward.analyses.exact_effects import Comparison
from tl_reward.analyses.model_patching import ModelPatching
from tl_reward.analyses.pair_patching import PairPatching
from tl_reward.analyses.reward_lens import RewardLens
from tl_reward.data.readers import GivenPairs
from tl_reward.data.text import token_texts
from tl_reward.errors import InputError
from tl_reward.measures.json_types import TokenPairJson
from tl_reward.measures.names import Method, labelled
from tl_reward.results.found_on import tested
from tl_reward.results.record_neurons import record_attribution
from tl_reward.results.sections import FoundOn, LensEntry, ModelPatchingEntry, PatchingEntry, ShownPair, entry_about, read
from tl_reward.results.store import Results


def record_patching(results: Results, model: str, dataset: str, found: PairPatching, *, tokens: Sequence[TokenPairJson] = ()) -> None:
    """One entry a cell, with the positions that were patched; what moved in each pair as tensors `noised` and `denoised` [cell, pair],
    float64.

    Args:
        tokens: of a single pair, patched token by token, the text of each place from the first patched one on: {chosen, rejected}.
    """
    about = entry_about(results.provenance, model, dataset, found.clean.output)
    entry: PatchingEntry = {**about, **read(found.reading), **found.to_json()}
    if tokens:
        entry["tokens"] = list(tokens)
    tensors = {"noised": torch.from_numpy(found.noised), "denoised": torch.from_numpy(found.denoised)}
    results.add("patching", f"{entry['model']} · {dataset}", entry, tensors)


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
    source: FoundOn,
    pairs: GivenPairs,
) -> None:
    """A curve over the share of neurons that are patched.

    Args:
        ranking: what ranked the neurons.
        source: where they were found: `dataset`, and `pair_hashes`.
        pairs: the tested pairs.
    """
    about = entry_about(results.provenance, model, dataset, found.curve.clean.output)
    entry: ModelPatchingEntry = {
        **about,
        "source_model": labelled(source_model, found.source.output),
        "ranking": ranking,
        "site": site,
        "where": where,
        **tested(source, pairs, about.get("output", "")),
        **read(found.reading),
        **found.to_json(),
    }
    results.add("model_patching", f"{entry['source_model']} into {entry['model']} · {dataset}", entry)


def record_gain(results: Results, model: str, source_model: str, dataset: str, found: Attribution, comparison: Comparison) -> None:
    """The estimate that ranks neurons to patch, and its agreement with exact patches, as an attribution: effects are margins that
    patching *takes away*.

    Args:
        comparison: `compare_gain_with_exact`, given the gain by the name "gradient", which is its method.
    """
    effect = replace(found, effect=-found.effect)
    about: dict[Method, str] = {"gradient": f"attribution patching from {source_model}"}
    record_attribution(results, f"{source_model} into {model}", dataset, {"gradient": effect}, comparison, about=about)


def record_lens(
    results: Results, model: str, dataset: str, found: RewardLens, tokenizer: PreTrainedTokenizerBase | None, *, show: int = 3
) -> None:
    """Margins as a tensor `margins` [depth, pair], float64; of the first `show` pairs also the reward at every token, with its text.

    Args:
        tokenizer: the model's own (`model.tokenizer`).

    Raises:
        InputError: the model has none.
    """
    if tokenizer is None:
        raise InputError(f"{model} has no tokenizer to write tokens as text; load it with one")
    shown: list[ShownPair] = [
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
    about = entry_about(results.provenance, model, dataset, found.scores[-1].output)
    entry: LensEntry = {**about, "shown": shown, **read(found.reading), **found.to_json()}
    results.add("lens", f"{entry['model']} · {dataset}", entry, {"margins": torch.from_numpy(found.margins())})
