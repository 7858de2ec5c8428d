"""Published reward models, each laid out as its family publishes it, against what its own modelling code computes.

The layouts and the references are in `helpers.published`: they were written from the published code, and know nothing of the reader.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.published import tokenizers
from helpers.published.families import CAPPED, MATRIX, PROCESS, REWARDS, SEVERAL
from helpers.published.family import Family
from helpers.published.unknown import UNKNOWN, Unknown
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModelForTokenClassification

import tl_reward
from tl_reward import HookedRewardModel, InputError, Message, PreferencePair


def chat(*turns: str) -> tuple[Message, ...]:
    return tuple(Message(("user", "assistant")[i % 2], turn) for i, turn in enumerate(turns))


# Of different lengths, all longer than the windows; two have two turns, so that a gate that looks for the prompt's end finds two of them.
CHATS = (
    chat("Is it?", "Yes."),
    chat("Name two rivers of Europe.", "The Rhine and the Danube, to name two of many."),
    chat("And?", "What?", "Another one, please!", "No, sorry."),
    chat("And?", "What?", "Another one, please!", "The Elbe."),
)
PAIRS = [
    PreferencePair("rivers", chosen=CHATS[1], rejected=chat(CHATS[1][0].content, "Two rivers.")),
    PreferencePair("another", chosen=CHATS[3], rejected=CHATS[2]),
]
# Hugging Face has the class: what is compared with it are the references.
KNOWN_TO_HF = tuple(
    f for f in (*MATRIX, CAPPED) if f.architecture.endswith(("ForSequenceClassification", "ForTokenClassification", "ForCausalLM"))
)
KNOWN_TO_HF = tuple(f for f in KNOWN_TO_HF if f.head.shapes(4).keys() <= {"score.weight", "score.bias"} and f.name != "silent")


def each(families: Sequence[Family]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("family", families, ids=lambda family: family.name)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published")


@pytest.fixture
def folder(family: Family, root: Path) -> Path:
    """Where the family's checkpoint is. It is written once."""
    folder = root / family.name
    return folder if folder.exists() else family.write(folder)


@pytest.fixture(scope="module")
def models() -> dict[str, HookedRewardModel]:
    return {}


@pytest.fixture
def model(family: Family, folder: Path, models: dict[str, HookedRewardModel]) -> HookedRewardModel:
    """What the reader makes of it, once for all tests: none changes it."""
    if family.name not in models:
        models[family.name] = HookedRewardModel.from_pretrained(folder, device="cpu", **family.options)
    return models[family.name]


def refused_in_one_line(error: BaseException) -> str:
    message = str(error)
    assert "\n" not in message and len(message) < 700
    return message


def assert_close(actual: object, expected: object) -> None:
    """Within 1e-4: what float32 leaves, of rewards of about 1 to 10."""
    torch.testing.assert_close(torch.as_tensor(actual).float(), torch.as_tensor(expected).float(), atol=1e-4, rtol=0.0)


def test_the_matrix_is_wide() -> None:
    assert len(MATRIX) >= 30 and len({family.name for family in MATRIX}) == len(MATRIX)


@each(KNOWN_TO_HF)
def test_references_are_hugging_faces_where_it_has_the_class(family: Family, folder: Path) -> None:
    by_token = family.architecture.endswith("ForTokenClassification")
    kind: Any = AutoModelForTokenClassification if by_token else AutoModelForSequenceClassification
    kind = AutoModelForCausalLM if "head" in family.options else kind
    model, report = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, trust_remote_code=False)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for each_chat in CHATS:
        tokens = family.tokens(each_chat)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens])).logits[0]
        if family in PROCESS:
            assert_close(family.per_token(folder, tokens), logits[:, 1] - logits[:, 0])
        elif family.options:
            plus, *minus = map(int, family.options["head"].removeprefix("token:").split("-"))
            assert_close(family.reward(folder, tokens), logits[-1, plus] - (logits[-1, minus[0]] if minus else 0.0))
        else:
            assert_close(family.reward(folder, tokens), logits[-1, 0] if by_token else logits[0])


@each(REWARDS)
def test_rewards_are_the_published_ones(family: Family, folder: Path, model: HookedRewardModel) -> None:
    expected = [family.reward(folder, family.tokens(each_chat)) for each_chat in CHATS]
    texts = [family.text(each_chat) for each_chat in CHATS]
    for each_chat, text, reward in zip(CHATS, texts, expected, strict=True):
        assert_close(model(torch.tensor([family.tokens(each_chat)])), [reward])
        assert_close(model(text), [reward])
    assert_close(model(texts), expected)  # padded on the right
    assert_close(model(texts, padding_side="left"), expected)


