"""Open up reward models: a scalar head on a TransformerLens `HookedTransformer`.

>>> import tl_reward
>>> model = tl_reward.load("helpful")  # doctest: +SKIP
>>> model("\\n\\nHuman: Hi\\n\\nAssistant: Hello!")  # doctest: +SKIP
"""

import lazy_loader

# The names are listed in __init__.pyi, and imported at their first use: a page is built, and --help printed, without loading a model.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
