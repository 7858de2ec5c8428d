"""A `HookedRewardModel` computes what Hugging Face computes, and what TransformerLens' tools expect."""

import copy
import json
from pathlib import Path
from typing import cast

import pytest
import torch
from helpers.architectures import PARITY, hf_model
from torch import Tensor
from transformer_lens import patching
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForCausalLM, MixtralConfig, PreTrainedModel

from tl_reward.errors import InputError
from tl_reward.model.architectures import architecture_of
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model

TOKENS = torch.randint(1, 257, (4, 12), generator=torch.Generator().manual_seed(0))
LENGTHS = [12, 7, 1, 10]


@pytest.fixture(params=PARITY, scope="module")
def hf(request: pytest.FixtureRequest) -> PreTrainedModel:
    return hf_model(request.param)


def _padded(side: str) -> tuple[Tensor, Tensor]:
    tokens, mask = torch.zeros_like(TOKENS), torch.zeros_like(TOKENS)
    for row, length in enumerate(LENGTHS):
        at = slice(0, length) if side == "right" else slice(12 - length, 12)
        tokens[row, at], mask[row, at] = TOKENS[row, :length], 1
    return tokens, mask


def _one_by_one(hf: PreTrainedModel) -> Tensor:
    return torch.cat([hf(TOKENS[row : row + 1, :length]).logits[:, 0] for row, length in enumerate(LENGTHS)])


def test_rewards_equal_hugging_face_one_by_one(hf, hooked):
    ours = torch.cat([hooked(TOKENS[row : row + 1, :length]) for row, length in enumerate(LENGTHS)])
    torch.testing.assert_close(ours, _one_by_one(hf), atol=1e-4, rtol=0)
    assert ours.std() > 0.01  # a model that gives every row the same reward would pass anything


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_rows_reward_does_not_depend_on_its_batch_or_padding(hf, hooked, side):
    tokens, mask = _padded(side)
    torch.testing.assert_close(hooked(tokens, attention_mask=mask), _one_by_one(hf), atol=1e-4, rtol=0)


def test_per_token_rewards_equal_rewards_of_prefixes(hf, hooked):
    per_token = hooked(TOKENS[:1], "reward_tokens")[0]
    prefixes = torch.cat([hf(TOKENS[:1, : end + 1]).logits[:, 0] for end in range(12)])
    torch.testing.assert_close(per_token, prefixes, atol=1e-4, rtol=0)


def test_decomposed_residual_stream_sums_to_the_reward(hooked):
    reward, cache = hooked.run_with_cache(TOKENS)
    parts, labels = cache.decompose_resid(apply_ln=True, pos_slice=-1, return_labels=True)
    assert len(labels) == len(parts) > hooked.cfg.n_layers
    total = (parts @ hooked.W_U[:, 0]).sum(0) + hooked.b_U[0]
    torch.testing.assert_close(total, reward, atol=1e-4, rtol=0)
    raw = cache.decompose_resid(apply_ln=False, pos_slice=-1)
    attributed = cache.logit_attrs(raw, tokens=torch.zeros(len(TOKENS), dtype=torch.long), pos_slice=-1)
    torch.testing.assert_close(attributed.sum(0) + hooked.b_U[0], reward, atol=1e-4, rtol=0)


def test_the_final_norm_is_folded_into_the_head(hf, hooked):
    # Unfolded, `logit_attrs` would sum to another reward, and say nothing.
    assert (hooked.ln_final.w == 1).all()
    assert (hooked.W_U[:, 0] - hf.score.weight[0]).abs().max() > 1e-2


def test_transformer_lens_patching_runs(hooked):
    clean, corrupted = TOKENS[:2], TOKENS[2:]
    reward, cache = hooked.run_with_cache(clean)
    result = patching.get_act_patch_mlp_out(hooked, corrupted, cache, lambda rewards: rewards.mean())
    assert result.shape == (hooked.cfg.n_layers, 12)
    assert (result - hooked(corrupted).mean()).abs().max() > 1e-3
    # Nothing is left to differ once the last layer's MLP and what it reads, at the read-out, are the clean run's.
    whole = patching.get_act_patch_block_every(hooked, corrupted, cache, lambda rewards: rewards.mean())
    assert whole.shape == (3, hooked.cfg.n_layers, 12)
    last = [("blocks.2.hook_resid_post", lambda resid, hook: cache[hook.name])]
    torch.testing.assert_close(hooked.run_with_hooks(corrupted, fwd_hooks=last), reward, atol=1e-5, rtol=0)


