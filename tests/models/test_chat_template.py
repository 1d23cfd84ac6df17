"""What a chat template does is found by rendering; one that misprints a conversation is refused before a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from forgetbench.config import ModelConfig
from forgetbench.core.errors import UserError
from forgetbench.core.records import Speaker, Turn
from forgetbench.models.chat_template import ChatTemplate, ReplyForm
from forgetbench.models.pretrained import load_processor
from tests.support.conversations import picture
from tests.support.families import CHATML, PICTURES_FIRST, TURNS, llava

HEAD = "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
PICTURE = "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
TAIL = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PARTS = f"{HEAD}{{% for part in message['content'] %}}{PICTURE}{{% endfor %}}{TAIL}"
PRINTS_LISTS = (
    f"{HEAD}{{% if message['role'] == 'user' %}}{{% for part in message['content'] %}}{PICTURE}{{% endfor %}}"
    f"{{% else %}}{{{{ message['content'] }}}}{{% endif %}}{TAIL}"
)
WITHOUT_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system, please') }}{% endif %}" + PARTS
CLOCK = "{{ strftime_now('%d %b %Y') }}\n" + PARTS
ONE_QUESTION = "{% if messages | length > 2 %}{{ raise_exception('one question only') }}{% endif %}" + PARTS
DROPS_THOUGHTS = PARTS.replace(
    "{{ part['text'] }}",
    "{% if message['role'] == 'assistant' and not loop.parent %}{{ part['text'].split('</think>')[-1].lstrip('\n') }}"
    "{% else %}{{ part['text'] }}{% endif %}",
).replace(" and not loop.parent", "")
# As Llama 3.2 Vision's: the system turn is printed, whatever it is.
PRINTS_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}<|im_start|>system\n{{ messages[0]['content'] | trim }}<|im_end|>\n"
    "{% set messages = messages[1:] %}{% endif %}" + PARTS
)
# As Qwen3.5's with thinking off: prompts close an empty thought, and a last reply is written with its own.
CLOSED_THOUGHT = (
    f"{HEAD}{{% if message['role'] == 'assistant' and loop.last and '</think>' not in message['content'][0]['text'] %}}"
    f"<think>\n\n</think>\n\n{{% endif %}}{{% for part in message['content'] %}}{PICTURE}{{% endfor %}}{TAIL}"
).replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n\n</think>\n\n{% endif %}")
ASKED, SAID = Turn(Speaker.user, ("What?",)), Turn(Speaker.assistant, ("A hat.",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llava(tmp_path_factory.mktemp("models") / "llava")


def made(folder: Path, path: Path, text: str, system_prompt: str | None = None) -> ChatTemplate:
    """A template under the toy LLaVA's processor, tried as at loading."""
    (path / "own.jinja").write_text(text)
    config = ModelConfig(path=str(folder), chat_template=str(path / "own.jinja"), system_prompt=system_prompt)
    return ChatTemplate(load_processor(config), system_prompt)


def test_replies_are_written_as_the_example_of_a_short_one_shows(folder: Path, tmp_path: Path) -> None:
    assert made(folder, tmp_path, PARTS).reply_form == ReplyForm("", "<|im_end|>", "\n", is_written=True)
    template = ChatTemplate(load_processor(ModelConfig(path=str(folder))))
    assert template.reply_form == ReplyForm(" ", "</s>", "", is_written=True)
    bare = made(folder, tmp_path, PARTS.replace("<|im_end|>\n", " "))
    assert bare.reply_form == ReplyForm("", "</s>", "", is_written=False)


def test_a_template_that_prints_lists_as_python_does_is_given_a_string(folder: Path, tmp_path: Path) -> None:
    subject = made(folder, tmp_path, PRINTS_LISTS)
    assert "assistant\nA hat.<|im_end|>" in subject.render([ASKED, SAID, ASKED])


