"""Render conversations with a model's chat template.

Templates differ in how they write a reply, where they put pictures, and whether they accept a system turn. These
properties are probed by rendering short conversations, never inferred from the model's name.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from jinja2 import Environment, TemplateSyntaxError

from forgetbench.core.errors import reason
from forgetbench.core.records import Speaker, Turn
from forgetbench.models.conversation_tokens import AFTER_END, REPLY, REPLY_END

QUESTION, ANSWER, NEXT_QUESTION = "Query one.", "Reply one.", "Query two."
"""A short conversation for probing templates."""
MAX_CHARACTERS = 2**20
"""Longest template."""


class TemplateError(ValueError):
    """A template raised an error, for example with `raise_exception`."""


@dataclass(frozen=True)
class ReplyForm:
    """The text that a template writes around a reply."""

    before: str
    """Text between the prompt and the reply, such as a blank."""
    end: str
    """The end token or end text; the tokenizer's end token if the template writes none."""
    after: str
    """Text between the end and the next turn, such as a line break; the model need not generate it."""
    is_written: bool
    """Whether the template writes the end."""


class ChangedReplyError(ValueError):
    """A template changes a reply; some templates drop the thoughts of earlier replies."""


class ChatTemplate:
    """Renders conversations with a processor's chat template."""

    def __init__(self, processor: Any, system_prompt: str | None = None) -> None:
        """Take the template of a processor or of its tokenizer.

        Args:
            processor: any ProcessorMixin with a tokenizer.
            system_prompt: put before conversations that have no system turn.

        Raises:
            ValueError: the processor's chat template is not usable as a template.
        """
        self._processor, self._system_prompt = processor, system_prompt
        self._template = _select_template(processor.chat_template or processor.tokenizer.chat_template)
        # A processor with a suffix argument belongs to a prefix language model, which answers a single question.
        self.is_prefix_model = "suffix" in inspect.signature(processor.__call__).parameters
        self.picture = str(getattr(processor, "image_token", "<image>"))
        """The placeholder that the processor replaces by a picture's tokens."""

    @property
    def has_template(self) -> bool:
        """Whether the model has a template."""
        return self._template is not None

    def render(self, turns: Sequence[Turn], asks: bool = True) -> str:
        """Render a conversation as a string.

        Args:
            turns: the conversation; texts may be marked.
            asks: end with the generation prompt.

        Raises:
            ValueError: the template refuses the conversation.
        """
        if self._system_prompt is not None and turns[0].speaker is not Speaker.system:
            turns = [Turn(Speaker.system, (self._system_prompt,)), *turns]
        if self._template is None:
            return self._render_without_template(turns)
        if turns[0].speaker is Speaker.system and (reason := self.system_turn_problem):
            raise ValueError(reason)
        try:
            return self.apply([self.message(turn) for turn in turns], asks)
        except TemplateError as error:
            raise ValueError(f"the chat template does not take it ({error})") from error

    def replies(self, turns: Sequence[Turn], protected: Sequence[Turn]) -> str:
        """Render a conversation with its generation prompt, with marks around the replies that are trained on.

        Args:
            turns: the conversation.
            protected: the same conversation with its texts marked.

        Raises:
            ChangedReplyError: the template changes a reply, so its tokens cannot be located.
            ValueError: the template refuses the conversation.
        """
        if not any(_is_trained(turn) for turn in turns):
            return self.render(protected)
        with_marks = [_with_reply_marks(turn) if _is_trained(turn) else turn for turn in protected]
        rendered = self.render(with_marks)
        done, marked = 0, ""
        for index, turn in enumerate(with_marks):
            if not _is_trained(turn):
                continue
            reply = _turn_text(turn)
            reply_start = rendered.find(reply, done)
            if reply_start < 0:
                raise ChangedReplyError(
                    "the chat template changes its reply "
                    f"{_turn_text(turns[index])[:40]!r}; train on the last reply alone (recipe.train_on=last), or give "
                    "model.chat_template a template that writes replies as they are"
                )
            start = self._reply_start(rendered, reply_start, with_marks[:index])
            text_end = reply_start + len(reply)
            stop, after = self._end_lengths(rendered[text_end:])
            protected_reply = rendered[start:reply_start] + _turn_text(protected[index])
            marked += rendered[done:start] + REPLY + protected_reply + rendered[text_end : text_end + stop] + REPLY_END
            marked += rendered[text_end + stop : text_end + after] + AFTER_END
            done = text_end + after
        return marked + rendered[done:]

    def _reply_start(self, rendered: str, reply_start: int, earlier_turns: Sequence[Turn]) -> int:
        """Start of a reply's training span: the end of its prompt if the template writes the prompt as usual."""
        blank = self.reply_form.before
        if rendered.endswith(self._generation_prompt + blank, 0, reply_start):
            return reply_start - len(blank)
        prompt = self.render(earlier_turns)
        return len(prompt) if len(prompt) <= reply_start and rendered.startswith(prompt) else reply_start

    def _end_lengths(self, rest: str) -> tuple[int, int]:
        """Lengths in `rest`, the text after a reply: up to its end token, and up to the next turn."""
        form = self.reply_form
        if not form.is_written:
            return 0, 0
        blank = len(rest) - len(rest.lstrip())
        if not rest[blank:].startswith(form.end):
            return 0, 0
        stop = blank + len(form.end)
        return stop, stop + len(form.after) if rest[stop:].startswith(form.after) else stop

    @cached_property
    def _question_prompt(self) -> str:
        """The prompt of a short question."""
        return self.render([Turn(Speaker.user, (QUESTION,))])

    @cached_property
    def _generation_prompt(self) -> str:
        """The generation prompt that the template appends."""
        return self._question_prompt.removeprefix(self.render([Turn(Speaker.user, (QUESTION,))], asks=False))

    @cached_property
    def reply_form(self) -> ReplyForm:
        """The text around replies, from rendering a short reply."""
        if self._template is None:
            return ReplyForm("", self._eos, "", is_written=False)
        prompt = self._question_prompt
        rendered = self.render([Turn(Speaker.user, (QUESTION,)), Turn(Speaker.assistant, (ANSWER,))], asks=False)
        reply_start = rendered.rindex(ANSWER)
        before = rendered[len(prompt) : reply_start] if rendered.startswith(prompt) else ""
        rest = rendered[reply_start + len(ANSWER) :]
        end = rest.strip()
        if not end:
            return ReplyForm(before, self._eos, "", is_written=False)
        return ReplyForm(before, end, rest[rest.index(end) + len(end) :], is_written=True)

    def last_reply(self, text: str) -> str:
        """The rendered last reply, from the end of the prompt to the end token (exclusive).

        Args:
            text: the reply; may be marked.

        Raises:
            ValueError: the template does not render the reply right after its prompt.
        """
        form = self.reply_form
        expected = form.before + text
        if self._template is None:
            return expected
        continuation = self._continuation(text)
        if continuation is None and self._continuation(ANSWER) is not None:
            raise ValueError(
                "the chat template writes its last reply otherwise than behind the prompt that asks for it, as where "
                "prompts close an empty thought and a reply brings its own; take the thought out, or give "
                "model.chat_template a template whose prompts leave the thought to the reply"
            )
        if continuation is None or continuation.startswith(expected):
            return expected
        if text in continuation:
            return continuation[: continuation.find(text) + len(text)]
        # The template changed the reply, for example the layout of a thought; cut at the end token, which comes last.
        return (
            continuation[: continuation.rindex(form.end)]
            if form.is_written and form.end in continuation
            else continuation.rstrip()
        )

    def _continuation(self, text: str) -> str | None:
        """The rendered text after the prompt; None if a rendered reply does not start with the prompt."""
        rendered = self.render([Turn(Speaker.user, (QUESTION,)), Turn(Speaker.assistant, (text,))], asks=False)
        return rendered.removeprefix(self._question_prompt) if rendered.startswith(self._question_prompt) else None

    @property
    def _eos(self) -> str:
        return str(self._processor.tokenizer.eos_token)

    @cached_property
    def trims_replies(self) -> bool:
        """Whether the template strips blanks around a reply."""
        reply = " x  "
        turns = [
            Turn(Speaker.user, (QUESTION,)),
            Turn(Speaker.assistant, (reply,)),
            Turn(Speaker.user, (NEXT_QUESTION,)),
        ]
        return self._template is not None and reply not in self.render(turns)

    @cached_property
    def system_turn_problem(self) -> str:
        """Why the template cannot write a system turn; empty if it can."""
        system, reply = (self.message(Turn(speaker, (ANSWER,))) for speaker in (Speaker.system, Speaker.assistant))
        question = self.message(Turn(Speaker.user, (QUESTION,)))
        fix = "take it out (and leave model.system_prompt empty), or give model.chat_template a template that writes it"
        try:
            rendered = self.apply([system, question], asks=True)
        except TemplateError as error:
            return f"the chat template takes no system turn ({error}); {fix}"
        if ANSWER not in rendered:
            return f"the chat template leaves a system turn out; {fix}"
        try:
            if rendered == self.apply([reply, question], asks=True):
                return f"the chat template writes a system turn as a reply; {fix}"
        except TemplateError:
            pass
        return ""

    @cached_property
    def keeps_places(self) -> bool:
        """Whether pictures stay at their places among a turn's texts; many templates put them first."""
        content = [{"type": "text", "text": QUESTION}, {"type": "image"}, {"type": "text", "text": NEXT_QUESTION}]
        rendered = self.apply([{"role": "user", "content": content}], asks=True)
        between = rendered[rendered.find(QUESTION) + len(QUESTION) : rendered.find(NEXT_QUESTION)]
        return bool(between.strip())

    @cached_property
    def shown_picture(self) -> str:
        """The text that the template writes for a picture."""
        text = {"type": "text", "text": QUESTION}
        with_picture = self.apply([{"role": "user", "content": [{"type": "image"}, text]}], asks=True)
        without_picture = self.apply([{"role": "user", "content": [text]}], asks=True)
        prefix = _common_prefix_length(with_picture, without_picture)
        suffix = _common_prefix_length(with_picture[prefix:][::-1], without_picture[prefix:][::-1])
        return with_picture[prefix : len(with_picture) - suffix]

    @cached_property
    def takes_parts(self) -> bool:
        """Whether a reply may be given as a list of parts; some templates print the Python list."""
        return self.prints_reply(_parts(ANSWER))

    @cached_property
    def _takes_system_parts(self) -> bool:
        """Whether a system turn may be given as a list of parts."""
        question = {"role": "user", "content": _parts(QUESTION)}
        return self._prints_text([{"role": "system", "content": _parts(ANSWER)}, question])

    def prints_reply(self, content: Any) -> bool:
        """Whether the template writes a reply unchanged if its content is given in this form."""
        question = {"role": "user", "content": _parts(QUESTION)}
        return self._prints_text([question, {"role": "assistant", "content": content}])

    def _prints_text(self, messages: Sequence[Any]) -> bool:
        """Whether the text is written, and not the Python list."""
        try:
            rendered = self.apply(messages, asks=False)
        except TemplateError:
            return False
        return ANSWER in rendered and "'type'" not in rendered and '"type"' not in rendered

    def message(self, turn: Turn) -> dict[str, Any]:
        """A turn as a message of transformers, in a form that the template writes unchanged."""
        if turn.speaker is not Speaker.user:
            takes_parts = self._takes_system_parts if turn.speaker is Speaker.system else self.takes_parts
            text = _turn_text(turn)
            return {"role": turn.speaker.value, "content": _parts(text) if takes_parts else text}
        parts = turn.parts
        if self._is_out_of_place(turn):
            picture_text = self.shown_picture.rstrip("\n")
            parts = ("".join(part if isinstance(part, str) else picture_text for part in parts),)
        else:
            parts = tuple(self._without_double_breaks(parts))
        content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]
        return {"role": "user", "content": content}

    def _is_out_of_place(self, turn: Turn) -> bool:
        """Whether a picture follows a text and the template would move it to the front."""
        is_text = [isinstance(part, str) for part in turn.parts]
        return is_text != sorted(is_text) and not self.keeps_places

    def _without_double_breaks(self, parts: Sequence[Any]) -> list[Any]:
        """Remove the line break after each picture if the template writes a line break there."""
        if not self.shown_picture.endswith("\n"):
            return list(parts)
        pairs = zip(["", *parts], parts, strict=False)
        return [
            part.removeprefix("\n") if isinstance(part, str) and not isinstance(before, str) else part
            for before, part in pairs
        ]

    def _render_without_template(self, turns: Sequence[Turn]) -> str:
        if len(turns) > 1:
            raise ValueError(
                "the model has no chat template, so it takes one question and its answer, no further or system turn"
            )
        parts = turns[0].parts
        pictures = sum(not isinstance(part, str) for part in parts)
        if any(isinstance(part, str) for part in parts[:pictures]):
            raise ValueError("the model has no chat template, so it takes pictures before the question, and none in it")
        text = _turn_text(turns[0])
        return self.picture * pictures + (text.removeprefix("\n") if pictures else text)

    def apply(self, messages: Sequence[Any], asks: bool, **variables: Any) -> str:
        """Render messages with the template.

        Args:
            messages: messages of transformers.
            asks: end with the generation prompt.
            **variables: further variables of the template; plain data.

        Raises:
            TemplateError: the template fails.
        """
        # The processor's method would warn of every unknown variable.
        renderer = self._processor.tokenizer if variables else self._processor
        settings = {"chat_template": self._template, "add_generation_prompt": asks, "tokenize": False, **variables}
        try:
            return str(renderer.apply_chat_template(list(messages), **settings))
        except Exception as error:  # templates are programs, and may raise any exception
            raise TemplateError(reason(error)) from error


