"""Bradley-Terry training of a reward model, by TRL's `RewardTrainer` on the Hugging Face model.

Loss: `-log sigmoid(reward(chosen) - reward(rejected))` (Bradley and Terry 1952; Ouyang et al. 2022). The text is written and tokenised
by `tl_reward.data.encoding`, so a trained model sees at scoring time what it saw in training.
"""

import dataclasses
import json
import random
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch

from tl_reward import parallel
from tl_reward.data.encoding import encode_pairs
from tl_reward.data.pairs import PreferencePair
from tl_reward.errors import InputError
from tl_reward.model import architectures, checkpoints
from tl_reward.model.training.config import How, TrainingConfig
from tl_reward.neurons import NeuronSet

RECORD_FILE = "training.json"
# What reads and what writes the neurons of an MLP, in Hugging Face's names for the supported architectures.
_INTO = ("gate_proj", "up_proj", "c_fc", "dense_h_to_4h")
_OUT_OF = ("down_proj", "c_proj", "dense_4h_to_h")


@dataclass(frozen=True)
class TrainingRecord:
    """What was trained on what: stored as `training.json` beside the weights.

    `mean_loss` is over all logged steps. `wall_seconds` is of the last leg, where a training was resumed. `without` counts the neurons
    that it was trained without, and `how` says in which way.
    """

    base: str
    pairs: int
    dropped: int
    steps: int
    wall_seconds: float
    mean_loss: float
    bf16: bool
    config: TrainingConfig
    versions: dict[str, str]
    without: int = 0
    how: How | None = None


