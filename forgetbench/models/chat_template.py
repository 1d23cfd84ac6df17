"""A model's chat template: conversations in, strings out, and what must hold of a template before anything runs.

Templates differ in how they write a reply, where they put pictures, whether they take a system turn. What a template
does is found out by rendering short conversations, never by its name.
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

ASKED, SAID, ASKED_AGAIN = "Query one.", "Reply one.", "Query two."
"""A short conversation that templates are tried with."""
MOST_LETTERS = 2**20
"""Of a template."""


class TemplateError(ValueError):
    """A template fails, as with its own `raise_exception`."""


@dataclass(frozen=True)
class ReplyForm:
    """How a template writes a reply after the prompt that asks for it."""

    before: str
    """Between the prompt and the reply, such as a blank."""
    end: str
    """The end token, or what stands for it; the tokenizer's own where the template writes none."""
    after: str
    """What follows before the next turn, such as a line break; never asked of a model."""
    is_written: bool
    """Whether the template itself writes the end."""


class ChangedReplyError(ValueError):
    """A template writes a reply otherwise than it is, as some drop the thoughts of earlier ones."""


class ChatTemplate:
    """Renders conversations for one processor."""

    def __init__(self, processor: Any, system_prompt: str | None = None) -> None:
        """Look at a processor, whose template may be its tokenizer's.

        Args:
            processor: any ProcessorMixin with a tokenizer.
            system_prompt: goes before conversations that have no system turn of their own.

        Raises:
            ValueError: what stands for a template is none.
        """
        self._processor, self._system_prompt = processor, system_prompt
        self._template = _chosen(processor.chat_template or processor.tokenizer.chat_template)
        # A processor that takes a suffix belongs to a prefix language model, which answers a question and no more.
        self.is_prefix_model = "suffix" in inspect.signature(processor.__call__).parameters
        self.picture = str(getattr(processor, "image_token", "<image>"))
        """What the processor replaces by a picture's tokens."""

    @property
    def is_there(self) -> bool:
        """Whether the model has a template."""
        return self._template is not None

    def render(self, turns: Sequence[Turn], asks: bool = True) -> str:
        """The conversation as one string.

        Args:
            turns: what is said; texts may be marked.
            asks: end where the model is to reply.

        Raises:
            ValueError: the template does not take such a conversation.
        """
        if self._system_prompt is not None and turns[0].speaker is not Speaker.system:
            turns = [Turn(Speaker.system, (self._system_prompt,)), *turns]
        if self._template is None:
            return self._without_template(turns)
        if turns[0].speaker is Speaker.system and (reason := self.against_system_turns):
            raise ValueError(reason)
        try:
            return self.written([self.message(turn) for turn in turns], asks)
        except TemplateError as error:
            raise ValueError(f"the chat template does not take it ({error})") from error

    def replies(self, turns: Sequence[Turn], protected: Sequence[Turn]) -> str:
        """The conversation up to where the model is to reply, with marks around the replies that are trained.

        Args:
            turns: what is said, as it is.
            protected: the same with its texts marked.

        Raises:
            ChangedReplyError: the template changes a reply, so that it is not known what would be trained.
            ValueError: it does not take the conversation.
        """
        if not any(_is_trained(turn) for turn in turns):
            return self.render(protected)
        opened = [_between_marks(turn) if _is_trained(turn) else turn for turn in protected]
        whole = self.render(opened)
        at, found = 0, ""
        for number, turn in enumerate(opened):
            if not _is_trained(turn):
                continue
            said = _joined(turn)
            place = whole.find(said, at)
            if place < 0:
                raise ChangedReplyError(
                    "the chat template changes its reply "
                    f"{_joined(turns[number])[:40]!r}; train on the last reply alone (recipe.train_on=last), or give "
                    "model.chat_template a template that writes replies as they are"
                )
            start = self._start(whole, place, opened[:number])
            text_end = place + len(said)
            stop, after = self._ends(whole[text_end:])
            inner = whole[start:place] + _joined(protected[number])
            found += whole[at:start] + REPLY + inner + whole[text_end : text_end + stop] + REPLY_END
            found += whole[text_end + stop : text_end + after] + AFTER_END
            at = text_end + after
        return found + whole[at:]

    def _start(self, whole: str, place: int, before: Sequence[Turn]) -> int:
        """Where a reply begins that stands at `place`: behind the prompt that asks for it, if that is written alike."""
        blank = self.reply_form.before
        if whole.endswith(self._asking + blank, 0, place):
            return place - len(blank)
        head = self.render(before)
        return len(head) if len(head) <= place and whole.startswith(head) else place

    def _ends(self, rest: str) -> tuple[int, int]:
        """How much of what follows a reply is its end token, and how much comes before the next turn."""
        form = self.reply_form
        if not form.is_written:
            return 0, 0
        blank = len(rest) - len(rest.lstrip())
        if not rest[blank:].startswith(form.end):
            return 0, 0
        stop = blank + len(form.end)
        return stop, stop + len(form.after) if rest[stop:].startswith(form.after) else stop

    @cached_property
    def _asked(self) -> str:
        """The prompt of a short question."""
        return self.render([Turn(Speaker.user, (ASKED,))])

    @cached_property
    def _asking(self) -> str:
        """What a prompt ends in that a question alone does not."""
        return self._asked.removeprefix(self.render([Turn(Speaker.user, (ASKED,))], asks=False))

    @cached_property
    def reply_form(self) -> ReplyForm:
        """How replies are written, by the example of a short one."""
        if self._template is None:
            return ReplyForm("", self._eos, "", is_written=False)
        head = self._asked
        whole = self.render([Turn(Speaker.user, (ASKED,)), Turn(Speaker.assistant, (SAID,))], asks=False)
        place = whole.rindex(SAID)
        before = whole[len(head) : place] if whole.startswith(head) else ""
        rest = whole[place + len(SAID) :]
        end = rest.strip()
        if not end:
            return ReplyForm(before, self._eos, "", is_written=False)
        return ReplyForm(before, end, rest[rest.index(end) + len(end) :], is_written=True)

    def last_reply(self, text: str) -> str:
        """What the template writes for a reply that was asked for, from the end of the prompt to before its end token.

        Args:
            text: the reply; may be marked.

        Raises:
            ValueError: the template does not let such a reply follow its prompts.
        """
        form = self.reply_form
        usual = form.before + text
        if self._template is None:
            return usual
        said = self._said(text)
        if said is None and self._said(SAID) is not None:
            raise ValueError(
                "the chat template writes its last reply otherwise than behind the prompt that asks for it, as where "
                "prompts close an empty thought and a reply brings its own; take the thought out, or give "
                "model.chat_template a template whose prompts leave the thought to the reply"
            )
        if said is None or said.startswith(usual):
            return usual
        if text in said:
            return said[: said.find(text) + len(text)]
        # Changed, as a thought that is laid out anew; the end token is the last of what is written.
        return said[: said.rindex(form.end)] if form.is_written and form.end in said else said.rstrip()

    def _said(self, text: str) -> str | None:
        """What a conversation goes on with after the prompt; None where a written reply opens otherwise than asked."""
        whole = self.render([Turn(Speaker.user, (ASKED,)), Turn(Speaker.assistant, (text,))], asks=False)
        return whole.removeprefix(self._asked) if whole.startswith(self._asked) else None

    @property
    def _eos(self) -> str:
        return str(self._processor.tokenizer.eos_token)

    @cached_property
    def trims_replies(self) -> bool:
        """Whether blanks around a reply are dropped."""
        said = " x  "
        turns = [Turn(Speaker.user, (ASKED,)), Turn(Speaker.assistant, (said,)), Turn(Speaker.user, (ASKED_AGAIN,))]
        return self._template is not None and said not in self.render(turns)

    @cached_property
    def against_system_turns(self) -> str:
        """Why the template takes no system turn; empty where it does."""
        system, reply = (self.message(Turn(speaker, (SAID,))) for speaker in (Speaker.system, Speaker.assistant))
        asked = self.message(Turn(Speaker.user, (ASKED,)))
        fix = "take it out (and leave model.system_prompt empty), or give model.chat_template a template that writes it"
        try:
            shown = self.written([system, asked], asks=True)
        except TemplateError as error:
            return f"the chat template takes no system turn ({error}); {fix}"
        if SAID not in shown:
            return f"the chat template leaves a system turn out; {fix}"
        try:
            if shown == self.written([reply, asked], asks=True):
                return f"the chat template writes a system turn as a reply; {fix}"
        except TemplateError:
            pass
        return ""

    @cached_property
    def keeps_places(self) -> bool:
        """Whether pictures are written where they stand among a turn's texts; many templates put them first."""
        user = [{"type": "text", "text": ASKED}, {"type": "image"}, {"type": "text", "text": ASKED_AGAIN}]
        shown = self.written([{"role": "user", "content": user}], asks=True)
        between = shown[shown.find(ASKED) + len(ASKED) : shown.find(ASKED_AGAIN)]
        return bool(between.strip())

    @cached_property
    def shown_picture(self) -> str:
        """What the template writes for one picture."""
        text = {"type": "text", "text": ASKED}
        with_one = self.written([{"role": "user", "content": [{"type": "image"}, text]}], asks=True)
        without = self.written([{"role": "user", "content": [text]}], asks=True)
        before = _shared_start(with_one, without)
        behind = _shared_start(with_one[before:][::-1], without[before:][::-1])
        return with_one[before : len(with_one) - behind]

    @cached_property
    def takes_parts(self) -> bool:
        """Whether a reply may be given as a list of parts; some templates print the list as Python writes it."""
        return self.prints_reply(_parts(SAID))

    @cached_property
    def _takes_system_parts(self) -> bool:
        """The same of a system turn."""
        asked = {"role": "user", "content": _parts(ASKED)}
        return self._prints([{"role": "system", "content": _parts(SAID)}, asked])

    def prints_reply(self, content: Any) -> bool:
        """Whether a reply is written as it is when its content is given like this."""
        asked = {"role": "user", "content": _parts(ASKED)}
        return self._prints([asked, {"role": "assistant", "content": content}])

    def _prints(self, messages: Sequence[Any]) -> bool:
        """Whether the text is written, and no list as Python writes it."""
        try:
            shown = self.written(messages, asks=False)
        except TemplateError:
            return False
        return SAID in shown and "'type'" not in shown and '"type"' not in shown

    def message(self, turn: Turn) -> dict[str, Any]:
        """A turn as transformers takes it, in the form that the template writes as it is."""
        if turn.speaker is not Speaker.user:
            takes_parts = self._takes_system_parts if turn.speaker is Speaker.system else self.takes_parts
            text = _joined(turn)
            return {"role": turn.speaker.value, "content": _parts(text) if takes_parts else text}
        parts = turn.parts
        if self._is_out_of_place(turn):
            bare = self.shown_picture.rstrip("\n")
            parts = ("".join(part if isinstance(part, str) else bare for part in parts),)
        else:
            parts = tuple(self._without_double_breaks(parts))
        content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]
        return {"role": "user", "content": content}

    def _is_out_of_place(self, turn: Turn) -> bool:
        """Whether pictures stand behind text where the template would put them first."""
        is_text = [isinstance(part, str) for part in turn.parts]
        return is_text != sorted(is_text) and not self.keeps_places

    def _without_double_breaks(self, parts: Sequence[Any]) -> list[Any]:
        """Parts without the line break after a picture's mark where the template writes one itself."""
        if not self.shown_picture.endswith("\n"):
            return list(parts)
        pairs = zip(["", *parts], parts, strict=False)
        return [
            part.removeprefix("\n") if isinstance(part, str) and not isinstance(before, str) else part
            for before, part in pairs
        ]

    def _without_template(self, turns: Sequence[Turn]) -> str:
        if len(turns) > 1:
            raise ValueError(
                "the model has no chat template, so it takes one question and its answer, no further or system turn"
            )
        parts = turns[0].parts
        pictures = sum(not isinstance(part, str) for part in parts)
        if any(isinstance(part, str) for part in parts[:pictures]):
            raise ValueError("the model has no chat template, so it takes pictures before the question, and none in it")
        text = _joined(turns[0])
        return self.picture * pictures + (text.removeprefix("\n") if pictures else text)

    def written(self, messages: Sequence[Any], asks: bool, **names: Any) -> str:
        """Messages as the template writes them.

        Args:
            messages: as transformers takes them.
            asks: end where the model is to reply.
            names: what else the template can use; plain data.

        Raises:
            TemplateError: the template fails.
        """
        # A processor's own would warn of every name that it does not know.
        writer = self._processor.tokenizer if names else self._processor
        settings = {"chat_template": self._template, "add_generation_prompt": asks, "tokenize": False, **names}
        try:
            return str(writer.apply_chat_template(list(messages), **settings))
        except Exception as error:  # templates are programs, and raise what programs raise
            raise TemplateError(reason(error)) from error


