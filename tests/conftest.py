"""Tiny random reward models of every supported architecture, and the real ones."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
import transformers
from helpers.forked import Forks, make_root
from helpers.scripts import Scripts
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from tl_reward.errors import InputError
from tl_reward.model import embedded
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model, tiny_reward_model

TESTS = Path(__file__).parent
# Folders and files that take most of the time. They come first, so that of two processes none is left alone with one of them at the end.
DEAR = ("model/test_embedded_models.py", "experiments", "test_parallel.py", "study", "repairing", "model/test_training.py",
        "model/test_micro_batches.py", "interventions/test_patches.py", "attack", "show")  # fmt: skip
SLOW = (
    *DEAR[:-2], "model/test_head_layouts.py", "test_startup.py", "cli/test_program.py", "cli/test_commands.py", "cli/test_output_option.py",
    "cli/test_repair_command.py", "analyses/test_outputs.py", "analyses/test_exact_effects.py", "analyses/test_examples.py",
    "show/test_patching_page.py", "show/test_page.py", "show/test_repair_page.py", "show/test_how_made.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks, by folder, by fixture and by architecture. Here, since a conftest.py in a folder would take the name of this one, which tests
    import from."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if "real_base" in fixtures:
            item.add_marker("real")
        if _place(item, ("attack",)) == 0:
            item.add_marker("attack")
        if _place(item, SLOW) < len(SLOW) or fixtures & {"forks", "scripts"} or _of_another_architecture(item):
            item.add_marker("slow")
    items.sort(key=lambda item: _place(item, DEAR))


def _place(item: pytest.Item, names: Sequence[str]) -> int:
    """The index of the first of these that the test is in, or how many there are."""
    return next((i for i, name in enumerate(names) if item.path.is_relative_to(TESTS / name)), len(names))


def _of_another_architecture(item: pytest.Item) -> bool:
    """Of a test of every architecture, the first one is quick enough."""
    values = [value for value in getattr(getattr(item, "callspec", None), "params", {}).values() if isinstance(value, str)]
    return any(value in PARITY and value != next(iter(PARITY)) for value in values)


@pytest.fixture(scope="session")
def forked_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, in which `forks` runs commands."""
    return make_root(tmp_path_factory.mktemp("forked"))


@pytest.fixture(scope="session")
def forks(forked_root: Path) -> Iterator[Forks]:
    """One for all attacks: it imports torch once."""
    forks = Forks(forked_root)
    yield forks
    forks.close()


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripts]:
    """Runs scripts, each in a process of its own, which imports the package anew, but not what that needs."""
    scripts = Scripts(tmp_path_factory.mktemp("scripts"))
    yield scripts
    scripts.close()


@pytest.fixture(scope="module", autouse=True)
def threads(request) -> None:
    """As many as there are for a file that runs the real models, shared among pytest's workers. Else one: handing the small products of
    tiny models to several costs more than it saves, and what is compared to the bit with another process must not depend on the files that
    ran before."""
    here = [item for item in request.session.items if item.path == request.path]
    real = any("real_base" in getattr(item, "fixturenames", ()) for item in here)
    cores = max(1, (os.cpu_count() or 1) // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    torch.set_num_threads(cores if real else 1)


_SHAPE = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 0,
    "num_labels": 1,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
_MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
_PLAIN = {"rope_type": "default", "rope_theta": 1e4}
_YARN_BY_TYPE = {"full_attention": _YARN, "sliding_attention": _PLAIN}
_LINEAR_BY_TYPE = {"full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}, "sliding_attention": _PLAIN}
_GEMMA3 = {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4, "query_pre_attn_scalar": 24, "layer_types": _MIXED}
# Odd sizes on purpose: fewer key/value heads, a head_dim that is not d_model / n_heads, windows shorter than the rows.
ARCHITECTURES = {
    "llama": ("LlamaConfig", {"num_key_value_heads": 2}),
    "llama3-rope": ("LlamaConfig", {"rope_parameters": _LLAMA3}),
    "llama-bias": ("LlamaConfig", {"attention_bias": True, "head_dim": 16}),
    "gpt2": ("GPT2Config", {}),
    "gpt2-wide": ("GPT2Config", {"n_inner": 80, "scale_attn_by_inverse_layer_idx": True}),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "gpt_neox-sequential": ("GPTNeoXConfig", {"use_parallel_residual": False}),
    "qwen2": ("Qwen2Config", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", {"num_key_value_heads": 2, "head_dim": 16}),
    "mistral": ("MistralConfig", {"num_key_value_heads": 2, "sliding_window": 4}),
    "gemma2": ("Gemma2Config", {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4, "query_pre_attn_scalar": 24}),
    "smollm3": ("SmolLM3Config", {"num_key_value_heads": 2, "no_rope_layers": [1, 0, 1]}),
    "gemma3": ("Gemma3TextConfig", _GEMMA3),
    "olmo3-yarn": ("Olmo3Config", {"sliding_window": 4, "layer_types": _MIXED, "rope_parameters": _YARN_BY_TYPE}),
    "olmo2": ("Olmo2Config", {"num_key_value_heads": 4}),
    "olmo2-grouped": ("Olmo2Config", {"num_key_value_heads": 2}),
    "qwen2-window": ("Qwen2Config", {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
}


# And what differs from these only in how a checkpoint is laid out, or in its rotary tables: for the tests that compare with Hugging Face.
PARITY = ARCHITECTURES | {
    "llama-linear": ("LlamaConfig", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "llama-dynamic": ("LlamaConfig", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}),
    "qwen2-yarn": ("Qwen2Config", {"num_key_value_heads": 2, "rope_parameters": _YARN}),
    "ministral": ("MinistralConfig", {"head_dim": 16, "num_key_value_heads": 2, "sliding_window": 4, "layer_types": _MIXED}),
    "phi3": ("Phi3Config", {"num_key_value_heads": 2, "sliding_window": 4}),
    "phi3-partial": ("Phi3Config", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
    "gemma": ("GemmaConfig", {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma3-linear": ("Gemma3TextConfig", _GEMMA3 | {"rope_parameters": _LINEAR_BY_TYPE}),
    "olmo3": ("Olmo3Config", {"num_key_value_heads": 2, "sliding_window": 4, "layer_types": _MIXED}),
}


def hf_model(name: str) -> PreTrainedModel:
    """A random model whose weights are all far from their initial values: norms from 1, biases from 0."""
    class_name, extra = PARITY[name]
    shape = dict(_SHAPE)
    if class_name == "GPT2Config":
        shape = {k: v for k, v in shape.items() if k in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "num_labels")}
        shape |= {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(getattr(transformers, class_name)(**shape | extra)).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.requires_grad_(False)


@pytest.fixture(params=ARCHITECTURES, scope="module")
def hf(request: pytest.FixtureRequest) -> PreTrainedModel:
    return hf_model(request.param)


@pytest.fixture(scope="module")
def hooked(hf: PreTrainedModel) -> HookedRewardModel:
    return HookedRewardModel.from_hf(hf, byte_tokenizer())


@pytest.fixture(scope="session")
def tiny() -> HookedRewardModel:
    return tiny_reward_model()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny model, to train from."""
    folder = tmp_path_factory.mktemp("base")
    tiny_hf_model().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def real_base() -> str:
    """The embedded base model's folder."""
    try:
        folder = str(embedded.base_folder())
    except InputError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the embedded base model cannot be fetched: {error}")
    return folder
