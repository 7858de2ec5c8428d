"""What a finding is: a sentence that a run's numbers support, the rule that it follows, and where in the run these numbers are."""

from typing import NamedTuple, NotRequired

from typing_extensions import TypedDict


class LinkJson(TypedDict):
    """An entry of the run, `sections[section][name]`, and what of it: all neurons of a set by its label there, or one, of a model."""

    label: str
    section: str
    name: str
    model: NotRequired[str]
    sets: NotRequired[list[str]]
    neuron: NotRequired[list[int]]


class FindingJson(TypedDict):
    sentence: str
    rule: str
    links: list[LinkJson]


class Finding(NamedTuple):
    """Attributes:
    sentence: in plain words, with its numbers, their 95 % intervals and how many pairs (or neurons) they are over.
    rule: in a line, when such a sentence is said, of how many it was looked at, and of how many it is.
    links: what stands behind the sentence.
    """

    sentence: str
    rule: str
    links: tuple[LinkJson, ...]

    def to_json(self) -> FindingJson:
        return {"sentence": self.sentence, "rule": self.rule, "links": [*self.links]}


def link(label: str, section: str, name: str) -> LinkJson:
    return {"label": label, "section": section, "name": name}
