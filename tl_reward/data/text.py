"""Transcripts as text, and tokens as text.

The text of a transcript is written here and nowhere else. A tokenizer with a chat template uses it; one without gets the turns of
HH-RLHF (`\\n\\nHuman: … \\n\\nAssistant: …`). So a checkpoint's own tokenizer says how its reward model was trained; where it says
so wrongly, `set_template` gives it another template.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from transformers import PreTrainedTokenizerBase

from tl_reward.data.pairs import Message, Transcript
from tl_reward.errors import InputError, first_line, shown

# What a chat template that asks for today's date gets (`strftime_now`: Llama 3.1's and others), so that a reward is the same every day. It
# is the date that Llama 3.1's own template falls back on.
TEMPLATE_DATE = date(2024, 7, 26)


class NoTemplate(UserWarning):
    """A tokenizer says nothing of how its model reads transcripts: they are written as HH-RLHF turns."""


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
        text = _by_template(messages, tokenizer)
        prompt = _by_template(messages[:-1], tokenizer, opens_answer=True) if messages[:-1] else ""
        silenced = [{**message, "content": ""} if message["role"] == "tool" else message for message in messages]
        unread = silenced != messages and text == _by_template(silenced, tokenizer)
    except Exception as error:  # jinja's TemplateError, or whatever the template's own checks raise
        raise InputError(f"the tokenizer's chat template refused a transcript: {error}") from None
    if unread:
        raise InputError("the tokenizer's chat template refused a transcript: it writes nothing of what a tool says")
    if prompt and text.startswith(prompt):
        return RenderedTranscript(text, len(prompt))
    # Some templates rewrite earlier turns once an answer follows: then the answer's own text marks its start.
    shared = next((i for i, (a, b) in enumerate(zip(text, prompt, strict=False)) if a != b), min(len(text), len(prompt)))
    return RenderedTranscript(text, max(text.rfind(transcript[-1].content.strip()), shared))


def _by_template(messages: Sequence[dict[str, Any]], tokenizer: PreTrainedTokenizerBase, *, opens_answer: bool = False) -> str:
    """Text, with tokenize=False; the annotation of transformers says what any of its options gives."""
    template = _dated(tokenizer.get_chat_template())
    return cast(str, tokenizer.apply_chat_template([*messages], chat_template=template, tokenize=False, add_generation_prompt=opens_answer))


def set_template(tokenizer: PreTrainedTokenizerBase, template: str | Path) -> None:
    """Says how a tokenizer's model reads transcripts, in the place of the tokenizer's own chat template.

    Args:
        tokenizer: changed in place: `model.tokenizer`.
        template: "hh": turns of HH-RLHF. "plain": the texts of the messages, a blank line between them, with the special tokens that the
            tokenizer puts around a text. Else a file with a Jinja chat template, as `chat_template.jinja` of a checkpoint.

    Raises:
        InputError: no such file, one that is no UTF-8 text or no template, or one that leaves out the text of a message.
    """
    if template == "hh":
        own, label = None, "hh"
    elif template == "plain":
        own, label = _plain_template(tokenizer), "plain"
    else:
        own = _template_of(template)
        label = f"jinja {hashlib.sha256(own.encode()).hexdigest()[:16]}"
    before = tokenizer.chat_template
    tokenizer.chat_template = own
    try:
        text = render((Message("user", "a question"), Message("assistant", "an answer")), tokenizer).text
        if "a question" not in text or "an answer" not in text:
            raise InputError("it leaves out what the user or the assistant says")
    except InputError as error:
        tokenizer.chat_template = before
        raise InputError(f"{template}: not a chat template of such models ({first_line(error)})") from None
    if own != before:
        setattr(tokenizer, _GIVEN, label)


def check_template(template: str | Path | None) -> None:
    """Says no before a model is loaded: raises InputError where `set_template` would, but for what only a tokenizer tells."""
    if template not in (None, "hh", "plain"):
        _template_of(template)


def given_template(tokenizer: PreTrainedTokenizerBase | None) -> str | None:
    """Which template `set_template` gave: "hh", "plain", or "jinja" and the start of the text's sha256; None where none was given."""
    return getattr(tokenizer, _GIVEN, None)


_GIVEN = "_given_template"
_MOST_TEMPLATE = 2**20  # bytes of a template's file


def _template_of(path: str | Path) -> str:
    if not isinstance(path, (str, Path)):
        raise InputError(f'template must be "hh", "plain" or a file, got {shown(path)}')
    file = Path(path)
    try:
        if not file.is_file():
            raise InputError(f'template must be "hh", "plain" or a file with a Jinja template, got {shown(str(path))}: no such file')
        with file.open("rb") as opened:
            content = opened.read(_MOST_TEMPLATE + 1)
        if len(content) > _MOST_TEMPLATE:
            raise InputError(f"{path}: a template may have {_MOST_TEMPLATE:,} bytes, and this file has more")
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not readable as UTF-8 text ({first_line(error)})") from None
    if not text.strip():
        raise InputError(f"{path}: file is empty")
    return text


def _plain_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """A chat template stands for all of a text, so it has to write the special tokens that the tokenizer would put around it."""
    bare, full = (tokenizer("a", add_special_tokens=add)["input_ids"] for add in (False, True))
    start = next((i for i in range(len(full)) if full[i : i + len(bare)] == bare), 0)
    before, after = ("".join(tokenizer.convert_ids_to_tokens(ids)) for ids in (full[:start], full[start + len(bare) :]))
    return (
        "{{ " + json.dumps(before) + " }}{% for message in messages %}{{ message.content }}"
        "{% if not loop.last or add_generation_prompt %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
        "{% if not add_generation_prompt %}{{ " + json.dumps(after) + " }}{% endif %}"
    )


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
    if role == "tool":
        raise InputError("a transcript holds what a tool says, and HH-RLHF has no turns for that: a chat template writes it")
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
