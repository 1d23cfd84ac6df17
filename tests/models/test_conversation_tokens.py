"""Marks in a rendered conversation: texts stay texts, replies are found, and without marks nothing changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers
from transformers import PreTrainedTokenizerFast

from forgetbench.models.conversation_tokens import AFTER_END, REPLY, REPLY_END, ConversationTokenizer, Reply
from tests.support.families import qwen_tokenizer, tokenizer


def words() -> PreTrainedTokenizerFast:
    """As Llama's: every stretch of text between control tokens begins with a blank of its own."""
    pieces = ["<unk>", "<s>", "</s>", *"▁abcUSER:</>s\n"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    vocabulary |= {"▁a": len(vocabulary), "▁b": len(vocabulary) + 1}
    made = Tokenizer(models.BPE(vocabulary, [("▁", "a"), ("▁", "b")], unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def shown(subject: ConversationTokenizer, ids: list[int]) -> list[str]:
    return list(subject.convert_ids_to_tokens(ids))


def test_a_string_without_marks_is_the_tokenizers_own_affair() -> None:
    inner = qwen_tokenizer()
    text = "<|im_start|>user\nIs it </s>?<|im_end|>"
    assert ConversationTokenizer(inner)([text]).data == inner([text]).data


def test_a_control_tokens_name_in_a_text_becomes_no_control_token() -> None:
    inner = qwen_tokenizer()
    subject = ConversationTokenizer(inner)
    end = inner.convert_tokens_to_ids("<|im_end|>")
    ids = subject.ids("<|im_start|>user\n" + subject.protect("Say <|im_end|> now.") + "<|im_end|>")
    assert ids.count(end) == 1
    assert ids[-1] == end
    assert inner.decode(ids) == "<|im_start|>user\nSay <|im_end|> now.<|im_end|>"


def test_a_text_next_to_such_a_name_is_tokenised_with_it() -> None:
    # In running text `</s>a` has no blank before `a`: only a control token is followed by a new stretch.
    subject = ConversationTokenizer(words())
    assert shown(subject, subject.ids(f"<s>{subject.protect('a</s>a')}</s>a")) == [
        *("<s>", "▁a", "<", "/", "s", ">", "a", "</s>", "▁a"),
    ]


def test_a_processors_name_of_a_picture_is_protected_too() -> None:
    subject = ConversationTokenizer(qwen_tokenizer(), ["<picture>"])
    assert "<picture>" not in subject.protect("a <picture> b")
    assert subject.decode(subject.ids(subject.protect("a <picture> b"))) == "a <picture> b"


@pytest.mark.parametrize("mark", ["\ufdd0", "\ufdd2", "\ufdef"])
def test_a_text_that_holds_a_noncharacter_is_refused(mark: str) -> None:
    with pytest.raises(ValueError, match=f"noncharacter U\\+{ord(mark):04X}"):
        ConversationTokenizer(qwen_tokenizer()).protect(f"a{mark}b")


@given(
    st.lists(st.sampled_from(["<|im_end|>", "<|image_pad|>", "</s>", "a", " ", "\n", "é", "梟", "🦉", "0"]), max_size=8)
)
def test_any_text_comes_back_and_holds_no_control_token(pieces: list[str]) -> None:
    inner = qwen_tokenizer()
    subject, text = ConversationTokenizer(inner), "".join(pieces)
    ids = subject.ids(subject.protect(text))
    assert inner.decode(ids) == text
    assert not set(ids) & set(inner.all_special_ids)


def test_replies_are_found_among_the_tokens() -> None:
    inner = qwen_tokenizer()
    subject = ConversationTokenizer(inner)
    text = f"<|im_start|>assistant\n{REPLY}Yes.<|im_end|>{REPLY_END}\n{AFTER_END}<|im_start|>user\n"
    ids = subject.ids(text)
    (reply,) = subject.replies
    assert inner.decode(ids[reply.start : reply.stop]) == "Yes.<|im_end|>"
    assert inner.decode(ids[reply.start : reply.after]) == "Yes.<|im_end|>\n"
    assert ids == inner(text.translate(dict.fromkeys(map(ord, REPLY + REPLY_END + AFTER_END))))["input_ids"]


def test_the_blank_that_a_tokenizer_puts_before_a_reply_is_the_replys() -> None:
    subject = ConversationTokenizer(words())
    ids = subject.ids(f"USER:{REPLY} a</s>{REPLY_END}{AFTER_END}USER:")
    assert shown(subject, ids) == ["▁", *"USER:", "▁a", "</s>", "▁", *"USER:"]
    assert subject.replies == (Reply(6, 8, 8),)


def test_no_token_reaches_from_the_prompt_into_a_reply() -> None:
    # "assistant\n" and a reply that begins with a line break: at once, the two breaks would be one token.
    inner = tokenizer(("<pad>", "</s>"), "<pad>", "</s>")
    inner.add_tokens(["\n\n"])
    subject = ConversationTokenizer(inner)
    ids = subject.ids(f"user\n{REPLY}\nYes.</s>{REPLY_END}{AFTER_END}")
    (reply,) = subject.replies
    assert inner.decode(ids[: reply.start]) == "user\n"
    assert inner.decode(ids[reply.start :]) == "\nYes.</s>"
    assert ids != inner("user\n\nYes.</s>")["input_ids"]


def test_first_tokens_that_a_tokenizer_adds_are_added_and_counted() -> None:
    from tokenizers.processors import TemplateProcessing

    inner = words()
    inner.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    subject = ConversationTokenizer(inner)
    encoding = subject([f"USER:{REPLY} a</s>{REPLY_END}{AFTER_END}"], return_tensors="pt")
    assert shown(subject, encoding["input_ids"][0].tolist()) == ["<s>", "▁", *"USER:", "▁a", "</s>"]
    assert subject.replies == (Reply(7, 9, 9),)
    named = subject(["USER: " + subject.protect("</s>")])
    assert shown(subject, named["input_ids"][0])[0] == "<s>"


def test_a_character_of_the_marked_string_leads_to_its_token() -> None:
    inner = qwen_tokenizer()
    subject = ConversationTokenizer(inner)
    text = subject.protect("a<|im_end|>") + "<|vision_end|>b"
    encoding = subject([text])
    place = text.index("<|vision_end|>")
    assert inner.convert_ids_to_tokens(encoding["input_ids"][0][encoding.char_to_token(0, place)]) == "<|vision_end|>"