def test_save_pretrained_loads_in_hugging_face_and_here(hf, hooked, tmp_path):
    hooked.save_pretrained(tmp_path / "model")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(theirs(TOKENS[:1]).logits[:, 0], hf(TOKENS[:1]).logits[:, 0], atol=1e-4, rtol=0)
    ours = HookedRewardModel.from_pretrained(tmp_path / "model", device="cpu")
    torch.testing.assert_close(ours(TOKENS), hooked(TOKENS), atol=1e-4, rtol=0)
    assert not list(tmp_path.rglob("*.bin"))
    with pytest.raises(InputError, match="not empty"):
        hooked.save_pretrained(tmp_path / "model")


def test_text_is_read_as_its_tokenizer_reads_it(tiny):
    text = "\n\nHuman: Hi\n\nAssistant: Hello!"
    ids = torch.tensor([byte_tokenizer()(text)["input_ids"]])
    torch.testing.assert_close(tiny(text), tiny(ids))
    torch.testing.assert_close(tiny.to_tokens(text), ids)
    both = tiny([text, "\n\nHuman: A longer question, for padding\n\nAssistant: Yes."])
    torch.testing.assert_close(both[:1], tiny(text), atol=1e-5, rtol=0)


def test_the_readout_is_the_last_real_token_although_it_is_the_pad_token(tiny):
    # SmolLM2's pad token is its end token: pooling by `input_ids != pad` would read one token too early here.
    tokens = torch.tensor([[5, 6, 7, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    torch.testing.assert_close(tiny(tokens, attention_mask=mask), tiny(torch.tensor([[5, 6, 7, 0]])), atol=1e-5, rtol=0)
    assert (tiny(tokens, attention_mask=mask) - tiny(torch.tensor([[5, 6, 7]]))).abs() > 1e-3


def test_padded_tokens_without_a_mask_are_refused(tiny):
    with pytest.raises(InputError, match="pass attention_mask"):
        tiny(torch.tensor([[5, 6, 0, 0], [5, 6, 7, 0]]))
    with pytest.raises(InputError, match="pass attention_mask"):
        tiny(torch.tensor([[0, 6, 7], [5, 6, 7]]))
    assert tiny(torch.tensor([[5, 6, 0], [5, 7, 0]])).shape == (2,)  # every row ends alike: a real end token


def test_centring_the_head_would_zero_every_reward_and_is_refused():
    model = HookedRewardModel.from_hf(tiny_hf_model())
    before = model(TOKENS)
    with pytest.raises(InputError, match="center_unembed"):
        model.process_weights_()
    torch.testing.assert_close(model(TOKENS), before)
    model.process_weights_(center_unembed=False)  # the other folds keep the reward
    torch.testing.assert_close(model(TOKENS), before, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["loss", "both", "nonsense"])
def test_a_next_token_loss_is_refused(tiny, kind):
    with pytest.raises(InputError, match="return_type"):
        tiny(TOKENS, kind)


def test_hook_points_see_and_edit_rewards_and_activations(tiny):
    reward, cache = tiny.run_with_cache(TOKENS)
    torch.testing.assert_close(cache["hook_reward"], reward)
    assert cache["hook_reward_tokens"].shape == (4, 12)
    mlp = tiny.blocks[1].mlp
    gate = torch.nn.functional.silu(cache["blocks.1.mlp.hook_pre"])
    torch.testing.assert_close(cache["blocks.1.mlp.act_fn.hook_act"], gate)
    torch.testing.assert_close(cache["blocks.1.mlp.hook_post"], gate * cache["blocks.1.mlp.hook_pre_linear"] + mlp.b_in)
    assert tiny.run_with_hooks(TOKENS, fwd_hooks=[("hook_reward", lambda r, hook: r * 0 + 3)]).tolist() == [3.0] * 4


def test_a_copy_has_hook_points_of_its_own(tiny):
    twin = copy.deepcopy(tiny)
    zeroed = twin.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.mlp.act_fn.hook_act", lambda a, hook: a * 0)])
    assert (zeroed - tiny(TOKENS)).abs().max() > 1e-3


def test_a_copy_has_weights_of_its_own(hooked):
    """In every part that computes by a method of ours: attention, MLP, a layer's norms, head."""
    twin, before = copy.deepcopy(hooked), hooked(TOKENS)
    for name in ("blocks.0.attn.W_O", "blocks.1.mlp.W_out", "blocks.2.ln1.w", "unembed.W_U"):
        start = twin(TOKENS)
        weight = twin.get_parameter(name)
        weight.data += torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
        assert (twin(TOKENS) - start).abs().max() > 1e-4, name
    assert torch.equal(hooked(TOKENS), before)


def test_starting_at_a_later_layer_gives_the_same_reward(tiny):
    _, mask = _padded("right")
    reward, cache = tiny.run_with_cache(TOKENS, attention_mask=mask)
    again = tiny(cache["resid_pre", 1], start_at_layer=1, attention_mask=mask)
    torch.testing.assert_close(again, reward, atol=1e-5, rtol=0)


def test_bfloat16_keeps_its_dtype_and_stays_near_float32():
    hf = hf_model("llama")
    half = HookedRewardModel.from_hf(copy.deepcopy(hf).bfloat16())
    assert half.W_U.dtype == torch.bfloat16
    assert (half(TOKENS).float() - HookedRewardModel.from_hf(hf)(TOKENS)).abs().max() < 0.1


def test_from_base_draws_the_head_from_its_seed(tmp_path):
    config = LlamaConfig(vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    a, b, c = (HookedRewardModel.from_base(tmp_path, seed=seed, device="cpu") for seed in (0, 0, 1))
    assert torch.equal(a.W_U, b.W_U) and not torch.equal(a.W_U, c.W_U)
    assert 0.01 < a.W_U.std() < 0.03
    with pytest.raises(InputError, match=r"LlamaForCausalLM.*ForSequenceClassification"):
        HookedRewardModel.from_pretrained(tmp_path)


def test_checkpoints_that_are_no_reward_model_say_what_they_are(tmp_path):
    with pytest.raises(InputError, match="no model found"):
        HookedRewardModel.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(InputError, match=r"'bert' is not supported.*llama.*gpt_neox"):
        HookedRewardModel.from_pretrained(tmp_path)
    config = tiny_hf_model().config
    config.architectures = ["LlamaForSequenceClassification"]
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="weights could not be loaded"):
        HookedRewardModel.from_pretrained(tmp_path)


def test_weights_that_a_file_lacks_are_not_made_up(tmp_path):
    from safetensors.torch import load_file, save_file

    for lacking in ("score.weight", "model.layers.1.mlp.up_proj.weight"):
        folder = tmp_path / lacking
        tiny_hf_model().save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        weights = load_file(folder / "model.safetensors")
        del weights[lacking]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InputError, match=rf"lacks 1 weights.*{lacking}"):
            HookedRewardModel.from_pretrained(folder)


def test_every_weight_is_on_the_device_that_was_asked_for(monkeypatch):
    monkeypatch.setattr("tl_reward.devices.devices", lambda: ["cpu", "meta"])
    model = HookedRewardModel.from_hf(tiny_hf_model(), device="meta")
    assert {parameter.device.type for parameter in (*model.parameters(), *model.buffers())} == {"meta"}


def test_rewards_of_a_bfloat16_model_are_float32():
    model = HookedRewardModel.from_hf(tiny_hf_model().bfloat16())
    reward = model(TOKENS)
    assert reward.dtype == torch.float32
    assert (reward != reward.bfloat16().float()).any()


def test_a_beginning_token_that_the_text_already_has_is_not_added_again():
    from helpers.tiny_tokenizers import byte_tokenizer as with_options

    from tl_reward.data.encoding import encode
    from tl_reward.data.pairs import Message
    from tl_reward.data.text import render

    hf = tiny_hf_model()
    hf.resize_token_embeddings(300)
    model = HookedRewardModel.from_hf(hf, with_options(bos=True, chat=True))
    transcript = (Message("user", "Hi"), Message("assistant", "Hello."))
    assert model.tokenizer is not None
    (row,) = encode([transcript], model.tokenizer)
    assert row.ids.count(model.tokenizer.bos_token_id) == 1
    torch.testing.assert_close(model(render(transcript, model.tokenizer).text), model(torch.tensor([row.ids])))


def test_pickled_weights_are_not_read(tmp_path):
    model = tiny_hf_model()
    model.config.architectures = ["LlamaForSequenceClassification"]
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="weights could not be loaded"):
        HookedRewardModel.from_pretrained(tmp_path)


def test_experts_are_refused_with_the_reason():
    config = MixtralConfig(num_local_experts=2, hidden_size=32, intermediate_size=48, num_hidden_layers=1, vocab_size=257)
    with pytest.raises(InputError, match=r"'mixtral' has experts, which is not supported: .*\(layer, expert, neuron\)"):
        architecture_of(config)


_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 16}
_PLAIN = {"rope_type": "default", "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp_bias": True}, "mlp_bias"),
        ({"hidden_act": "tanh"}, "activation 'tanh'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}}, "needs original_max_position_embeddings"),
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "rotary scaling 'longrope' is not supported"),
        ({"rope_parameters": _YARN | {"mscale": 0.7}}, "'yarn' with mscale is not supported"),
        ({"rope_parameters": {"full_attention": _PLAIN, "sliding_attention": _YARN}}, "'yarn' in layers with a window is not supported"),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}, "sliding_window": 4}, "'linear' beside layers"),
    ],
)
def test_configs_that_transformer_lens_does_not_compute_are_refused(change, message):
    model = tiny_hf_model()
    for key, value in change.items():
        setattr(model.config, key, value)
    with pytest.raises(InputError, match=message):
        HookedRewardModel.from_hf(model)


