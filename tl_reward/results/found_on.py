"""Whether neurons are tested on other pairs than those that found them."""

from tl_reward.data.pairs import pair_hash
from tl_reward.data.readers import GivenPairs, as_pairs
from tl_reward.results.sections import FoundOn, Tested


def found_on(dataset: str, pairs: GivenPairs, output: str = "") -> FoundOn:
    """Says which pairs found some neurons, for the `record_…` of what tests them.

    Args:
        output: by which output of the model, as `Attribution.output` and `Scores.output` call it.
    """
    told: FoundOn = {"dataset": dataset, "pair_hashes": [pair_hash(pair) for pair in as_pairs(pairs)]}
    return {**told, "output": output} if output else told


def tested(found: FoundOn | None, pairs: GivenPairs, output: str) -> Tested:
    """What an entry of a test says of where its neurons come from.

    Args:
        found: None where somebody named them.
        pairs: the tested pairs.
        output: the one that the test is of.
    """
    if found is None:
        return {"found_on": "neurons that were named", "tested_pairs_that_found": None}
    hashes = set(found["pair_hashes"])
    told: Tested = {"found_on": found["dataset"], "tested_pairs_that_found": sum(pair_hash(pair) in hashes for pair in as_pairs(pairs))}
    by = found.get("output", "")
    return {**told, "found_by_output": by} if by not in ("", output) else told
