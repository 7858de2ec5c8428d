"""The table of schemas, and how the schema of a row is told.

A row is of the first schema of which it has all keys. To add one: a pure function from its row to comparisons, in the file of those like
it, and an entry here.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from tl_reward.data.messages import media_of, printable
from tl_reward.data.pairs import ATTRIBUTES, PreferencePair, label_of, labels_of, pairs_of_sides
from tl_reward.data.schemas import plain, ranked, two_answers, votes
from tl_reward.data.schemas.form import Comparison, LeftOut, Schema, one_row
from tl_reward.errors import InputError

SCHEMAS: tuple[Schema, ...] = (
    # Rows of chosen and rejected come first: what else such a row holds changes nothing of how it is read.
    Schema(
        "ShareGPT",
        ("conversations", "chosen", "rejected"),
        one_row(plain.chosen_and_rejected),
        "the conversation and each of two answers; messages are {from, value}",
        "LLaMA-Factory's preference data",
    ),
    Schema(
        "responses",
        ("prompt", "chosen", "rejected"),
        one_row(plain.chosen_and_rejected),
        "the prompt and two answers: text, or messages that may hold the prompt too; every pair of two lists of texts (best-of-n)",
        "UltraFeedback binarized and cleaned, Tulu 3 preference mixtures, RewardBench, RewardBench 2, RM-Bench, TRL",
    ),
    Schema(
        "question",
        ("question", "chosen", "rejected"),
        one_row(plain.chosen_and_rejected),
        "the question (behind system) and two answers",
        "Intel/orca_dpo_pairs and other DPO data",
    ),
    Schema(
        "instruction",
        ("instruction", "chosen", "rejected"),
        one_row(plain.chosen_and_rejected),
        "the instruction, a line break, the input where there is one; and two answers",
        "Alpaca-like DPO data",
    ),
    Schema(
        "input",
        ("input", "chosen", "rejected"),
        one_row(plain.distilabel),
        "the input (behind system) and two answers; a row whose status is tie is none",
        "argilla/distilabel-intel-orca-dpo-pairs",
    ),
    Schema(
        "transcripts",
        ("chosen", "rejected"),
        one_row(plain.chosen_and_rejected),
        "two transcripts: text with turns opened by Human: and Assistant:, or messages",
        "HH-RLHF, Skywork-Reward-Preference, TRL",
    ),
    Schema(
        "named responses",
        ("chosen_response", "rejected_response"),
        one_row(plain.named_responses),
        "the prompt, question or instruction, and two answers",
        "argilla/ultrafeedback-binarized-preferences",
    ),
    Schema(
        "PKU-SafeRLHF",
        ("prompt", "response_0", "response_1", "better_response_id", "safer_response_id"),
        one_row(two_answers.pku_safe),
        "two of a row: by better_response_id, helpful, and by safer_response_id, harmless",
        "PKU-Alignment/PKU-SafeRLHF (also -10K, -30K)",
    ),
    Schema(
        "PKU-SafeRLHF single dimension",
        ("prompt", "response_0", "response_1", "better_response_id"),
        one_row(two_answers.pku_single),
        "one of a row, by better_response_id",
        "PKU-Alignment/PKU-SafeRLHF-single-dimension",
    ),
    Schema(
        "SHP",
        ("history", "human_ref_A", "human_ref_B", "labels"),
        one_row(two_answers.shp),
        "labels 1: A is chosen, 0: B; the subset is the domain",
        "stanfordnlp/SHP, SHP-2",
    ),
    Schema(
        "HelpSteer3",
        ("context", "response1", "response2", "overall_preference"),
        one_row(two_answers.helpsteer3),
        "overall_preference below 0: the first is chosen, above: the second; the subset is the domain",
        "nvidia/HelpSteer3",
    ),
    Schema(
        "HelpSteer2-Preference",
        ("prompt", "response_1", "response_2", "preference_strength"),
        one_row(two_answers.helpsteer2_preference),
        "preference_strength below 0: the first is chosen, above: the second",
        "nvidia/HelpSteer2, folder preference",
    ),
    Schema(
        "HelpSteer",
        ("prompt", "response", "helpfulness"),
        ranked.helpsteer,
        "consecutive rows of one prompt, any two of different helpfulness",
        "nvidia/HelpSteer2, nvidia/HelpSteer",
        together="prompt",
        ranked=True,
        by={name: partial(ranked.helpsteer_by, attribute=name) for name in ATTRIBUTES[:5]},
    ),
    Schema(
        "JudgeBench",
        ("question", "response_A", "response_B", "label"),
        one_row(two_answers.judgebench),
        "label A>B: A is chosen, B>A: B; the subset is the source",
        "ScalerLab/JudgeBench",
        id="pair_id",
    ),
    Schema(
        "summaries",
        ("info", "summaries", "choice"),
        one_row(two_answers.summaries),
        "the post or article and two summaries, of which choice is chosen",
        "openai/summarize_from_feedback, comparisons",
    ),
    Schema(
        "arena votes",
        ("conversation_a", "conversation_b", "winner"),
        one_row(votes.conversations),
        "two conversations, of which the winner is chosen",
        "lmsys/chatbot_arena_conversations, lmsys/mt_bench_human_judgments, lmarena-ai/arena-human-preference-140k",
    ),
    Schema(
        "arena votes, turns apart",
        ("prompt", "response_a", "response_b", "winner_model_a", "winner_model_b", "winner_tie"),
        one_row(votes.turns_apart),
        "two conversations, of which the winner is chosen",
        "lmsys/lmsys-arena-human-preference-55k",
    ),
    Schema(
        "Nectar",
        ("prompt", "answers"),
        one_row(ranked.nectar),
        "any two answers of different rank, 1 the best: 21 of 7",
        "berkeley-nest/Nectar",
        ranked=True,
    ),
    Schema(
        "UltraFeedback",
        ("instruction", "completions"),
        one_row(ranked.ultrafeedback),
        "any two completions of different overall_score",
        "openbmb/UltraFeedback",
        ranked=True,
        by={name: partial(ranked.ultrafeedback_by, attribute=name) for name in ("helpfulness", *ATTRIBUTES[5:])},
    ),
    Schema(
        "scored responses",
        ("prompt", "responses", "scores"),
        one_row(ranked.scored),
        "any two responses of different score, higher is better",
        "ranked lists",
        ranked=True,
    ),
    Schema(
        "ranked responses",
        ("prompt", "responses", "ranks"),
        one_row(ranked.by_rank),
        "any two responses of different rank, lower is better",
        "ranked lists",
        ranked=True,
    ),
    Schema(
        "RMB pairs",
        ("conversation_input", "chosen", "reject"),
        one_row(ranked.rmb_pair),
        "the conversation and two answers; objective and subset are of category_path",
        "RMB, Pairwise_set",
    ),
    Schema(
        "RMB best-of-n",
        ("conversation_input", "bon_best", "loser_list"),
        one_row(ranked.rmb_best),
        "the best answer with each of the others; objective and subset are of category_path",
        "RMB, BoN_set",
        ranked=True,
    ),
)


def schema_of(row: Any) -> Schema | None:
    """The schema that a row's keys tell; None where they tell none."""
    if not isinstance(row, Mapping):
        return None
    keys = row.keys()
    return next((schema for schema in SCHEMAS if all(key in keys for key in schema.keys)), None)


