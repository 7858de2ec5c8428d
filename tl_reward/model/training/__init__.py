"""Bradley-Terry training of a reward model: how to train, the training itself, and what it leaves on disk."""

import lazy_loader

# The names are listed in __init__.pyi, and imported at their first use: the command line's --help needs `TrainingConfig` without torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
