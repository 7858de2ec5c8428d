"""What a batch takes is what was thought; and where it takes more, it is run in halves, or one line says so."""

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from helpers.memory import counted
from transformers import AutoModelForSequenceClassification

import tl_reward
from tl_reward.cli import main
from tl_reward.data.readers import load_pairs
from tl_reward.errors import OutOfMemory
from tl_reward.interventions.ablations import ScaleAblation, ZeroAblation
from tl_reward.interventions.patches import Patch, Source
from tl_reward.measures.neuron_statistics import NeuronStatistics
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.activations import stream
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.batches.budget import bytes_per_token
from tl_reward.running.scoring import score, sweep
from tl_reward.sites import Site

PAIRS = load_pairs("embedded", split="find", limit=6)
NEURONS = NeuronSet([(0, 3), (1, 7)])


# What a batch takes


def wide_model(dtype: torch.dtype, **other: Any) -> HookedRewardModel:
    """Wide enough that a batch's activations are more than all else."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = transformers.LlamaConfig(vocab_size=257, max_position_embeddings=512, pad_token_id=0, **sizes | other)
    config.num_labels = 1
    return HookedRewardModel.from_hf(AutoModelForSequenceClassification.from_config(config).to(dtype), byte_tokenizer())


def statistics(model: HookedRewardModel, pairs: Any, **options: Any) -> None:
    """What `discover` computes in its pass, without the tests of its differences after it."""

    def update(sums: NeuronStatistics, site: Site, activation: torch.Tensor) -> None:
        sums.update(site.layer, activation, torch.ones(1, 2, len(activation)))

    sums = NeuronStatistics(model.cfg.n_layers, 512)
    sites = [Site(layer, "mlp_post") for layer in range(model.cfg.n_layers)]
    stream(model, pairs, sites, lambda site, a, *_: update(sums, site, a), **options)


MEASURED: dict[str, Callable[..., Any]] = {
    "score": score,
    "sweep": lambda model, pairs, **options: sweep(model, pairs, [[ZeroAblation(NEURONS)], [ScaleAblation(NEURONS, 0.5)]], **options),
    "statistics": statistics,
    "attribute": tl_reward.attribute,
    "integrated": lambda model, pairs, **options: tl_reward.attribute(model, pairs, steps=2, **options),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", MEASURED)
def test_a_batch_takes_what_was_thought_and_not_a_third_of_it(name: str, dtype: torch.dtype):
    model = wide_model(dtype)
    with counted(model) as memory:
        MEASURED[name](model, PAIRS[:4], max_length=400, max_tokens=1024)
    gradients = name in ("attribute", "integrated")
    share = memory.peak / (1024 * bytes_per_token(model, 400, gradients=gradients))
    assert 0.33 < share < 1, share


def test_what_a_source_keeps_is_counted():
    model = wide_model(torch.float32)
    source = Source(model)
    source.expect([Site(layer, kind).hook_name for layer in range(4) for kind in ("mlp_post", "resid_post", "attn_out", "mlp_out")])
    conditions = [[Patch(source, [Site(2, "resid_post")], within_pair=True)]]
    assert source.bytes_per_token == 4 * (512 + 3 * 128) * 4
    thought = bytes_per_token(model, 400) + source.bytes_per_token
    encoded = encode_for(model, PAIRS[:4], max_length=400)
    with counted(model) as memory:
        sweep(model, encoded, conditions, max_memory_gb=1000 * thought / 2**30)
    assert 0.5 < memory.peak / (1000 * thought) < 1, memory.peak


# A batch that takes more


@contextmanager
def room_for(model: HookedRewardModel, tokens: int) -> Iterator[list[int]]:
    """A card on which a layer has room for so many tokens. Gives the sizes of what did not fit."""
    mlp = model.blocks[1].mlp
    forward, failed, seen = mlp.forward, [], []

    def limited(x: torch.Tensor) -> torch.Tensor:
        assert all(each() is None for each in seen), "what did not fit is still there when it is tried again"
        if x.shape[0] * x.shape[1] > tokens:
            failed.append(x.shape[0] * x.shape[1])
            seen.append(weakref.ref(x))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB")
        return forward(x)

    mlp.forward = limited
    try:
        yield failed
    finally:
        del mlp.forward


class Slow:
    """An edit that does not state per_token, so that transcripts come one a row."""

    def hooks(self, batch: Any) -> Any:
        return [("blocks.0.hook_mlp_out", lambda activation, hook: activation * 0.5)]


def conditions_of(kind: str, model: HookedRewardModel) -> list[Any]:
    if kind == "score":
        return [()]
    if kind == "padded":
        return [(), [Slow()]]
    if kind == "paired":
        source = Source(model)
        return [(), *([Patch(source, [Site(layer, "resid_post")], within_pair=True)] for layer in (0, 1))]
    return [(), [ZeroAblation(NEURONS)], [ScaleAblation(NEURONS, 0.5)]]


@pytest.mark.parametrize("kind", ["score", "sweep", "padded", "paired"])
def test_a_batch_that_does_not_fit_is_run_in_halves_with_one_warning(kind: str):
    model = tiny_reward_model()
    conditions = conditions_of(kind, model)
    expected = sweep(model, PAIRS, conditions, max_tokens=6000)
    with room_for(model, 10**9) as none, warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep(model, PAIRS, conditions, max_tokens=6000)
    assert none == []
    # The largest pair is the least that a paired batch holds, and side by side the first half of the conditions.
    with (
        room_for(model, 3000) as failed,
        pytest.warns(UserWarning, match=r"did not fit in memory on cpu, and is run in halves; max_t") as said,
    ):
        found = sweep(model, PAIRS, conditions, max_tokens=6000)
    assert len(failed) == len(said) >= 1
    for one, other in zip(expected, found, strict=True):
        assert other.chosen == pytest.approx(one.chosen, abs=1e-5) and other.rejected == pytest.approx(one.rejected, abs=1e-5)


def test_conditions_side_by_side_that_do_not_fit_run_one_after_the_other(tiny: HookedRewardModel):
    conditions = [[ScaleAblation(NEURONS, scale)] for scale in (0.0, 0.5, 2.0)]
    tokens = len(encode_for(tiny, PAIRS[:1]).rows[0].ids)
    expected = sweep(tiny, PAIRS[:1], conditions, max_tokens=8 * tokens)
    model = tiny_reward_model()
    with room_for(model, 3 * tokens) as failed, pytest.warns(UserWarning, match="run in halves"):
        found = sweep(model, PAIRS[:1], conditions, max_tokens=8 * tokens)
    assert len(failed) == 1
    assert [scores.margin.tolist() for scores in found] == [pytest.approx(scores.margin, abs=1e-5) for scores in expected]


HELPS = r"what helps: a smaller max_tokens or max_memory_gb, a shorter max_length, or a model in bfloat16$"


@pytest.mark.filterwarnings("ignore:a batch did not fit")
@pytest.mark.parametrize(
    "name", ["score", "discover", "attribute", "neuron_effects", "patch_pairs", "reward_lens", "collect_examples", "direct_attribution"]
)
def test_what_never_fits_is_one_line(name: str):
    model = tiny_reward_model()
    needs = {"neuron_effects": (NEURONS,), "collect_examples": (NEURONS,)}.get(name, ())
    with room_for(model, 100), pytest.raises(OutOfMemory, match=rf"^\w+: out of memory on cpu: 2 GiB more were wanted, and .*; {HELPS}"):
        getattr(tl_reward, name)(model, PAIRS, *needs, max_tokens=6000)
    assert not any(point.fwd_hooks for point in model.hook_points())
    assert score(model, PAIRS).margin == pytest.approx(score(tiny_reward_model(), PAIRS).margin, abs=1e-6)


@pytest.mark.filterwarnings("ignore:a batch did not fit")
def test_one_transcript_that_does_not_fit_is_tried_once():
    model = tiny_reward_model()
    with room_for(model, 10) as failed, pytest.raises(OutOfMemory):
        score(model, PAIRS[:1], max_tokens=max(len(row.ids) for row in encode_for(model, PAIRS[:1]).rows))
    assert len(failed) == 1


@pytest.mark.filterwarnings("ignore:a batch did not fit")
def test_memory_that_an_edit_takes_is_no_fault_of_the_edits(tiny: HookedRewardModel):
    class Big:
        per_token = True

        def hooks(self, batch: Any) -> Any:
            return [("blocks.0.hook_mlp_out", lambda activation, hook: activation + torch.empty(2**60))]

    class BigAtOnce(Big):
        def hooks(self, batch: Any) -> Any:
            return [torch.empty(2**60)]

    for edit in (Big(), BigAtOnce()):
        with pytest.raises(OutOfMemory, match=r"out of memory on cpu: .* GiB more were wanted"):
            score(tiny, PAIRS, interventions=[edit])


def test_the_command_says_it_with_its_options(tmp_path, capsys, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "model"
    tiny_reward_model().save_pretrained(folder)

    def full(*_: Any, **__: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    from tl_reward.model.layers import block

    monkeypatch.setattr(block.Block, "forward", full)
    with pytest.raises(SystemExit) as ended:
        main(["score", str(folder), "--limit", "2", "--out", str(tmp_path / "out")])
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2 and last.startswith("tl-reward: ") and "out of memory on cpu: 2 GiB more were wanted" in last
    assert "--max-tokens" in last and not (tmp_path / "out").exists()


def test_what_runs_out_outside_of_a_pass_is_one_line_too(tmp_path, capsys, monkeypatch: pytest.MonkeyPatch):
    from tl_reward.cli import entry

    def full(self: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(entry.DashboardCommand, "run", full)
    with pytest.raises(SystemExit):
        main(["dashboard", str(tmp_path)])
    assert "tl-reward: tl-reward: out of memory on cpu" in capsys.readouterr().err
