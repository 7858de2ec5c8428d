"""Messages and transcripts: what one may hold, and how text with turns and lists of messages are read into the same form."""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from tl_reward.errors import InputError

Role = Literal["system", "user", "assistant", "tool"]
# The names that data sets have for who speaks. A developer's message is what OpenAI calls a system message of its later models.
ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "function_call": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
# Keys under which a row or a part of a message holds what is no text.
MEDIA = ("image", "images", "image_url", "input_image", "audio", "audios", "input_audio", "video", "videos")
# A list of messages as Python or JSON writes it, where the list itself is due.
MESSAGES_AS_TEXT = re.compile(r"""\s*\[\s*\{\s*["'](role|from)["']\s*:""")
_TURN = re.compile(r"\n\n(Human|Assistant):")


class Message(NamedTuple):
    """One message of a transcript: who speaks ("system", "user", "assistant", …), and what."""

    role: Role
    content: str


Transcript = tuple[Message, ...]


class BadPair(InputError):
    """A pair that says nothing: a side is empty, or both are equal. `load_pairs` can leave such pairs out, and counts them by `reason`."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


def parse_transcript(text: str) -> Transcript:
    """Splits a transcript with turns opened by `\\n\\nHuman:` and `\\n\\nAssistant:` into messages.

    One space after the colon belongs to the marker; the rest of the text is kept as it is.

    >>> parse_transcript("\\n\\nHuman: Hi\\n\\nAssistant: Hello.")
    (Message(role='user', content='Hi'), Message(role='assistant', content='Hello.'))
    """
    head, *turns = _TURN.split(text if text.startswith("\n\n") else "\n\n" + text.lstrip("\n"))
    if head.strip() or not turns:
        raise InputError(f"a transcript must open with '\\n\\nHuman:' or '\\n\\nAssistant:', got {text[:40]!r}")
    return tuple(
        Message("user" if speaker == "Human" else "assistant", content.removeprefix(" "))
        for speaker, content in zip(turns[::2], turns[1::2], strict=True)
    )


def has_turns(text: str) -> bool:
    """Whether a text is a transcript: opened by a speaker's marker, that of HH-RLHF or one without its line breaks."""
    return text.startswith(("\n\nHuman:", "\n\nAssistant:")) or (text.lstrip("\n").startswith("Human:") and "\n\nAssistant:" in text)


def read_messages(value: Any) -> Transcript:
    """A list of messages: {role, content}, or ShareGPT's {from, value}; content is text, or a list of parts that are text.

    Raises:
        InputError: another form, an unknown role, an image, a call of a tool that is no text, half of a surrogate pair.
    """
    if not isinstance(value, (list, tuple)):
        raise InputError(f"expected text or a list of {{role, content}}, got {type(value).__name__}")
    return tuple(_message(item) for item in value)


def _message(item: Any) -> Message:
    if isinstance(item, Message):
        role, content = item
    elif isinstance(item, Mapping):
        role, content = (
            (item["from"], item.get("value")) if "from" in item and "role" not in item else (item.get("role"), item.get("content"))
        )
        content = _joined_parts(content)
        if item.get("tool_calls") and not (isinstance(content, str) and content.strip()):
            raise InputError(f"a message holds tool_calls and no text: write the call as its content, got {shown_short(item)}")
    else:
        role, content = None, None
    if not isinstance(role, str) or role not in ROLES or not isinstance(content, str):
        raise InputError(f"a message must hold a role ({', '.join(ROLES)}) and text as content, got {shown_short(item)}")
    if not is_unicode(content):
        raise BadPair(
            f"a message holds half of a surrogate pair, which is no text: {shown_short(content)}", "a message is no text of UTF-8"
        )
    return item if isinstance(item, Message) and role == ROLES[role] else Message(ROLES[role], content)


def _joined_parts(content: Any) -> Any:
    """Parts of a message, each {type: text, text}, as one text; what is no list of parts as it is."""
    if not isinstance(content, (list, tuple)) or not content or not all(isinstance(part, Mapping) for part in content):
        return content
    texts: list[str] = []
    for part in content:
        held = media_of(part) or (part.get("type") if part.get("type") in MEDIA else None)
        if held:
            raise InputError(f"a message holds what is no text ({held}), and a reward model of text cannot read it")
        if not isinstance(part.get("text"), str):
            raise InputError(f"a part of a message must be {{type: text, text}}, got {shown_short(part)}")
        texts.append(part["text"])
    return "".join(texts)


def media_of(row: Mapping[Any, Any]) -> str | None:
    """The first key under which a row or a part holds an image, a sound or a film; None where it holds none."""
    return next((key for key in MEDIA if not _is_nothing(row.get(key))), None)


def _is_nothing(value: Any) -> bool:
    return (
        value is None
        or value is False
        or (isinstance(value, float) and value != value)
        or (isinstance(value, (str, list, tuple, dict)) and not value)
    )


def is_unicode(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def printable(text: str) -> str:
    """A text in one line that every terminal can write: ids are printable, names of files and keys of rows need not be."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def shown_short(value: Any) -> str:
    """A value in a message: its first 60 characters in one line, without what a terminal cannot write."""
    return ascii(value[:60] if isinstance(value, (str, list, tuple)) else value)[:60]