def train(
    base: str,
    pairs: Sequence[PreferencePair],
    output: str | Path,
    config: TrainingConfig = TrainingConfig(),
    *,
    without: NeuronSet | None = None,
    how: How = "masked",
    resume: bool = False,
) -> TrainingRecord:
    """Trains a reward model on pairs; `HookedRewardModel.from_pretrained(output)` loads the result.

    Of several processes (`parallel`) each trains on its part of every batch. Where pairs do not fill the last batch of an epoch, it then
    takes the first ones of the epoch again.

    Args:
        base: a language model: a folder, a hub id, or the embedded `embedded.BASE`. Whatever head it has gives way to a linear one of one
            output, drawn from normal(0, 0.02) with the seed.
        output: a new folder. With `resume`, one in which an earlier call was cut short.
        without: neurons that do nothing in any forward pass of the training, so that neither they nor adapters on them get a gradient.
        how: "masked": their weights are saved as they were, and a later pass has to zero them too (`ZeroAblation`). "pruned": their
            weights are zero, and so they are saved; adapters are then merged into their base.

    Raises:
        InputError: `output` exists, `batch_size` is no multiple of the number of processes, there is nothing to resume from,
            every pair is over-long, rows end with every special token, or the model has no such neuron.
    """
    try:
        from trl.trainer.reward_config import RewardConfig
        from trl.trainer.reward_trainer import RewardTrainer
    except ModuleNotFoundError as error:
        raise InputError(f"training needs {error.name}: pip install 'tl_reward[train]'") from None
    from peft import LoraConfig, TaskType
    from transformers import TrainerCallback, set_seed
    from transformers.trainer_pt_utils import DistributedLengthGroupedSampler

    if how not in get_args(How):
        raise InputError(f"how must be one of {', '.join(get_args(How))}, got {how!r}")
    output = Path(output)
    saves = output / "checkpoints"
    if config.batch_size % parallel.count():
        raise InputError(f"batch_size must be a multiple of the number of processes, {parallel.count()}, got {config.batch_size}")
    with parallel.together():  # all look before one writes
        if (output / RECORD_FILE).exists() or (output.exists() and not resume):
            raise InputError(f"{output} exists; choose another folder, or resume one that was cut short")
        checkpoint = last_checkpoint(output)
        if resume and checkpoint is None:
            raise InputError(f"{output}: no checkpoint to resume from")

    bf16 = _has_bf16()
    lora = config.method == "lora"
    # Frozen weights may be bf16: autocast would cast them at every use. Weights that are trained stay float32.
    dtype = torch.bfloat16 if lora and bf16 else torch.float32
    model, tokenizer, _ = checkpoints.load_with_fresh_head(base, seed=config.seed, dtype=dtype, hub={})
    context = architectures.lens_config(model.config)["n_ctx"]
    if config.max_length > context:
        raise InputError(f"max_length must be in [1, {context}] for {base}, got {config.max_length}")
    if not config.chat:
        tokenizer.chat_template = None  # the saved tokenizer then says that this model reads HH-RLHF turns
    elif tokenizer.chat_template is None:
        raise InputError(f"{base}: its tokenizer has no chat template")
    encoded = encode_pairs(pairs, tokenizer, max_length=config.max_length)
    if config.max_pairs is not None and config.max_pairs < len(encoded.pairs):
        sample = random.Random(config.seed).sample(encoded.pairs, config.max_pairs)
        encoded = dataclasses.replace(encode_pairs(sample, tokenizer, max_length=config.max_length), dropped=encoded.dropped)

    _choose_pad_token(tokenizer, encoded)
    model.config.pad_token_id = tokenizer.pad_token_id
    set_seed(config.seed)
    if config.learning_rate is None:
        config = dataclasses.replace(config, learning_rate=3e-4 if lora else 1e-5)
    peft_config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank,
        target_modules="all-linear",
        modules_to_save=["score"],
    )
    dataset = _dataset(encoded)
    sampler = DistributedLengthGroupedSampler(config.batch_size, lengths=dataset["length"][:], num_replicas=1, rank=0, seed=config.seed)

    class Trainer(RewardTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return sampler

    class InOrder(TrainerCallback):
        """The order of an epoch follows from the seed and the epoch alone: a training that is resumed has that of one that is not."""

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            sampler.set_epoch(int((state.epoch or 0) + 1e-6))

    trainer = Trainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=dataset,
        callbacks=[InOrder()],
        peft_config=peft_config if lora else None,
        args=RewardConfig(
            output_dir=str(saves),
            per_device_train_batch_size=config.batch_size,
            accelerator_config={"split_batches": True},  # over the processes: batches are those of one process
            num_train_epochs=config.epochs,
            learning_rate=config.learning_rate,
            lr_scheduler_type="linear",
            warmup_steps=0.05,
            max_length=None,
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            gradient_checkpointing=False,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            save_strategy="steps",
            save_steps=config.save_every,
            save_total_limit=1,
            logging_steps=5,
            report_to="none",
            seed=config.seed,
        ),
    )
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # PEFT keeps the head in the base's dtype; bf16 loses small updates
    if without:
        _leave_out(trainer.model, without, zero=how == "pruned")
    start = time.monotonic()
    result = trainer.train(resume_from_checkpoint=checkpoint)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] or [result.training_loss]
    record = TrainingRecord(
        base=base,
        pairs=len(encoded.pairs),
        dropped=encoded.dropped,
        steps=result.global_step,
        wall_seconds=round(time.monotonic() - start, 1),
        mean_loss=round(sum(losses) / len(losses), 4),
        bf16=bf16,
        config=config,
        versions=_versions("torch", "transformers", "trl", "peft"),
        without=len(without or ()),
        how=how if without else None,
    )
    saved = _merged(trainer.model, without) if without and how == "pruned" else trainer.model
    parallel.on_first(lambda: _save(saved, tokenizer, base, output, record))
    parallel.on_first(lambda: shutil.rmtree(saves))
    return record


def _dataset(encoded: Any) -> Any:
    from datasets import Dataset

    sides = {f"{side}_ids": [list(encoded.rows[i].ids) for i in getattr(encoded, side)] for side in ("chosen", "rejected")}
    lengths = [max(len(a), len(b)) for a, b in zip(*sides.values(), strict=True)]
    return Dataset.from_dict(sides | {"length": lengths})


