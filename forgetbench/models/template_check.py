"""Check a chat template by rendering conversations, before anything runs with a template that is wrong."""

from __future__ import annotations

from collections.abc import Sequence

from forgetbench.core.records import Speaker, Turn
from forgetbench.models.chat_template import ANSWER, NEXT_QUESTION, QUESTION, ChatTemplate, TemplateError

ANOTHER = "give model.chat_template the path of one that does"
"""End of error messages: what the user can do."""
_CONVERSATION = (
    Turn(Speaker.user, (QUESTION,)),
    Turn(Speaker.assistant, (ANSWER,)),
    Turn(Speaker.user, (NEXT_QUESTION,)),
)


def check_template(template: ChatTemplate, source: str) -> None:
    """Refuse a template that renders conversations incorrectly.

    Args:
        template: a processor's template, without a system prompt.
        source: name of the template in messages.

    Raises:
        ValueError: says what is wrong with the template, and what to do.
    """
    advice = ANOTHER
    if not template.has_template:
        if template.is_prefix_model:
            return
        raise ValueError(f"{source} is not there, and the model is none that does without; {advice}")
    _check_pictures(template, source)
    if not template.takes_parts and not template.prints_reply(ANSWER):
        raise ValueError(
            f"{source} does not write a reply as it is (a list of parts is printed as Python writes it, or the "
            f"reply is left out); {advice}"
        )
    try:
        rendered = template.render(_CONVERSATION)
    except ValueError as error:
        raise ValueError(f"{source} fails on a conversation of two questions: {error}; {advice}") from error
    if not rendered.find(QUESTION) < rendered.find(ANSWER) < rendered.find(NEXT_QUESTION):
        raise ValueError(f"{source} leaves out a part of a conversation of two questions; {advice}")
    if _needs_clock(template, _CONVERSATION):
        raise ValueError(
            f"{source} writes the date into prompts (strftime_now), so the same command would ask something else "
            "tomorrow; give model.chat_template a copy with a fixed date"
        )


def _needs_clock(template: ChatTemplate, turns: Sequence[Turn]) -> bool:
    """Whether rendering a conversation needs the clock, which templates call as `strftime_now`."""
    try:
        template.apply([template.message(turn) for turn in turns], asks=True, strftime_now=None)
    except TemplateError:
        return True
    return False


def _check_pictures(template: ChatTemplate, source: str) -> None:
    """Refuse a template that drops pictures, such as a template for text models."""
    question = {"type": "text", "text": "?"}
    try:
        with_picture, without_picture = (
            template.apply([{"role": "user", "content": content}], asks=True)
            for content in ([{"type": "image"}, question], [question])
        )
    except TemplateError as error:
        raise ValueError(
            f"{source} fails on a question with a picture ({error}); a message's content is a list "
            "of parts of type `image` or `text`"
        ) from error
    if with_picture == without_picture:
        raise ValueError(
            f"{source} writes nothing for a picture; it must write the model's image token for every "
            "part of type `image`"
        )
