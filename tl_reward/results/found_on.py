"""Whether neurons are tested on other pairs than those that found them."""

from tl_reward.data.pairs import pair_hash
from tl_reward.data.readers import GivenPairs, as_pairs
from tl_reward.results.sections import FoundOn, Tested


def found_on(dataset: str, pairs: GivenPairs) -> FoundOn:
    """Says which pairs found some neurons, for the `record_…` of what tests them."""
    return {"dataset": dataset, "pair_hashes": [pair_hash(pair) for pair in as_pairs(pairs)]}


def tested(found: FoundOn, pairs: GivenPairs) -> Tested:
    """What an entry of a test says of where its neurons come from.

    Args:
        pairs: the tested pairs.
    """
    hashes = set(found["pair_hashes"])
    return {"found_on": found["dataset"], "tested_pairs_that_found": sum(pair_hash(pair) in hashes for pair in as_pairs(pairs))}
