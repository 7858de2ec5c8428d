"""What an intervention states of itself: read in one place, and a slip of the pen is no silent "no"."""

import pytest

from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.interventions.from_functions import intervention
from tl_reward.interventions.patches import Patch, Source
from tl_reward.interventions.protocol import Intervention, Traits, traits_of
from tl_reward.neurons import NeuronSet
from tl_reward.running.activations import stream
from tl_reward.running.scoring import score, sweep
from tl_reward.sites import Site

PAIRS = load_pairs("embedded", split="find", limit=2)


class Bare:
    """All that an intervention needs."""

    def hooks(self, batch):
        return []


def with_attributes(**attributes: object) -> Intervention:
    return type("Edit", (Bare,), attributes)()


def test_what_built_in_ones_and_functions_state(tiny):
    neurons = NeuronSet([(0, 1)])
    assert traits_of(Bare()) == Traits(per_token=False, paired=False)
    assert traits_of(ZeroAblation(neurons)) == traits_of(Patch(Source(tiny), neurons)) == Traits(per_token=True)
    assert traits_of(Patch(Source(tiny), neurons, within_pair=True)) == Traits(per_token=True, paired=True)
    for per_token in (True, False):
        assert traits_of(intervention(Site(0, "mlp_out"), per_token=per_token)(lambda x: x)) == Traits(per_token=per_token)


@pytest.mark.parametrize("name", ["per_tokens", "pertoken", "per_tok", "Per_Token", "perToken", "Paired", "pared", "paired_"])
def test_a_name_that_is_nearly_that_of_a_trait_is_refused_wherever_a_model_is_asked(tiny, name):
    meant = "per_token" if name.lower().startswith("per") else "paired"
    edit = with_attributes(**{name: True})
    message = f"^Edit has '{name}', which states nothing; it should be '{meant}'"
    with pytest.raises(InputError, match=message):
        score(tiny, PAIRS, interventions=[edit])
    with pytest.raises(InputError, match=message):
        sweep(tiny, PAIRS, [[edit]])
    with pytest.raises(InputError, match=message):
        stream(tiny, PAIRS, [Site(0, "mlp_post")], lambda *_: None, interventions=[edit])
    own = Bare()
    setattr(own, name, True)  # on the object instead of its class
    with pytest.raises(InputError, match=f"^Bare has '{name}'"):
        traits_of(own)


def test_other_names_and_private_ones_are_the_users(tiny):
    own = {"pair": 1, "pairs": (), "token": 3, "tokens": (), "factor": 2.0, "repair": 0, "_per_tokens": True, "within_pair": True}
    own |= {"unpaired": 2, "repaired": 0}
    assert traits_of(with_attributes(**own)) == Traits()
    assert traits_of(with_attributes(per_token=True, per_tokens=4)) == Traits(per_token=True)


@pytest.mark.parametrize(("name", "value"), [("per_token", 1), ("per_token", None), ("paired", "yes")])
def test_a_trait_is_true_or_false(tiny, name, value):
    with pytest.raises(InputError, match=rf"^Edit\.{name} must be True or False, got {value!r}$"):
        score(tiny, PAIRS, interventions=[with_attributes(**{name: value})])
