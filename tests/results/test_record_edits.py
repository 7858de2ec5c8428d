"""What a run keeps of edits, pair by pair."""

import pytest
import torch

from tl_reward.analyses.ablation_curves import ablation_curve
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.results.found_on import found_on
from tl_reward.results.record_edits import record_ablation
from tl_reward.results.store import Results

PAIRS = load_pairs("embedded", split="test", limit=3)


@pytest.fixture
def kept(tiny):
    generator = torch.Generator().manual_seed(0)
    ranking = torch.rand(tiny.cfg.n_layers, tiny.cfg.d_mlp, generator=generator)
    curve = ablation_curve(tiny, PAIRS, ranking, fractions=(0.1, 0.5), draws=1)
    results = Results()
    found = found_on("others", PAIRS[:1])
    record_ablation(results, "tiny", "some pairs", curve, score="random", site="mlp_post", found=found, pairs=PAIRS)
    return curve, results


def test_an_ablation_keeps_the_rewards_of_each_edit(kept, tmp_path):
    curve, results = kept
    results.save(tmp_path / "run")
    loaded = Results.load(tmp_path / "run")
    for side in ("chosen", "rejected"):
        rewards = loaded.tensor("ablation", "tiny · some pairs", side)
        assert rewards.dtype == torch.float32 and rewards.shape == (3, len(PAIRS))
        for row, scores in zip(rewards, [curve.clean, *(point.ranked for point in curve.points)], strict=True):
            torch.testing.assert_close(row.double(), torch.from_numpy(getattr(scores, side)), rtol=1e-6, atol=1e-6)


def test_rewards_of_other_edits_are_refused(kept):
    _, results = kept
    (entry,) = results.section("ablation").values()
    with pytest.raises(InputError, match=r"chosen has the shape \[2, 3\], not \[3, 3\]"):
        Results().add("ablation", "tiny · some pairs", entry, {side: torch.zeros(2, 3) for side in ("chosen", "rejected")})
