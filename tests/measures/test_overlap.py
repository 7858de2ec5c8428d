"""Overlaps of neuron sets, against a count of every possible set in a universe small enough for it."""

from itertools import combinations, product

import pytest

from tl_reward.errors import InputError
from tl_reward.measures.overlap import compare, depth_thirds, overlap, regions
from tl_reward.neurons import NeuronSet

LAYERS, WIDTH = 2, 3
EVERY = [(layer, neuron) for layer in range(LAYERS) for neuron in range(WIDTH)]


def jaccard(both: float, a: int, b: int) -> float:
    return both / (a + b - both)


def test_hand_computed():
    # 2 of 4 shared, out of 12: expected 4 * 2 / 12 = 2/3. By layer: (2*1 + 1*1 + 1*0) / 4 = 3/4.
    a, b = NeuronSet([(0, 0), (0, 1), (1, 0), (2, 3)]), NeuronSet([(0, 1), (1, 0)])
    found = overlap(a, b, n_layers=3, d_mlp=4)
    assert found.shared == 2
    assert found.jaccard == pytest.approx(2 / 4)
    assert found.chance == pytest.approx((2 / 3) / (6 - 2 / 3))
    assert found.chance_by_layer == pytest.approx((3 / 4) / (6 - 3 / 4))
    # Both of b's 2 among a's 4: (4 choose 2) of (12 choose 2).
    assert found.p_value == pytest.approx(6 / 66)


@pytest.mark.parametrize(("size_a", "size_b"), [(1, 1), (3, 2), (2, 3), (4, 4), (6, 2), (5, 5)])
def test_chance_and_p_value_against_every_set(size_a: int, size_b: int):
    a = NeuronSet(EVERY[:size_a])
    drawn = [NeuronSet(coords) for coords in combinations(EVERY, size_b)]
    shared = [len(a & b) for b in drawn]
    expected = sum(shared) / len(drawn)
    for b, both in zip(drawn, shared, strict=True):
        found = overlap(a, b, n_layers=LAYERS, d_mlp=WIDTH)
        assert found.jaccard == pytest.approx(len(a & b) / len(a | b))
        assert found.chance == pytest.approx(jaccard(expected, size_a, size_b))
        assert found.p_value == pytest.approx(sum(other >= both for other in shared) / len(drawn))


@pytest.mark.parametrize(("in_a", "in_b"), [((2, 1), (1, 2)), ((3, 0), (0, 2)), ((1, 1), (2, 2)), ((2, 0), (2, 0))])
def test_chance_by_layer_against_every_set(in_a: tuple[int, int], in_b: tuple[int, int]):
    def sets(counts: tuple[int, int]) -> list[NeuronSet]:
        per_layer = [[[(layer, n) for n in c] for c in combinations(range(WIDTH), k)] for layer, k in enumerate(counts)]
        return [NeuronSet(first + second) for first, second in product(*per_layer)]

    every = [(a, b) for a, b in product(sets(in_a), sets(in_b))]
    expected = sum(len(a & b) for a, b in every) / len(every)
    found = overlap(*every[0], n_layers=LAYERS, d_mlp=WIDTH)
    assert found.chance_by_layer == pytest.approx(jaccard(expected, sum(in_a), sum(in_b)))


def test_equal_and_disjoint_sets():
    a, b = NeuronSet([(0, 0), (1, 1)]), NeuronSet([(0, 1), (1, 2)])
    same, apart = overlap(a, a, n_layers=LAYERS, d_mlp=WIDTH), overlap(a, b, n_layers=LAYERS, d_mlp=WIDTH)
    assert (same.shared, same.jaccard, same.p_value) == (2, 1.0, pytest.approx(1 / 15))  # 1 of (6 choose 2)
    assert (apart.shared, apart.jaccard, apart.p_value) == (0, 0.0, pytest.approx(1.0))


def test_order_does_not_matter():
    a, b = NeuronSet([(0, 0), (0, 1), (1, 0)]), NeuronSet([(0, 1), (1, 2)])
    assert overlap(a, b, n_layers=2, d_mlp=3) == pytest.approx(overlap(b, a, n_layers=2, d_mlp=3))


