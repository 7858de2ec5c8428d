from .bradley_terry import train
from .config import How, TrainingConfig
from .record import RECORD_FILE, TrainingRecord, clear_saves, last_checkpoint, saves_of

__all__ = ["RECORD_FILE", "How", "TrainingConfig", "TrainingRecord", "clear_saves", "last_checkpoint", "saves_of", "train"]
