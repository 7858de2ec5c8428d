"""PEFT adapters that hold a head, of any task type; that hold embeddings; and over a reward model: beside PEFT's own rewards."""

import json
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from jaxtyping import Float
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, Qwen2Config

from tl_reward.data.text import NoTemplate
from tl_reward.errors import InputError
from tl_reward.model.checkpoints import adapters, check_reward_model, outputs_of
from tl_reward.model.reward_model import HookedRewardModel, load
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model

TOKENS = torch.arange(1, 40)[None]
FILE, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model, a language model, and one whose linear layers have biases; each with a tokenizer."""
    folder, tiny = tmp_path_factory.mktemp("bases"), tiny_hf_model()
    tiny.save_pretrained(folder / "reward")
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(LlamaConfig(**tiny.config.to_dict())).save_pretrained(folder / "language")
    sizes = {
        key: value
        for key, value in tiny.config.to_dict().items()
        if key in Qwen2Config().to_dict() and key not in ("layer_types", "model_type")
    }
    biased = AutoModelForCausalLM.from_config(Qwen2Config(**sizes))
    for name, parameter in biased.named_parameters():
        parameter.data = torch.randn_like(parameter) if name.endswith("bias") else parameter
    biased.save_pretrained(folder / "biased")
    for name in ("reward", "language", "biased"):
        byte_tokenizer().save_pretrained(folder / name)
    return folder


def trained(folder: Path, base: Path, config: PeftConfig, *, more_tokens: int = 0, **saving: Any) -> Float[Tensor, " row"]:
    """Writes an adapter all of whose numbers differ from the base's, and gives PEFT's own reward of `tokens_up_to` its vocabulary."""
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    if more_tokens:
        model.resize_token_embeddings(257 + more_tokens, mean_resizing=False)
    peft_model = get_peft_model(model, config)
    for parameter in peft_model.parameters():
        parameter.data = parameter.data + 0.3 * torch.randn_like(parameter) if parameter.requires_grad else parameter.data
    peft_model.peft_config["default"].base_model_name_or_path = str(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft_model.save_pretrained(str(folder), **saving)
    with torch.no_grad():
        return peft_model.eval()(tokens_up_to(257 + more_tokens)).logits[:, 0]


def tokens_up_to(vocabulary: int) -> torch.Tensor:
    return torch.cat([TOKENS, torch.arange(250, vocabulary)[None]], dim=1)


def same(folder: Path, wanted: Float[Tensor, " row"], *, vocabulary: int = 257, base: Path | None = None) -> HookedRewardModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoTemplate)
        ours = load(folder, base=base, device="cpu")
    torch.testing.assert_close(ours(tokens_up_to(vocabulary)), wanted, atol=1e-4, rtol=0)
    assert ours.cfg.d_vocab == check_reward_model(folder, base=base)["d_vocab"] == vocabulary
    return ours


def says(folder: Path, **change: Any) -> None:
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def renamed(folder: Path, rename: Callable[[str], str]) -> None:
    save_file({rename(key): value for key, value in load_file(folder / FILE).items()}, folder / FILE)


def lora(**options: Any) -> LoraConfig:
    return LoraConfig(**({"r": 2, "target_modules": ["q_proj", "down_proj"]} | options))


class Case(NamedTuple):
    config: Callable[[], PeftConfig]
    base: str = "language"
    more_tokens: int = 0
    saving: Mapping[str, Any] = {}


HEAD = {"modules_to_save": ["score"]}
CASES: dict[str, Case] = {
    # What TRL's documentation tells its users to write.
    "no task type": Case(lambda: lora(**HEAD)),
    "sequence classification": Case(lambda: lora(task_type="SEQ_CLS")),
    "token classification": Case(lambda: lora(task_type="TOKEN_CLS")),
    "feature extraction": Case(lambda: lora(**HEAD, task_type="FEATURE_EXTRACTION")),
    "all linear layers": Case(lambda: lora(task_type="SEQ_CLS", target_modules="all-linear")),
    "a language model's head too": Case(lambda: lora(modules_to_save=["score", "lm_head"])),
    "a reward model's head again": Case(lambda: lora(task_type="SEQ_CLS"), "reward"),
    "over a reward model": Case(lambda: lora(), "reward"),
    "over a reward model, on its head": Case(lambda: lora(target_modules=["q_proj", "score"]), "reward"),
    "embeddings": Case(lambda: lora(modules_to_save=["score", "embed_tokens"])),
    "embeddings saved beside": Case(lambda: lora(task_type="SEQ_CLS"), saving={"save_embedding_layers": True}),
    "embeddings changed": Case(lambda: lora(task_type="SEQ_CLS", target_modules=["q_proj", "embed_tokens"])),
    "a new token": Case(lambda: lora(task_type="SEQ_CLS"), more_tokens=1),
    "new tokens, embeddings": Case(lambda: lora(modules_to_save=["score", "embed_tokens"]), more_tokens=3),
    "new tokens, embeddings changed": Case(lambda: lora(task_type="SEQ_CLS", target_modules=["q_proj", "embed_tokens"]), more_tokens=2),
    "some tokens": Case(lambda: lora(**HEAD, trainable_token_indices={"embed_tokens": [5, 7]})),
    "some tokens, new ones": Case(lambda: lora(**HEAD, trainable_token_indices={"embed_tokens": [257, 258]}), more_tokens=2),
    "DoRA": Case(lambda: lora(**HEAD, use_dora=True)),
    "rsLoRA": Case(lambda: lora(task_type="SEQ_CLS", use_rslora=True, lora_alpha=3)),
    "PiSSA": Case(lambda: lora(task_type="SEQ_CLS", init_lora_weights="pissa")),
    "ranks by pattern": Case(lambda: lora(task_type="SEQ_CLS", rank_pattern={"q_proj": 3}, alpha_pattern={"q_proj": 5})),
    "LoHa": Case(lambda: LoHaConfig(r=2, task_type="SEQ_CLS", target_modules=["q_proj"])),
    "LoKr": Case(lambda: LoKrConfig(r=2, task_type="SEQ_CLS", target_modules=["q_proj"])),
    "IA3": Case(lambda: IA3Config(modules_to_save=["score"], target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])),
    "no biases": Case(lambda: lora(task_type="SEQ_CLS", bias="none"), "biased"),
    "its layers' biases": Case(lambda: lora(task_type="SEQ_CLS", bias="lora_only"), "biased"),
    "its layers' biases, DoRA": Case(lambda: lora(task_type="SEQ_CLS", bias="lora_only", use_dora=True), "biased"),
    "all biases": Case(lambda: lora(**HEAD, bias="all", target_modules=["v_proj", "gate_proj"]), "biased"),
    "biases of its own": Case(lambda: lora(**HEAD, lora_bias=True, target_modules=["q_proj"]), "biased"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_rewards_are_pefts(name: str, bases: Path, tmp_path: Path):
    config, base, more, saving = CASES[name]
    wanted = trained(tmp_path / "adapter", bases / base, config(), more_tokens=more, **saving)
    same(tmp_path / "adapter", wanted, vocabulary=257 + more)


def test_a_task_type_decides_nothing_where_the_file_holds_a_head(bases: Path, tmp_path: Path):
    """PEFT's class for causal language models takes no sequence classifier today; trainers of earlier versions did."""
    wanted = trained(tmp_path / "adapter", bases / "language", lora(**HEAD))
    for task in ("CAUSAL_LM", "SEQ_2_SEQ_LM", "QUESTION_ANS", None):
        says(tmp_path / "adapter", task_type=task)
        same(tmp_path / "adapter", wanted)


