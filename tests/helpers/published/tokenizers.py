"""Two tokenizers: a token a byte, and one in which the tokens that published heads look for have the ids that Llama 3 gives them."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BYTES, LLAMA3 = 262, 128257  # sizes of the vocabularies
PAD_OF_BYTES, STEP_OF_BYTES = 258, 259
PAD_OF_LLAMA3, CLS_OF_LLAMA3 = 128256, 128003
STEP, CLS = "<extra_0>", "<|reserved_special_token_1|>"
# Where ArmoRM's gate is read: the end of the prompt's turn and the opening of the answer's.
GATING_TOKENS = (128009, 128006, 78191, 128007, 271)

_OWN_TURNS = (
    "{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
_LLAMA3_TURNS = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    """It puts the beginning token first itself, as Llama 2's does, and its template writes one too. The pad token is in no text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = {"<s>": 256, "</s>": 257, "<pad>": PAD_OF_BYTES, STEP: STEP_OF_BYTES, "<a>": 260, "<b>": 261}
    tokenizer = _tokenizer({byte: i for i, byte in enumerate(alphabet)}, special, {})
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 256)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=_OWN_TURNS
    )


def llama3_tokenizer() -> PreTrainedTokenizerFast:
    """Its vocabulary has gaps: 256 bytes, and the few tokens of Llama 3 that heads look for, with their own ids."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = {
        "<|begin_of_text|>": 128000,
        "<|end_of_text|>": 128001,
        "<|reserved_special_token_0|>": 128002,
        CLS: CLS_OF_LLAMA3,
        "<|start_header_id|>": 128006,
        "<|end_header_id|>": 128007,
        "<|eot_id|>": 128009,
        "[PAD]": PAD_OF_LLAMA3,
    }
    tokenizer = _tokenizer({byte: i for i, byte in enumerate(alphabet)}, special, {"assistant": 78191, "\n\n": 271})
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        pad_token="[PAD]",
        cls_token=CLS,
        chat_template=_LLAMA3_TURNS,
    )


def _tokenizer(letters: dict[str, int], special: dict[str, int], words: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(vocab=letters | special | words, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    return tokenizer