def _adapter(folder: Path, *, base: Path, layers: int = 2) -> PreTrainedModel:
    """Writes a random LoRA adapter with a head, and returns the Hugging Face model that it makes of its base."""
    from peft import LoraConfig, get_peft_model

    model = tiny_hf_model()
    model.model.layers = model.model.layers[:layers]
    peft_model = get_peft_model(
        model, LoraConfig(r=2, task_type="SEQ_CLS", target_modules=["down_proj", "q_proj"], modules_to_save=["score"])
    )
    torch.manual_seed(1)
    for name, parameter in peft_model.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            parameter.data = 0.3 * torch.randn_like(parameter)
    peft_model.peft_config["default"].base_model_name_or_path = str(base)
    peft_model.save_pretrained(str(folder))
    return cast(PreTrainedModel, peft_model.merge_and_unload().eval())


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny_hf_model().save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_an_adapter_is_merged_on_load(base, tmp_path):
    merged = _adapter(tmp_path / "adapter", base=base)
    ours = HookedRewardModel.from_pretrained(tmp_path / "adapter", device="cpu")
    torch.testing.assert_close(ours(TOKENS[:1]), merged(TOKENS[:1]).logits[:, 0], atol=1e-4, rtol=0)
    assert (ours(TOKENS[:1]) - HookedRewardModel.from_hf(tiny_hf_model())(TOKENS[:1])).abs() > 1e-2