@each(REWARDS)
def test_rewards_of_pairs_are_the_published_ones(family: Family, folder: Path, model: HookedRewardModel) -> None:
    """Packed, after the chat template, and after what the published code writes behind that."""
    scores = tl_reward.score(model, PAIRS)
    assert_close(scores.chosen, [family.reward(folder, family.tokens(pair.chosen)) for pair in PAIRS])
    assert_close(scores.rejected, [family.reward(folder, family.tokens(pair.rejected)) for pair in PAIRS])


@each(SEVERAL)
def test_each_output_is_the_published_one(family: Family, folder: Path) -> None:
    expected = torch.stack([family.outputs(folder, family.tokens(each_chat)) for each_chat in CHATS])
    model = HookedRewardModel.from_pretrained(folder, device="cpu", output=family.names[1])
    assert model.outputs[: len(family.names)] == family.names and model.output == family.names[1]
    texts = [family.text(each_chat) for each_chat in CHATS]
    assert_close(model(texts), expected[:, 1])
    for i, name in enumerate(family.names):
        model.output = name if i % 2 else i
        assert_close(model(texts), expected[:, i])
    model.output = {family.names[0]: 0.5, family.names[-1]: -2.0}
    assert_close(model(texts), 0.5 * expected[:, 0] - 2.0 * expected[:, -1])
    model.output = family.names[2]
    assert_close(tl_reward.score(model, PAIRS).chosen, [family.outputs(folder, family.tokens(pair.chosen))[2] for pair in PAIRS])


@each([family for family in SEVERAL if family.head.reward is None])
def test_several_outputs_without_a_published_reward_are_asked_for(family: Family, folder: Path) -> None:
    with pytest.raises(InputError, match="output"):
        tl_reward.score(HookedRewardModel.from_pretrained(folder, device="cpu"), PAIRS)


@each(PROCESS)
def test_process_rewards_are_the_published_probabilities(family: Family, folder: Path, model: HookedRewardModel) -> None:
    texts = [f"{family.text(each_chat)}First.{tokenizers.STEP}Second, longer.{tokenizers.STEP}" for each_chat in CHATS[:2]]
    for text in texts:
        tokens = family.tokenizer(text, add_special_tokens=False)["input_ids"]
        marked = torch.tensor(tokens) == tokenizers.STEP_OF_BYTES
        found = model(torch.tensor([tokens]), return_type="reward_tokens")[0]
        assert marked.sum() == 2
        assert_close(found[marked], family.per_token(folder, tokens)[marked])
        assert_close(found[marked].sigmoid(), family.per_token(folder, tokens)[marked].sigmoid())


@each(REWARDS)
def test_a_head_has_a_direction_where_it_is_linear(family: Family, model: HookedRewardModel) -> None:
    """The final residual stream over the norm's scale, projected on it, is the reward but for a constant."""
    if not family.head.is_linear:
        with pytest.raises(InputError) as refused:
            _ = model.reward_direction
        refused_in_one_line(refused.value)
        return
    tokens = torch.tensor([family.tokens(CHATS[0]), family.tokens(chat("Is it?", "No!!"))])
    rewards, cache = model.run_with_cache(tokens)
    normed = cache["ln_final.hook_normalized"][:, -1]
    along = normed @ model.reward_direction
    assert_close(along[0] - along[1], rewards[0] - rewards[1])  # a bias falls out


@pytest.mark.parametrize("unknown", UNKNOWN, ids=lambda unknown: unknown.name)
def test_unknown_layouts_are_refused_in_one_line_that_names_what_was_found(unknown: Unknown, tmp_path: Path) -> None:
    unknown.write(tmp_path)
    with pytest.raises(InputError) as refused:
        HookedRewardModel.from_pretrained(tmp_path, device="cpu")
    message = refused_in_one_line(refused.value)
    assert str(tmp_path) in message and any(found in message for found in unknown.found), message


@each(REWARDS)
def test_a_saved_model_gives_the_same_rewards_or_is_not_saved(
    family: Family, folder: Path, model: HookedRewardModel, tmp_path: Path
) -> None:
    try:
        model.save_pretrained(tmp_path / "saved")
    except InputError as refused:
        refused_in_one_line(refused)
        return
    again = HookedRewardModel.from_pretrained(tmp_path / "saved", device="cpu")
    texts = [family.text(each_chat) for each_chat in CHATS[:2]]
    assert_close(again(texts), [family.reward(folder, family.tokens(each_chat)) for each_chat in CHATS[:2]])
    assert_close(tl_reward.score(again, PAIRS).chosen, [family.reward(folder, family.tokens(pair.chosen)) for pair in PAIRS])


