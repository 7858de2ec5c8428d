"""TRL's `RewardTrainer` as a training is set up with it. Importing this needs the packages of `tl_reward[train]`."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import LoraConfig, TaskType
from transformers import TrainerCallback
from transformers.trainer_pt_utils import DistributedLengthGroupedSampler

from tl_reward.data.encoding import EncodedPairs
from tl_reward.model.training.config import TrainingConfig
from tl_reward.model.training.finite import check_finite
from tl_reward.model.training.preparation import Prepared


@contextmanager
def without(package: str) -> Iterator[None]:
    """Hides a package that is not imported yet from those who would import it if it is there."""
    hidden = sys.modules.setdefault(package, cast(Any, None)) is None
    try:
        yield
    finally:
        if hidden:
            del sys.modules[package]


# TRL imports wandb where it is installed, and wandb leaves folders in the temporary directory. Nothing here reports to it.
with without("wandb"):
    from trl.trainer import base_trainer
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer


base_trainer.__dict__["is_wandb_available"] = lambda: False  # it asks again when it saves


class PairTrainer(RewardTrainer):
    """Takes pairs in the order of a sampler that is given."""

    def __init__(self, *args: Any, sampler: DistributedLengthGroupedSampler, **kwargs: Any) -> None:
        self.sampler = sampler
        super().__init__(*args, callbacks=[InOrder(sampler), Watch()], **kwargs)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self.sampler


class InOrder(TrainerCallback):
    """The order of an epoch follows from the seed and the epoch alone: a training that is resumed has that of one that is not."""

    def __init__(self, sampler: DistributedLengthGroupedSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.sampler.set_epoch(int((state.epoch or 0) + 1e-6))


class Watch(TrainerCallback):
    """Logs the loss with every save, so that no step's loss is lost where a training goes on; and stops one that diverged, instead of going
    on for hours. All processes log the same loss."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_log |= control.should_save

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        check_finite(state.global_step, [logs["loss"]] if logs and "loss" in logs else [])


def losses_of(log: Sequence[Mapping[str, Any]]) -> list[float]:
    """The loss of each step, as it is logged: a mean over the steps since the log before.

    >>> losses_of([{"step": 2, "loss": 0.75}, {"step": 3, "loss": 0.5}, {"step": 3, "train_runtime": 9.0}])
    [0.75, 0.75, 0.5]
    """
    losses, before = [], 0
    for entry in log:
        if "loss" in entry:
            losses += [entry["loss"]] * (entry["step"] - before)
            before = entry["step"]
    return losses


def make_trainer(prepared: Prepared, config: TrainingConfig, learning_rate: float, saves: Path) -> PairTrainer:
    """A trainer whose trained weights are float32. It draws the adapters: the seed has to be set."""
    dataset = _dataset(prepared.encoded)
    lengths = dataset["length"][:]
    trainer = PairTrainer(
        model=prepared.model,
        processing_class=prepared.tokenizer,
        train_dataset=dataset,
        sampler=DistributedLengthGroupedSampler(config.batch_size, lengths=lengths, num_replicas=1, rank=0, seed=config.seed),
        peft_config=_adapters(config) if config.method == "lora" else None,
        args=_arguments(config, learning_rate, saves, prepared.bf16),
    )
    assert trainer.model is not None
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # PEFT keeps the head in the base's dtype; bf16 loses small updates
    return trainer


def _adapters(config: TrainingConfig) -> LoraConfig:
    return LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=config.lora_rank,
        lora_alpha=2 * config.lora_rank,
        target_modules="all-linear",
        modules_to_save=["score"],
    )


def _arguments(config: TrainingConfig, learning_rate: float, saves: Path, bf16: bool) -> RewardConfig:
    return RewardConfig(
        output_dir=str(saves),
        per_device_train_batch_size=config.batch_size,
        accelerator_config={"split_batches": True},  # over the processes: batches are those of one process
        num_train_epochs=config.epochs,
        learning_rate=learning_rate,
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
        logging_nan_inf_filter=False,  # else a loss that is not finite is logged as the one before
        report_to="none",
        seed=config.seed,
    )


def _dataset(encoded: EncodedPairs) -> Dataset:
    sides = {f"{side}_ids": [list(encoded.rows[i].ids) for i in getattr(encoded, side)] for side in ("chosen", "rejected")}
    lengths = [max(len(a), len(b)) for a, b in zip(*sides.values(), strict=True)]
    return Dataset.from_dict(sides | {"length": lengths})