def _check_source(template: str) -> None:
    """Refuse a template that no limit could stop once it is compiled.

    Raises:
        ValueError: says what is wrong with it.
    """
    if len(template) > MOST_LETTERS:
        raise ValueError(f"has {len(template):,} letters, and at most {MOST_LETTERS:,} are read")
    if "**" in template and _has_powers(template):
        raise ValueError("computes powers (**), which no prompt needs and which may take for ever")


def _has_powers(template: str) -> bool:
    try:
        return any(kind == "operator" and text == "**" for _, kind, text in Environment().lex(template))
    except TemplateSyntaxError:
        return False  # told when it is compiled


def _chosen(template: object) -> str | None:
    """The template itself; of several by name, the one that is used where no other is asked for."""
    chosen = template.get("default") if isinstance(template, dict) else template
    if chosen is None and not template:
        return None
    if not isinstance(chosen, str):
        raise ValueError(f"is no text, nor several of them with one called 'default', but {template!r:.60}")
    _check_source(chosen)
    return chosen


def _is_trained(turn: Turn) -> bool:
    return turn.speaker is Speaker.assistant and turn.has_loss


def _joined(turn: Turn) -> str:
    return "".join(part for part in turn.parts if isinstance(part, str))


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _between_marks(turn: Turn) -> Turn:
    return replace(turn, parts=(REPLY + _joined(turn) + REPLY_END,))


def _shared_start(one: str, other: str) -> int:
    """How many characters two texts begin with in common."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
