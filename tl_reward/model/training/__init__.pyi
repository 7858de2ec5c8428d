from .bradley_terry import RECORD_FILE, TrainingRecord, last_checkpoint, train
from .config import How, TrainingConfig

__all__ = ["RECORD_FILE", "How", "TrainingConfig", "TrainingRecord", "last_checkpoint", "train"]