def _check_source(template: str) -> None:
    """Refuse a template whose compilation could not be interrupted by a time limit.

    Raises:
        ValueError: says what is wrong with the template.
    """
    if len(template) > MAX_CHARACTERS:
        raise ValueError(f"has {len(template):,} letters, and at most {MAX_CHARACTERS:,} are read")
    if "**" in template and _has_powers(template):
        raise ValueError("computes powers (**), which no prompt needs and which may take for ever")


def _has_powers(template: str) -> bool:
    try:
        return any(kind == "operator" and text == "**" for _, kind, text in Environment().lex(template))
    except TemplateSyntaxError:
        return False  # reported when the template is compiled


def _select_template(template: object) -> str | None:
    """The template; of several named templates, the default."""
    chosen = template.get("default") if isinstance(template, dict) else template
    if chosen is None and not template:
        return None
    if not isinstance(chosen, str):
        raise ValueError(f"is no text, nor several of them with one called 'default', but {template!r:.60}")
    _check_source(chosen)
    return chosen


def _is_trained(turn: Turn) -> bool:
    return turn.speaker is Speaker.assistant and turn.has_loss


def _turn_text(turn: Turn) -> str:
    return "".join(part for part in turn.parts if isinstance(part, str))


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _with_reply_marks(turn: Turn) -> Turn:
    return replace(turn, parts=(REPLY + _turn_text(turn) + REPLY_END,))


def _common_prefix_length(first: str, second: str) -> int:
    """Length of the longest common prefix of two texts."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
