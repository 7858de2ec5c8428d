"""Transcripts as text, and tokens as text.

The text of a transcript is written here and nowhere else. A tokenizer with a chat template uses it; one without gets the turns of
HH-RLHF (`\\n\\nHuman: … \\n\\nAssistant: …`). So a checkpoint's own tokenizer says how its reward model was trained.
"""

from collections.abc import Sequence
from datetime import date
from functools import cache
from typing import NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from tl_reward.data.pairs import Transcript
from tl_reward.errors import InputError

# What a chat template that asks for today's date gets (`strftime_now`: Llama 3.1's and others), so that a reward is the same every day. It
# is the date that Llama 3.1's own template falls back on.
TEMPLATE_DATE = date(2024, 7, 26)


class RenderedTranscript(NamedTuple):
    """The text that a model sees; `response_start` is the character at which the last assistant turn begins."""

    text: str
    response_start: int


def render(transcript: Transcript, tokenizer: PreTrainedTokenizerBase) -> RenderedTranscript:
    """Writes a transcript as text: by the tokenizer's chat template where it has one, else as HH-RLHF turns."""
    if tokenizer.chat_template is None:
        turns = [_hh_turn(role, content) for role, content in transcript]
        marker = len("\n\nAssistant:")
        return RenderedTranscript("".join(turns), sum(map(len, turns[:-1])) + marker)
    messages = [message._asdict() for message in transcript]
    try:
        # Text, with tokenize=False; the annotation of transformers says what any of its options gives.
        template = _dated(tokenizer.get_chat_template())
        text = cast(str, tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False))
        # No template is for a conversation of nothing.
        prompt = (
            cast(str, tokenizer.apply_chat_template(messages[:-1], chat_template=template, tokenize=False, add_generation_prompt=True))
            if messages[:-1]
            else ""
        )
    except Exception as error:  # jinja's TemplateError, or whatever the template's own checks raise
        raise InputError(f"the tokenizer's chat template refused a transcript: {error}") from None
    if prompt and text.startswith(prompt):
        return RenderedTranscript(text, len(prompt))
    # Some templates rewrite earlier turns once an answer follows: then the answer's own text marks its start.
    shared = next((i for i, (a, b) in enumerate(zip(text, prompt, strict=False)) if a != b), min(len(text), len(prompt)))
    return RenderedTranscript(text, max(text.rfind(transcript[-1].content.strip()), shared))


def template_date(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The date that the tokenizer's chat template gets as today's, as in "2024-07-26"; None where it asks for none."""
    return str(TEMPLATE_DATE) if tokenizer.chat_template is not None and _ASKS in tokenizer.get_chat_template() else None


_ASKS = "strftime_now"


@cache
def _dated(template: str) -> str:
    """A template whose `strftime_now` is a macro that writes `TEMPLATE_DATE`: transformers hands templates no functions of others."""
    if _ASKS not in template:
        return template
    written = "format"
    for letter in "aAbBcCdDeFgGhHIjmMpRSTuUVwxXyYZ":
        for code in (f"%{letter}", f"%-{letter}"):
            value = TEMPLATE_DATE.strftime(code.replace("-", ""))
            value = value.lstrip("0") or "0" if "-" in code else value
            written += f"|replace({code!r}, {value!r})"
    # What follows a macro's end loses its line break; what follows an expression does not.
    return "{% macro strftime_now(format) %}{{ " + written + " }}{% endmacro %}{{ '' }}" + template


def _hh_turn(role: str, content: str) -> str:
    if role == "system":
        return content
    return f"\n\nHuman: {content}" if role == "user" else f"\n\nAssistant: {content}"


def token_texts(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The text of each token. A character whose bytes are spread over several is there once and whole, at the last of them."""
    texts, start = [], 0
    for end in range(1, len(ids) + 1):
        text = cast(str, tokenizer.decode(list(ids[start:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False))
        unfinished = text.endswith("\ufffd") and end < len(ids) and end - start < 8
        texts.append("" if unfinished else text)
        start = start if unfinished else end
    return texts