def test_names_that_earlier_versions_wrote(bases: Path, tmp_path: Path):
    config = lora(modules_to_save=["score", "embed_tokens"], use_dora=True)
    wanted = trained(tmp_path / "now", bases / "language", config)
    found = load_file(tmp_path / "now" / FILE)
    whole = ("score.", "embed_tokens.")
    for i, between in enumerate((".modules_to_save.", ".modules_to_save.default.")):
        folder = tmp_path / f"earlier{i}"
        folder.mkdir()
        (folder / CONFIG).write_text((tmp_path / "now" / CONFIG).read_text())
        saved = {key.replace(".weight", f"{between}weight") if any(part in key for part in whole) else key for key in found}
        assert sum(between in key for key in saved) == 2
        keys = {key: key.replace(".weight", f"{between}weight") if any(part in key for part in whole) else key for key in found}
        keys |= {
            key: key.replace("lora_A.", "lora_A.default.").replace("lora_B.", "lora_B.default.")
            for key in found
            if "lora_A" in key or "lora_B" in key
        }
        keys |= {key: f"{key}.default.weight" for key in found if key.endswith("lora_magnitude_vector")}
        before = {f"base_model.model.{part}.original_module.weight": torch.ones(3) for part in ("score", "model.embed_tokens")}
        save_file({keys[key]: value for key, value in found.items()} | before, folder / FILE)
        same(folder, wanted)