def goes_with(row: Any) -> tuple[str, Any] | None:
    """What a row shares with those that it is read together with; None where it is read by itself."""
    schema = schema_of(row)
    return (schema.name, row[schema.together]) if schema and schema.together else None


def pairs_of_rows(
    rows: Sequence[Any], default_id: str, where: str | None = None, objective: str | None = None
) -> tuple[list[PreferencePair], list[str]]:
    """The pairs of a row, or of rows that are read together; and for each comparison that is none the reason.

    Args:
        default_id: the id, where the first row names none.
        where: the file and row, which the pairs keep.
        objective: of which to give pairs, where rows of the schema have several. Else the pairs are those that they have.

    Raises:
        BadPair: a side is empty, or both are equal.
        InputError: an unknown schema, an attribute that its rows do not have, a field of another type than the schema has, an image.
    """
    row = rows[0]
    schema = schema_of(row)
    if schema is None:
        raise InputError(_unknown(row))
    if media := media_of(row):
        raise InputError(f"the row holds what is no text ({media}), and a reward model of text cannot read it")
    name = label_of("id", row.get(schema.id)) or label_of("id", row.get("id")) or default_id
    of_rows = labels_of(row)
    read = schema.by.get(objective or "", schema.read)
    if read is not schema.read:
        name, of_rows["objective"] = f"{name}/{objective}", objective
    elif objective in ATTRIBUTES and of_rows["objective"] is None:
        rate = ", ".join(f"{each.name} ({', '.join(each.by)})" for each in SCHEMAS if each.by)
        raise InputError(f"rows of the schema {schema.name} are not rated by {objective}; these are: {rate}")
    found = [*read(rows)]
    left_out = [each.reason for each in found if isinstance(each, LeftOut)]
    pairs = [
        pair
        for each in found
        if isinstance(each, Comparison)
        for pair in pairs_of_sides(
            f"{name}/{each.part}" if each.part else name,
            each.prompt,
            each.chosen,
            each.rejected,
            system=each.system,
            objective=of_rows["objective"] if each.objective is None else each.objective,
            subset=of_rows["subset"] if each.subset is None else each.subset,
            group=name if schema.ranked and each.part else None,
            where=where,
        )
    ]
    return pairs, left_out


