"""Figures of a run, by the name that scripts know them by; they are made in `show.plots`.

>>> from tl_reward import plots
>>> plots.neuron_map  # doctest: +ELLIPSIS
<function neuron_map at ...>
"""

from tl_reward.show.plots import *  # noqa: F403 - the same names, which `__all__` lists
from tl_reward.show.plots import __all__ as __all__