@pytest.mark.parametrize("head", ["v_head", "value_head", "regression_head"])
def test_a_head_by_another_name(head: str, bases: Path, tmp_path: Path):
    wanted = trained(tmp_path / "adapter", bases / "language", lora(**HEAD))
    renamed(tmp_path / "adapter", lambda key: key.replace("model.score.", f"model.{head}."))
    for saved in ([head], None):
        says(tmp_path / "adapter", modules_to_save=saved)
        same(tmp_path / "adapter", wanted)


def test_another_base_of_another_machine(bases: Path, tmp_path: Path):
    wanted = trained(tmp_path / "adapter", bases / "language", lora(**HEAD))
    says(tmp_path / "adapter", base_model_name_or_path="/their/machine/base")
    with pytest.raises(InputError, match=r"its base was not found: /their/machine/base.*say so with base=…"):
        load(tmp_path / "adapter", device="cpu")
    same(tmp_path / "adapter", wanted, base=bases / "language")


def without(*parts: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda found: {key: value for key, value in found.items() if not any(part in key for part in parts)}


def with_more(**more: Tensor) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda found: found | {f"base_model.model.{key.replace('__', '.')}": value for key, value in more.items()}


class Refused(NamedTuple):
    config: Callable[[], PeftConfig]
    says: str
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda found: found
    base: str = "language"
    more_tokens: int = 0
    task_type: str | None = None


NO_HEAD = r"^\S+adapter: adapter has no reward head \(adapter_model\.safetensors holds "
NONE = r"no score\.weight; task type None\)"
REFUSED: dict[str, Refused] = {
    "no head anywhere": Refused(
        lambda: lora(), NO_HEAD + NONE + r", and its base has none \(.*LlamaForCausalLM.*modules_to_save=\[\"score\"\].*base=…"
    ),
    "a language model's": Refused(
        lambda: lora(), NO_HEAD + r"no score\.weight; task type CAUSAL_LM\), and its base has none", task_type="CAUSAL_LM"
    ),
    # The head that it changes was drawn at random when it was trained, and nobody has kept it.
    "changes to a random head": Refused(
        lambda: lora(target_modules=["q_proj", "score"]), NO_HEAD + "changes to a score layer, and not the score.weight"
    ),
    "all linear layers without a task type": Refused(lambda: lora(target_modules="all-linear"), NO_HEAD + "changes to a score layer"),
    "the head lost": Refused(
        lambda: lora(task_type="SEQ_CLS"),
        NO_HEAD + r"no score\.weight; task type SEQ_CLS\), and its config says that one was trained",
        without("score"),
        "reward",
    ),
    "the head lost, no task type": Refused(lambda: lora(**HEAD), NO_HEAD + NONE + ", and its config", without("score"), "reward"),
    "a head with a bias": Refused(
        lambda: lora(**HEAD),
        "the adapter's head has score.bias, score.weight; a head that is one weight",
        with_more(score__bias=torch.ones(1)),
    ),
    "three outputs": Refused(
        lambda: lora(**HEAD), "found 3 outputs in the adapter's head; a reward model has 1", with_more(score__weight=torch.ones(3, 32))
    ),
    "a head of another width": Refused(lambda: lora(**HEAD), "does not fit base .*language", with_more(score__weight=torch.ones(1, 31))),
    "two heads": Refused(lambda: lora(**HEAD), "holds score.weight twice, and the two differ", with_more(v_head__weight=torch.ones(1, 32))),
    "embeddings of another width": Refused(
        lambda: lora(**HEAD), "does not fit base .*language", with_more(model__embed_tokens__weight=torch.ones(260, 31))
    ),
    "embeddings lost": Refused(
        lambda: lora(modules_to_save=["score", "embed_tokens"]), "does not fit base .*language", without("embed_tokens")
    ),
    "new tokens without embeddings": Refused(
        lambda: lora(**HEAD, trainable_token_indices={"embed_tokens": [257]}),
        "does not fit base .*language",
        without("base_layer", "original_module"),
        more_tokens=1,
    ),
    "new tokens without what they change": Refused(
        lambda: lora(task_type="SEQ_CLS", target_modules=["embed_tokens"]),
        "does not fit base .*language",
        without("base_layer"),
        more_tokens=1,
    ),
    "a layer that the base lacks": Refused(
        lambda: lora(**HEAD),
        "1 weights have no place, 0 are missing",
        with_more(model__layers__2__mlp__up_proj__lora_A__weight=torch.ones(2, 32)),
    ),
    "a layer lost": Refused(lambda: lora(**HEAD), "0 weights have no place, 2 are missing", without("layers.1.self_attn.q_proj")),
    "biases that the base lacks": Refused(lambda: lora(**HEAD, lora_bias=True), "does not fit base .*the base layer has no bias"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_reward_model_is_refused_in_a_line(name: str, bases: Path, tmp_path: Path):
    case = REFUSED[name]
    trained(tmp_path / "adapter", bases / case.base, case.config(), more_tokens=case.more_tokens)
    if case.task_type:
        says(tmp_path / "adapter", task_type=case.task_type)
    save_file(case.change(load_file(tmp_path / "adapter" / FILE)), tmp_path / "adapter" / FILE)
    with pytest.raises(InputError, match=case.says) as caught:
        load(tmp_path / "adapter", device="cpu")
    assert len(str(caught.value).splitlines()) == 1
    if "no reward head" in str(caught.value):  # known before memory is taken
        with pytest.raises(InputError, match=case.says):
            check_reward_model(tmp_path / "adapter")


def test_a_base_that_only_says_it_has_a_head(bases: Path, tmp_path: Path):
    """transformers would draw one at random."""
    trained(tmp_path / "adapter", bases / "reward", lora())
    base = shutil.copytree(bases / "reward", tmp_path / "base")
    save_file(without("score")(load_file(base / "model.safetensors")), base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"the file lacks 1 weights of this architecture \(score\.weight\)"):
        load(tmp_path / "adapter", base=base, device="cpu")


def of_several(base: Path, folder: Path, *names: str) -> Path:
    shutil.copytree(base, folder)
    config = AutoModelForSequenceClassification.from_pretrained(base).config
    config.num_labels = len(names)
    config.id2label = dict(enumerate(names))
    config.save_pretrained(folder)
    weights = load_file(base / "model.safetensors")
    weights["score.weight"] = torch.randn(len(names), 32)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_the_outputs_of_an_adapter_are_its_bases(bases: Path, tmp_path: Path):
    base = of_several(bases / "reward", tmp_path / "base", "helpful", "honest", "harmless")
    for name, config in (("without", lora()), ("own", lora(**HEAD))):
        trained(tmp_path / name, bases / "reward", config)
        found = load(tmp_path / name, base=base, device="cpu").outputs
        assert found == outputs_of(tmp_path / name, base=base) == (("reward",) if name == "own" else ("helpful", "honest", "harmless"))


OTHER_BASES: dict[str, tuple[Callable[[dict[str, Tensor]], dict[str, Tensor]], dict[str, Any]]] = {
    "a cost": (lambda w: w | {"score_head.weight": torch.ones(1, 32), "score_head.bias": torch.ones(1)}, {"score_type": "cost"}),
    "an MLP": (
        lambda w: (
            w
            | {f"score.{i}.weight": torch.ones(n, 32) for i, n in ((0, 32), (2, 1))}
            | {f"score.{i}.bias": torch.ones(n) for i, n in ((0, 32), (2, 1))}
        ),
        {},
    ),
    "a bias": (lambda w: w | {"score.weight": torch.ones(1, 32), "score.bias": torch.ones(1)}, {"architectures": ["RewardModel"]}),
    "normalised": (lambda w: w | {"score.weight": torch.ones(1, 32)}, {"normalize_reward": True, "mean": 0.0, "std": 2.5}),
    "normalised, no head": (lambda w: w, {"normalize_reward": True, "mean": 0.0, "std": 2.5}),
}


@pytest.mark.parametrize("own", [False, True], ids=["the base's head", "its own head"])
@pytest.mark.parametrize("name", OTHER_BASES)
def test_no_adapter_is_merged_onto_a_head_of_another_kind(name: str, own: bool, bases: Path, tmp_path: Path):
    trained(tmp_path / "adapter", bases / "reward", lora(**(HEAD if own else {})))
    base = shutil.copytree(bases / "reward", tmp_path / "base")
    change, config = OTHER_BASES[name]
    save_file(change(without("score")(load_file(base / "model.safetensors"))), base / "model.safetensors", metadata={"format": "pt"})
    (base / "config.json").write_text(json.dumps(json.loads((base / "config.json").read_text()) | config))
    for check in (lambda: load(tmp_path / "adapter", base=base, device="cpu"), lambda: check_reward_model(tmp_path / "adapter", base=base)):
        with pytest.raises(InputError, match=r"base has a head of its own kind, which no adapter is merged onto"):
            check()


def test_what_its_file_does_not_tell_is_in_its_name():
    """Which tokens are trained, a LoHa's share, how the base was changed at the start: each changes the reward, and no weight tells."""
    kinds = [lora(), lora(trainable_token_indices=[5]), lora(trainable_token_indices=[6]), lora(init_lora_weights="pissa")]
    kinds += [LoHaConfig(r=2, target_modules=["q_proj"], alpha=alpha) for alpha in (1, 2)]
    assert len({adapters.scale_of(kind) for kind in kinds}) == len(kinds)
    # As it always was for those that have none of these, so that earlier runs know their models.
    assert set(json.loads(adapters.scale_of(lora()))) == {
        "peft_type",
        "lora_alpha",
        "alpha_pattern",
        "rank_pattern",
        "use_rslora",
        "fan_in_fan_out",
    }


def test_an_adapter_without_a_template_warns_once(bases: Path, tmp_path: Path):
    trained(tmp_path / "bare", bases / "language", lora(**HEAD))
    with pytest.warns(NoTemplate, match="bare: its tokenizer has no chat template"):
        load(tmp_path / "bare", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoTemplate)
        load(tmp_path / "bare", device="cpu")  # once said
        trained(tmp_path / "ours", bases / "language", lora(**HEAD))
        (tmp_path / "ours" / "training.json").write_text("{}")
        load(tmp_path / "ours", device="cpu")
        trained(tmp_path / "chats", bases / "language", lora(**HEAD))
        tokenizer = byte_tokenizer()
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
        tokenizer.save_pretrained(tmp_path / "chats")  # beside the adapter, and not the base's
        model = load(tmp_path / "chats", device="cpu")
    assert model.tokenizer is not None and model.tokenizer.chat_template == tokenizer.chat_template
