"""The reward model: a `HookedTransformer` with a reward head, and what it is made from."""

import lazy_loader

# Imported at their first use: whoever needs only the names of the embedded models loads no model.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"reward_model": ["HookedRewardModel", "load"]})