@each([family for family in SEVERAL if family.head.reward is None])
def test_a_saved_model_has_the_same_outputs_or_is_not_saved(family: Family, folder: Path, tmp_path: Path) -> None:
    try:
        HookedRewardModel.from_pretrained(folder, device="cpu", output=1).save_pretrained(tmp_path / "saved")
    except InputError as refused:
        refused_in_one_line(refused)
        return
    again = HookedRewardModel.from_pretrained(tmp_path / "saved", device="cpu", output=2)
    tokens = family.tokens(CHATS[0])
    assert len(again.outputs) == len(family.names)
    assert_close(again(torch.tensor([tokens])), [family.outputs(folder, tokens)[2]])


BY_NAME = {family.name: family for family in MATRIX}
ONE_OF_EACH_LAYOUT = ("trl-value-head", "llama-factory", "athene", "ultrarm", "beaver-reward-normalised", "grm-sftreg")
ONE_OF_EACH_LAYOUT += ("inf-orm", "armorm", "qrm", "urm", "dpa", "qwen-math-prm", "trl-prm")


@each([BY_NAME[name] for name in ONE_OF_EACH_LAYOUT])
def test_a_head_of_numbers_that_are_not_finite_is_refused(family: Family, tmp_path: Path) -> None:
    family.write(tmp_path)
    key = [key for key in family.head.shapes(36) if not key.endswith(("count", "num_batches_tracked"))][-1]
    for file in tmp_path.glob("*.safetensors"):
        weights = load_file(file)
        if key in weights:
            weights[key].view(-1)[0] = torch.nan
            save_file(weights, file, {"format": "pt"})
    with pytest.raises(InputError) as refused:
        HookedRewardModel.from_pretrained(tmp_path, device="cpu", **family.options)
    assert key in refused_in_one_line(refused.value)


@pytest.mark.parametrize("head", ["token:", "token:262", "token:-1", "token:89-89", "token:1-2-3", "token:no such token", "score", "yes"])
def test_what_is_no_token_of_the_vocabulary_is_no_head(head: str, root: Path) -> None:
    family = BY_NAME["nemotron-hf"]
    folder = root / family.name if (root / family.name).exists() else family.write(root / family.name)
    with pytest.raises(InputError) as refused:
        HookedRewardModel.from_pretrained(folder, device="cpu", head=head)
    assert "head" in refused_in_one_line(refused.value)


ATHENE, ARMOR_RM, QRM = (BY_NAME[name] for name in ("athene", "armorm", "qrm"))


@each([CAPPED])
def test_capped_logits_are_capped_or_refused(family: Family, folder: Path) -> None:
    try:
        model = HookedRewardModel.from_pretrained(folder, device="cpu", **family.options)
    except InputError as refused:
        refused_in_one_line(refused)
        return
    assert_close(
        model([family.text(each_chat) for each_chat in CHATS]), [family.reward(folder, family.tokens(each_chat)) for each_chat in CHATS]
    )


@each([ATHENE])
def test_athene_is_read_at_its_last_reading_token_wherever_that_is(family: Family, folder: Path, model: HookedRewardModel) -> None:
    tokens = [*family.tokens(CHATS[0]), 65, 66]
    assert_close(model(torch.tensor([tokens])), [family.reward(folder, tokens)])
    with pytest.raises(InputError) as refused:
        model(torch.tensor([tokens[:5]]))  # the published code finds no place to read at
    refused_in_one_line(refused.value)


@each([ARMOR_RM, QRM])
def test_a_gate_without_the_end_of_a_prompt_is_refused(family: Family, model: HookedRewardModel) -> None:
    with pytest.raises(InputError) as refused:
        model(torch.tensor([[128000, 65, 66, 128009]]))  # the published code finds no place to read at
    refused_in_one_line(refused.value)


def test_a_config_that_lies_about_its_head_is_not_believed(root: Path) -> None:
    """GRM's finetuned models have `score`, and a config that still tells of the net that they were made from."""
    config = json.loads((next(f for f in MATRIX if f.name == "grm-ft").write(root / "lies") / "config.json").read_text())
    assert config["vhead_layer_type"] == "mlp"
    model = HookedRewardModel.from_pretrained(root / "lies", device="cpu")
    assert model.outputs == ("reward",) and model.reward_direction.shape == (model.cfg.d_model,)