def test_an_adapter_for_another_base_is_refused(base, tmp_path):
    _adapter(tmp_path / "short", base=base, layers=1)  # PEFT itself only warns of the layer that the adapter lacks
    with pytest.raises(InputError, match="does not fit base"):
        HookedRewardModel.from_pretrained(tmp_path / "short")
    _adapter(tmp_path / "adapter", base=base)
    hf_model("llama").save_pretrained(tmp_path / "other")
    byte_tokenizer().save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="does not fit base"):
        HookedRewardModel.from_pretrained(tmp_path / "adapter", base=tmp_path / "other")


def test_a_pickled_or_unreadable_adapter_is_refused(base, tmp_path):
    _adapter(tmp_path / "pickled", base=base)
    (tmp_path / "pickled" / "adapter_model.safetensors").rename(tmp_path / "pickled" / "adapter_model.bin")
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors there; a pickle"):
        HookedRewardModel.from_pretrained(tmp_path / "pickled")
    (tmp_path / "pickled" / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match=r"adapter_config\.json is not readable"):
        HookedRewardModel.from_pretrained(tmp_path / "pickled")


def test_an_adapter_on_the_hub_is_read_from_its_snapshot(base, tmp_path, monkeypatch):
    from tl_reward.model.checkpoints import folders

    merged = _adapter(tmp_path / "adapter", base=base)
    asked = []
    monkeypatch.setattr(folders, "snapshot_download", lambda name, **k: asked.append((name, k)) or str(tmp_path / "adapter"))
    ours = HookedRewardModel.from_pretrained("someone/adapter", device="cpu", revision="v2")
    torch.testing.assert_close(ours(TOKENS[:1]), merged(TOKENS[:1]).logits[:, 0], atol=1e-4, rtol=0)
    assert [(name, options["revision"]) for name, options in asked] == [("someone/adapter", "v2")]
    assert not any("bin" in pattern for pattern in asked[0][1]["allow_patterns"])
    assert ours.cfg.model_name == "someone/adapter"
