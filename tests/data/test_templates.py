"""How a transcript is written: by the tokenizer's own template, by one that is given, and never with a message left out in silence."""

from pathlib import Path

import pytest
from helpers.tiny_tokenizers import byte_tokenizer

from tl_reward.data.encoding import encode
from tl_reward.data.messages import Message
from tl_reward.data.text import check_template, given_template, render, set_template
from tl_reward.errors import InputError

HI = (Message("user", "Hi"), Message("assistant", "Hello."))
OWN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"


def test_templates_by_name(tmp_path: Path):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = OWN
    assert render(HI, tokenizer) == ("<user>Hi<assistant>Hello.", len("<user>Hi<assistant>")) and given_template(tokenizer) is None
    set_template(tokenizer, "hh")
    assert (
        render(HI, tokenizer) == ("\n\nHuman: Hi\n\nAssistant: Hello.", len("\n\nHuman: Hi\n\nAssistant:"))
        and given_template(tokenizer) == "hh"
    )
    set_template(tokenizer, "plain")
    assert render(HI, tokenizer).text.endswith("Hi\n\nHello.") and given_template(tokenizer) == "plain"
    (tmp_path / "chat.jinja").write_text("\ufeff" + OWN.replace("<", "["), encoding="utf-8")
    set_template(tokenizer, tmp_path / "chat.jinja")
    assert render(HI, tokenizer).text == "[user>Hi[assistant>Hello." and (given_template(tokenizer) or "").startswith("jinja ")


@pytest.mark.parametrize("bos", [False, True])
def test_plain_text_has_the_special_tokens_of_a_text(bos: bool):
    tokenizer = byte_tokenizer()
    if bos:
        from tokenizers.processors import TemplateProcessing

        end = tokenizer.eos_token
        special = [(end, tokenizer.eos_token_id)]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{end} $A {end}", special_tokens=special)
    expected = tokenizer("Hi\n\nHello.")["input_ids"]
    set_template(tokenizer, "plain")
    (row,) = encode([HI], tokenizer)
    assert list(row.ids) == expected
    assert str(tokenizer.decode(list(row.ids[row.response_start :]))).startswith("Hello.")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such file"),
        (b"", "file is empty"),
        (b"\xff\xfe", "not readable as UTF-8 text"),
        (b"{% for m in messages %}", "not a chat template"),
        (
            b"{{ raise_exception('never') }}",
            "not a chat template of such models (the tokenizer's chat template refused a transcript: never",
        ),
        (b"Hello", "it leaves out what the user or the assistant says"),
        (b"{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "it leaves out what the user or the assistant says"),
        (b"x" * (2**20 + 1), "a template may have 1,048,576 bytes"),
    ],
)
def test_a_file_that_is_no_template(content: bytes | None, says: str, tmp_path: Path):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = OWN
    path = tmp_path / "chat.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        set_template(tokenizer, path)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert tokenizer.chat_template == OWN and given_template(tokenizer) is None  # as it was


def test_a_template_is_checked_before_a_model_is_loaded(tmp_path: Path):
    for known in (None, "hh", "plain"):
        check_template(known)
    with pytest.raises(InputError, match="no such file"):
        check_template("chatml")


CALL = (Message("user", "Sum?"), Message("assistant", "add"), Message("tool", "4"), Message("assistant", "It is 4."))


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (None, "HH-RLHF has no turns for that"),
        ("{% for m in messages if m.role != 'tool' %}{{ m.content }}{% endfor %}", "it writes nothing of what a tool says"),
    ],
)
def test_what_a_tool_says_is_never_left_out_in_silence(template: str | None, says: str):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(InputError, match=says):
        render(CALL, tokenizer)


def test_what_a_tool_says_is_written_by_a_template_that_can():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = OWN
    assert render(CALL, tokenizer).text == "<user>Sum?<assistant>add<tool>4<assistant>It is 4."