def last_checkpoint(output: str | Path) -> str | None:
    """Where a training that was cut short would go on: its last checkpoint that was written to its end. (Hugging Face writes the file that
    is read here after the weights and the optimiser's state.)"""
    found = sorted((Path(output) / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)
    for path in found:
        try:
            json.loads((path / "trainer_state.json").read_text())
            return str(path)
        except (OSError, json.JSONDecodeError):
            continue
    return None


def _parts(model: Any, neurons: NeuronSet) -> list[tuple[str, Any, torch.Tensor]]:
    """The linear layers, wrapped by PEFT or not, that read and write a set's neurons: name of the layer, layer, neurons."""
    by_layer = neurons.by_layer()
    found = []
    for name, module in model.named_modules():
        match = re.search(r"\.(\d+)\.mlp\.(\w+)$", name)
        if match and match[2] in _INTO + _OUT_OF and int(match[1]) in by_layer:
            found.append((match[2], module, by_layer[int(match[1])]))
    layers, width = model.config.num_hidden_layers, architectures.lens_config(model.config)["d_mlp"]
    neurons.mask(layers, width)  # says which neuron there is not
    assert len(found) >= 2 * len(by_layer), [name for name, *_ in found]
    return found


def _leave_out(model: Any, neurons: NeuronSet, *, zero: bool) -> None:
    """From here on the neurons do nothing, and no gradient reaches them: what they write is set to 0 where it is read, by an adapter too.

    Args:
        zero: their weights are set to 0 as well. They stay so, since their gradients are 0 and nothing decays.
    """
    for name, module, index in _parts(model, neurons):
        if name in _OUT_OF:

            def drop(_: Any, args: Any, index: torch.Tensor = index) -> Any:
                return (args[0].index_fill(-1, index.to(args[0].device), 0), *args[1:])

            module.register_forward_pre_hook(drop)
        if zero:
            _zero(name, module, index)


@torch.no_grad()
def _zero(name: str, module: Any, index: torch.Tensor) -> None:
    layer = getattr(module, "base_layer", module)
    # GPT-2's Conv1D keeps [in, out], a linear layer [out, in].
    neurons_first = (name in _INTO) == isinstance(layer, torch.nn.Linear)
    layer.weight.index_fill_(0 if neurons_first else 1, index.to(layer.weight.device), 0)
    if name in _INTO and layer.bias is not None:
        layer.bias.index_fill_(0, index.to(layer.bias.device), 0)


def _merged(model: Any, neurons: NeuronSet) -> Any:
    """The model without its adapters' frames; what they add to the weights of the neurons, which no pass ever read, is set to 0."""
    whole = model.float().merge_and_unload() if hasattr(model, "merge_and_unload") else model
    for name, module, index in _parts(whole, neurons):
        _zero(name, module, index)
    return whole


def _save(model: Any, tokenizer: Any, base: str, output: Path, record: TrainingRecord) -> None:
    adapter = record.config.method == "lora" and record.how != "pruned"
    if adapter:
        # The adapter names its base as the user did: a cache folder's path means nothing on another machine.
        model.peft_config["default"].base_model_name_or_path = base
    if record.bf16:
        model = model.to(torch.bfloat16)
    # Embeddings are never trained in an adapter; asking PEFT to find out would look the base up on the hub.
    model.save_pretrained(output, **({"save_embedding_layers": False} if adapter else {}))
    tokenizer.save_pretrained(output)
    # The record is written last: a folder with it is a finished one.
    (output / RECORD_FILE).write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n")


def _choose_pad_token(tokenizer: Any, encoded: Any) -> None:
    """Picks a pad token with which no row ends.

    Hugging Face reads the reward at the last token that is not the pad token. Where rows end with it, as chat templates often have it,
    training would read one token too early.
    """
    ends = {row.ids[-1] for row in encoded.rows}
    wanted = [tokenizer.pad_token_id, *tokenizer.all_special_ids]
    free = [token for token in wanted if token is not None and token not in ends]
    if not free:
        raise InputError("every special token of the tokenizer ends some transcript; add a pad token to it that ends none")
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(free[0])


def _has_bf16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _versions(*packages: str) -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in packages}
