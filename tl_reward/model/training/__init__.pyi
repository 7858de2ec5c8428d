from .bradley_terry import train
from .config import How, TrainingConfig
from .record import RECORD_FILE, TrainingRecord, last_checkpoint

__all__ = ["RECORD_FILE", "How", "TrainingConfig", "TrainingRecord", "last_checkpoint", "train"]
