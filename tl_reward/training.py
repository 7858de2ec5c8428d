"""Bradley-Terry training of a reward model, by TRL's `RewardTrainer` on the Hugging Face model.

Loss: `-log sigmoid(reward(chosen) - reward(rejected))` (Bradley and Terry 1952; Ouyang et al. 2022). The text is written and tokenised
by `tl_reward.tokens`, so a trained model sees at scoring time what it saw in training.
"""

import dataclasses
import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tl_reward import architectures, checkpoints, parallel
from tl_reward.errors import InputError
from tl_reward.pairs import PreferencePair
from tl_reward.tokens import encode_pairs

RECORD_FILE = "training.json"


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. The defaults are those of the embedded adapters.

    Attributes:
        method: "lora" trains low-rank adapters on every linear layer and the head, "full" trains every weight.
        lora_rank: rank of the adapters; their scale is twice the rank.
        learning_rate: peak, after a warm-up of 5 % of the steps; falls linearly to 0. None: 3e-4 for LoRA, 1e-5 for full.
        batch_size: pairs an optimiser step, over all processes.
        max_length: pairs with a longer side (in tokens) are left out.
        max_pairs: a random sample of this many of the pairs that fit. None: all of them.
        chat: write transcripts with the tokenizer's chat template instead of as HH-RLHF turns.
        save_every: steps between the checkpoints that `resume` starts from.
    """

    method: Literal["lora", "full"] = "lora"
    lora_rank: int = 8
    learning_rate: float | None = None
    epochs: float = 1.0
    batch_size: int = 8
    max_length: int = 320
    max_pairs: int | None = None
    seed: int = 0
    chat: bool = False
    save_every: int = 25

    def __post_init__(self) -> None:
        if self.method not in ("lora", "full"):
            raise InputError(f"method must be lora or full, got {self.method!r}")
        for name in ("lora_rank", "batch_size", "max_length", "max_pairs", "save_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be above 0, got {value}")


@dataclass(frozen=True)
class TrainingRecord:
    """What was trained on what: stored as `training.json` beside the weights.

    `mean_loss` is over all logged steps. `wall_seconds` is of the last leg, where a training was resumed.
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


def train(
    base: str,
    pairs: Sequence[PreferencePair],
    output: str | Path,
    config: TrainingConfig = TrainingConfig(),
    *,
    resume: bool = False,
) -> TrainingRecord:
    """Trains a reward model on pairs; `HookedRewardModel.from_pretrained(output)` loads the result.

    Of several processes (`parallel`) each trains on its part of every batch. Where pairs do not fill the last batch of an epoch, it then
    takes the first ones of the epoch again.

    Args:
        base: a language model: a folder, a hub id, or the embedded `zoo.BASE`. Whatever head it has gives way to a linear one of one
            output, drawn from normal(0, 0.02) with the seed.
        output: a new folder. With `resume`, one in which an earlier call was cut short.

    Raises:
        InputError: `output` exists, `batch_size` is no multiple of the number of processes, there is nothing to resume from,
            every pair is over-long, or rows end with every special token.
    """
    try:
        from trl.trainer.reward_config import RewardConfig
        from trl.trainer.reward_trainer import RewardTrainer
    except ModuleNotFoundError as error:
        raise InputError(f"training needs {error.name}: pip install 'tl_reward[train]'") from None
    from peft import LoraConfig, TaskType
    from transformers import set_seed
    from transformers.trainer_utils import get_last_checkpoint

    output = Path(output)
    saves = output / "checkpoints"
    if config.batch_size % parallel.count():
        raise InputError(f"batch_size must be a multiple of the number of processes, {parallel.count()}, got {config.batch_size}")
    with parallel.together():  # all look before one writes
        if (output / RECORD_FILE).exists() or (output.exists() and not resume):
            raise InputError(f"{output} exists; choose another folder, or resume one that was cut short")
        checkpoint = get_last_checkpoint(str(saves)) if saves.is_dir() else None
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
    trainer = RewardTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=_dataset(encoded),
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
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,  # "length" is what batches are grouped by
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
    )
    parallel.on_first(lambda: _save(trainer.model, tokenizer, base, output, record))
    parallel.on_first(lambda: shutil.rmtree(saves))
    return record


def _dataset(encoded: Any) -> Any:
    from datasets import Dataset

    sides = {f"{side}_ids": [list(encoded.rows[i].ids) for i in getattr(encoded, side)] for side in ("chosen", "rejected")}
    lengths = [max(len(a), len(b)) for a, b in zip(*sides.values(), strict=True)]
    return Dataset.from_dict(sides | {"length": lengths})


def _save(model: Any, tokenizer: Any, base: str, output: Path, record: TrainingRecord) -> None:
    if record.config.method == "lora":
        # The adapter names its base as the user did: a cache folder's path means nothing on another machine.
        model.peft_config["default"].base_model_name_or_path = base
    if record.bf16:
        model = model.to(torch.bfloat16)
    # Embeddings are never trained in an adapter; asking PEFT to find out would look the base up on the hub.
    model.save_pretrained(output, **({"save_embedding_layers": False} if record.config.method == "lora" else {}))
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
