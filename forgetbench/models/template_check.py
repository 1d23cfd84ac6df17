"""Try a chat template with a whole conversation, so that nothing runs on one that misprints it."""

from __future__ import annotations

from collections.abc import Sequence

from forgetbench.core.records import Speaker, Turn
from forgetbench.models.chat_template import ASKED, ASKED_AGAIN, SAID, ChatTemplate, TemplateError

ANOTHER = "give model.chat_template the path of one that does"
"""The next step, behind what a template does not do."""
_TALK = (Turn(Speaker.user, (ASKED,)), Turn(Speaker.assistant, (SAID,)), Turn(Speaker.user, (ASKED_AGAIN,)))


def check_template(template: ChatTemplate, source: str) -> None:
    """Refuse a template that would misprint a conversation.

    Args:
        template: of a processor, without a system prompt.
        source: how the template is called in messages.

    Raises:
        ValueError: what is wrong with it, and what to do.
    """
    other = ANOTHER
    if not template.is_there:
        if template.is_prefix_model:
            return
        raise ValueError(f"{source} is not there, and the model is none that does without; {other}")
    _check_pictures(template, source)
    if not template.takes_parts and not template.prints_reply(SAID):
        raise ValueError(
            f"{source} does not write a reply as it is (a list of parts is printed as Python writes it, or the "
            f"reply is left out); {other}"
        )
    try:
        whole = template.render(_TALK)
    except ValueError as error:
        raise ValueError(f"{source} fails on a conversation of two questions: {error}; {other}") from error
    if not whole.find(ASKED) < whole.find(SAID) < whole.find(ASKED_AGAIN):
        raise ValueError(f"{source} leaves out a part of a conversation of two questions; {other}")
    if _asks_for_the_time(template, _TALK):
        raise ValueError(
            f"{source} writes the date into prompts (strftime_now), so the same command would ask something else "
            "tomorrow; give model.chat_template a copy with a fixed date"
        )


def _asks_for_the_time(template: ChatTemplate, turns: Sequence[Turn]) -> bool:
    """Whether a conversation cannot be written without the clock, which templates call as `strftime_now`."""
    try:
        template.written([template.message(turn) for turn in turns], asks=True, strftime_now=None)
    except TemplateError:
        return True
    return False


def _check_pictures(template: ChatTemplate, source: str) -> None:
    """A template for text alone would drop every picture."""
    question = {"type": "text", "text": "?"}
    try:
        shown, unshown = (
            template.written([{"role": "user", "content": content}], asks=True)
            for content in ([{"type": "image"}, question], [question])
        )
    except TemplateError as error:
        raise ValueError(
            f"{source} fails on a question with a picture ({error}); a message's content is a list "
            "of parts of type `image` or `text`"
        ) from error
    if shown == unshown:
        raise ValueError(
            f"{source} writes nothing for a picture; it must write the model's image token for every "
            "part of type `image`"
        )