def test_one_that_prints_neither_is_refused(folder: Path, tmp_path: Path) -> None:
    wrong = PRINTS_LISTS.replace("{{ message['content'] }}", "{{ message['content']['text'] }}")
    with pytest.raises(UserError, match=r"own\.jinja does not write a reply as it is"):
        made(folder, tmp_path, wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CLOCK, "writes the date into prompts"),
        (ONE_QUESTION, r"fails on a conversation of two questions: .*one question only"),
        (PARTS.replace("in messages", "in messages[-1:]"), "leaves out a part of a conversation"),
    ],
    ids=["clock", "one question", "last turn alone"],
)
def test_a_template_that_misprints_a_conversation_is_refused(
    folder: Path, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        made(folder, tmp_path, text)


def test_a_template_that_takes_no_system_turn_is_told_where_one_is_given(folder: Path, tmp_path: Path) -> None:
    subject = made(folder, tmp_path, WITHOUT_SYSTEM)
    assert subject.render([ASKED])
    with pytest.raises(ValueError, match=r"takes no system turn .*no system, please"):
        subject.render([Turn(Speaker.system, ("Be brief.",)), ASKED])
    with pytest.raises(UserError, match=r"model\.system_prompt: the chat template takes no system turn"):
        made(folder, tmp_path, WITHOUT_SYSTEM, system_prompt="Be brief.")
    dropped = PARTS.replace("in messages", "in messages if message['role'] != 'system'")
    with pytest.raises(UserError, match="leaves a system turn out"):
        made(folder, tmp_path, dropped, system_prompt="Be brief.")
    with pytest.raises(UserError, match="writes a system turn as a reply"):
        load_processor(ModelConfig(path="embedded:tiny", system_prompt="Be brief."))


def test_a_system_prompt_goes_before_conversations_without_one(folder: Path, tmp_path: Path) -> None:
    subject = made(folder, tmp_path, PARTS, system_prompt="Be brief.")
    assert subject.render([ASKED]).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    rendered = subject.render([Turn(Speaker.system, ("Be long.",)), ASKED])
    assert "Be long." in rendered
    assert "Be brief." not in rendered


def test_a_system_turn_is_given_as_a_string_where_a_list_would_be_printed(folder: Path, tmp_path: Path) -> None:
    subject = made(folder, tmp_path, PRINTS_SYSTEM, system_prompt="Be brief.")
    assert subject.render([ASKED]).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat?")


def test_a_template_that_only_the_tokenizer_has_is_used(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    text = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").unlink()
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": text}))
    processor = load_processor(ModelConfig(path=str(copy)))
    whole = ChatTemplate(load_processor(ModelConfig(path=str(folder))))
    assert ChatTemplate(processor).render([ASKED, SAID, ASKED]) == whole.render([ASKED, SAID, ASKED])


def test_a_chat_model_without_any_template_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match=r"The chat template of .* is not there.*model\.chat_template"):
        load_processor(ModelConfig(path=str(copy)))


def test_pictures_stand_in_the_text_also_where_a_template_puts_them_first(folder: Path, tmp_path: Path) -> None:
    turn = Turn(Speaker.user, ("Left: ", picture(1), " Right: ", picture(2), " Which?"))
    for text in (PARTS, PICTURES_FIRST):
        assert "Left: <image> Right: <image> Which?" in made(folder, tmp_path, text).render([turn])


def test_a_line_break_that_the_template_writes_after_a_picture_is_not_doubled(folder: Path, tmp_path: Path) -> None:
    turn = Turn(Speaker.user, (picture(1), "\nWhat is it?"))
    template = ChatTemplate(load_processor(ModelConfig(path=str(folder))))
    assert "<image>\nWhat is it?" in template.render([turn])
    assert "<image>\nWhat is it?" in made(folder, tmp_path, PARTS).render([turn])


@pytest.mark.parametrize(("text", "trims"), [(CHATML, False), (TURNS, True)])
def test_whether_blanks_around_replies_are_dropped_is_found_out(
    folder: Path, tmp_path: Path, text: str, trims: bool
) -> None:
    shows = text.replace("<|image_pad|>", "<image>").replace("<start_of_image>", "<image>")
    assert made(folder, tmp_path, shows).trims_replies is trims


def test_a_reply_that_the_template_changes_is_not_trained_on(folder: Path, tmp_path: Path) -> None:
    subject = made(folder, tmp_path, DROPS_THOUGHTS)
    thought = Turn(Speaker.assistant, ("<think>Hm.</think>\nA hat.",))
    talk = [ASKED, thought, ASKED]
    assert "Hm." not in subject.render(talk)
    with pytest.raises(ValueError, match=r"changes its reply '<think>Hm.*recipe\.train_on=last"):
        subject.replies(talk, talk)
    untouched = [ASKED, SAID, ASKED]
    assert subject.replies(untouched, untouched).count("A hat.") == 1


def test_a_thought_does_not_follow_a_prompt_that_closed_one(folder: Path, tmp_path: Path) -> None:
    subject = made(folder, tmp_path, CLOSED_THOUGHT)
    assert subject.last_reply("A hat.") == "A hat."
    with pytest.raises(ValueError, match=r"prompts close an empty thought .*take the thought out"):
        subject.last_reply("<think>\nHm.\n</think>\n\nA hat.")


def test_a_reply_without_loss_is_not_marked(folder: Path, tmp_path: Path) -> None:
    subject = made(folder, tmp_path, PARTS)
    silent = [ASKED, Turn(Speaker.assistant, ("A hat.",), has_loss=False), ASKED]
    assert subject.replies(silent, silent) == subject.render(silent)