def _unknown(row: Any) -> str:
    found = [*map(str, row)] if isinstance(row, Mapping) else []
    shown = printable(", ".join(found)[:120]) if isinstance(row, Mapping) else type(row).__name__
    names = f"known: {', '.join(schema.name for schema in SCHEMAS)}"
    if not isinstance(row, Mapping):
        return f"unknown schema: found {shown}, and a row is an object with columns, such as {{prompt, chosen, rejected}}; {names}"
    if said := next((said for keys, said in _NO_PAIRS.items() if set(keys) <= set(found)), None):
        return f"unknown schema: found {shown}: {said}; {names}"
    near = nearest(found)
    lacks = [key for key in near.keys if key not in found]
    alike = {key: like for key in lacks if (like := _like(key, found))}
    for_us = {key: alike.get(key, "…") for key in ("prompt", "chosen", "rejected") if key not in found}
    columns = ", ".join(
        f'"{ours}": {theirs if theirs == "…" else json.dumps(printable(theirs), ensure_ascii=False)}' for ours, theirs in for_us.items()
    )
    known = {key for schema in SCHEMAS for key in schema.keys}
    first = "" if known & set(found) else ", and the first line of a table must name its columns"
    return (
        f"unknown schema: found {shown}{first}; nearest: {near.name} ({', '.join(near.keys)}), which lacks {', '.join(lacks)}"
        + "".join(f" (is it {like}?)" for like in alike.values() if len(lacks) == 1)
        + (f"; columns of other names: columns={{{columns}}}" if columns else "")
        + f"; {names}"
    )


# Rows that are published, and are no pairs.
_NO_PAIRS = {
    (
        "completion",
        "label",
    ): "an answer with a label of its own (as for KTO) is no pair; put a good and a bad answer of a prompt into one row",
    ("messages",): "one conversation is no pair; another answer to compare it with is needed, in chosen and rejected",
}


def _like(key: str, found: Sequence[str]) -> str | None:
    """The key of a row that may be meant by one of a schema: in other letters, or misspelt."""
    folded = {each.strip().casefold(): each for each in found}
    near = difflib.get_close_matches(key, [*folded], n=1, cutoff=0.75)
    return folded[near[0]] if near else None


def nearest(keys: Sequence[str]) -> Schema:
    """The schema of which most keys are there, or keys that are alike; of several, the plainest, or the one that lacks fewer."""

    def nearness(schema: Schema) -> tuple[int, int, bool, float]:
        there = sum(key in keys for key in schema.keys)
        alike = there + sum(key not in keys and _like(key, keys) is not None for key in schema.keys)
        return alike, there, schema.name == "responses", alike / len(schema.keys)

    return max(SCHEMAS, key=nearness)