@pytest.mark.parametrize(("a", "b"), [([], [(0, 0)]), ([(0, 0)], [])])
def test_empty_sets_are_refused(a: list, b: list):
    with pytest.raises(InputError, match="not empty"):
        overlap(NeuronSet(a), NeuronSet(b), n_layers=1, d_mlp=1)


@pytest.mark.parametrize(
    ("layers", "n_layers", "thirds"),
    [
        ([0, 5, 5, 5], 6, (0.25, 0.0, 0.75)),
        ([0, 1, 2, 3, 4, 5], 6, (1 / 3, 1 / 3, 1 / 3)),
        ([9, 10, 19, 20, 29], 30, (0.2, 0.4, 0.4)),
        ([0, 1, 2, 3], 4, (0.5, 0.25, 0.25)),  # 4 layers: 0 and 1 begin in the first third
        ([0], 1, (1.0, 0.0, 0.0)),
    ],
)
def test_depth_thirds(layers: list[int], n_layers: int, thirds: tuple[float, float, float]):
    neurons = NeuronSet((layer, neuron) for neuron, layer in enumerate(layers))
    assert depth_thirds(neurons, n_layers) == pytest.approx(thirds)


def test_depth_of_nothing():
    with pytest.raises(InputError, match="not empty"):
        depth_thirds(NeuronSet(), 3)


def test_regions():
    helpful, harmless = NeuronSet([(0, 0), (0, 1), (1, 0)]), NeuronSet([(0, 1), (2, 2)])
    assert {name: part.coords for name, part in regions(helpful, harmless).items()} == {
        "helpful-only": ((0, 0), (1, 0)),
        "harmless-only": ((2, 2),),
        "shared": ((0, 1),),
    }


def test_compare():
    sets = {
        "helpful": NeuronSet([(0, 0), (0, 1), (1, 0)]),
        "harmless": NeuronSet([(0, 1), (2, 2)]),
        "mixed": NeuronSet([(0, 0), (0, 1), (2, 1)]),
    }
    found = compare(sets, n_layers=3, d_mlp=4)
    assert found["neurons"] == {"helpful": 3, "harmless": 2, "mixed": 3}
    assert [(pair["a"], pair["b"], pair["shared"]) for pair in found["pairs"]] == [
        ("helpful", "harmless", 1),
        ("helpful", "mixed", 2),
        ("harmless", "mixed", 1),
    ]
    assert found["pairs"][1]["jaccard"] == pytest.approx(2 / 4)
    assert found["depth"]["harmless"] == (0.5, 0.0, 0.5)
    assert found.get("regions") == {"helpful-only": 2, "harmless-only": 1, "shared": 1}
    # Helpful or harmless are (0,0) (0,1) (1,0) (2,2), and mixed has two of them and (2,1).
    assert found.get("single_in_mixed") == pytest.approx(2 / 5)


def test_compare_of_other_names_has_no_regions():
    found = compare({"a": NeuronSet([(0, 0)]), "b": NeuronSet([(0, 0)])}, n_layers=1, d_mlp=4)
    assert set(found) == {"neurons", "depth", "pairs"}


def test_compare_of_models_with_names_of_ones_own():
    helpful, harmless, mixed = NeuronSet([(0, 0), (0, 1)]), NeuronSet([(0, 1), (2, 2)]), NeuronSet([(0, 0), (2, 1)])
    usual = compare({"helpful": helpful, "harmless": harmless, "mixed": mixed}, n_layers=3, d_mlp=4)
    own = {"kind": helpful, "safe": harmless, "all": mixed}
    found = compare(own, n_layers=3, d_mlp=4, single=("kind", "safe"), mixed="all")
    assert found.get("regions") == {"kind-only": 1, "safe-only": 1, "shared": 1}
    assert found.get("single_in_mixed") == usual.get("single_in_mixed") == pytest.approx(1 / 4)
    assert set(compare(own, n_layers=3, d_mlp=4, single=("kind", "safe"))) == {"neurons", "depth", "pairs", "regions"}
