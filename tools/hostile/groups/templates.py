"""Chat templates: a model's own, and those that the command line names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from tools.hostile.case import Case, Ends, Place
from tools.hostile.model_files import PLAN, Make, deep, setting, with_edit, with_file


def cases() -> Iterator[Case]:
    """Every case of this group."""
    for what, text in _REFUSED.items():
        yield Case(f"the model's: {what}", PLAN, with_file(_FILE, text), says=("m",))
    for what, text in _GIVEN.items():
        yield Case(f"given: {what}", _given("t.jinja"), _written(text), says=("t.jinja",))
    for what, text in _FINE.items():
        yield Case(f"given: {what}", _given("t.jinja"), _written(text), Ends.works)
    for what, value in _VALUES.items():
        yield Case(f"in tokenizer_config.json: {what}", PLAN, _in_settings(value), says=("m",))
    for what, value in _FINE_VALUES.items():
        yield Case(f"in tokenizer_config.json: {what}", PLAN, _in_settings(value), Ends.works)
    for what, path in _PATHS.items():
        yield Case(f"path: {what}", _given(path), _special, says=("model.chat_template",))
    for what, content in _FILES.items():
        make = _as_old_file(content)
        yield Case(f"in chat_template.json: {what}", PLAN, make, says=("chat_template.json",))


_FILE = "chat_template.jinja"
_BODY = (
    "{% for message in messages %}{{ message['role'] }}: {% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}{% if message['role'] == 'assistant' %}</s>{% endif %}\n{% endfor %}"
)
"""Of a template that is right; writes texts and lists."""
_REFUSED: dict[str, str | bytes] = {
    "no Jinja": "{% for message in messages %}{{ message",
    "a loop that is not closed": "{% for message in messages %}",
    "UTF-16": _BODY.encode("utf-16"),
    "no text": b"\xff\xfe\xfd\x80",
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00",
    "a billion turns": "{% for i in range(10**9) %}x{% endfor %}" + _BODY,
    "loops in loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}" + _BODY,
    "loops over letters": "{% set s = 'a' * 3000 %}"
    + "{% for a in s %}{% for b in s %}{% for c in s %}{% endfor %}{% endfor %}{% endfor %}"
    + _BODY,
    "a power of a power": "{{ 10**10**10 }}" + _BODY,
    "a text that doubles": "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}"
    "{% endfor %}" + _BODY,
    "a text of ten billion letters": "{% set s = 'a' * 10000000000 %}" + _BODY,
    "a text that is filled up": "{{ '%9999999999d' % 1 }}" + _BODY,
    "a text that is centred": "{{ 'a'.center(9999999999) }}" + _BODY,
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}" + _BODY,
    "its own refusal": "{{ raise_exception('only text, please') }}",
    "an import": "{% import 'os' as os %}" + _BODY,
    "an include": "{% include '/etc/passwd' %}" + _BODY,
    "a parent": "{% extends 'base.html' %}" + _BODY,
    "Python's insides": "{{ ''.__class__.__mro__[1].__subclasses__() }}" + _BODY,
    "a division by zero": "{{ 1 / 0 }}" + _BODY,
    "an index that is not there": "{{ [][5].a.b }}" + _BODY,
    "a name that is not there": "{{ nothing.at.all }}" + _BODY,
    "a filter that is not there": "{{ 'a' | wash }}" + _BODY,
    "a sum of texts and numbers": "{{ 'a' + 1 }}" + _BODY,
    "a change of the conversation": "{% set _ = messages.append(1) %}" + _BODY,
    "no pictures": "{% for message in messages %}{{ message['role'] }}{% endfor %}",
    "no replies": _BODY.replace(
        "{% if message['content'] is string %}",
        "{% if message['role'] == 'assistant' %}{% elif message['content'] is string %}",
    ),
    "nothing": "   \n",
    "the last turn alone": _BODY.replace("in messages %}", "in messages[-1:] %}", 1),
    "the turns in reverse": _BODY.replace("in messages %}", "in messages | reverse %}", 1),
    "the date": "{{ strftime_now('%Y-%m-%d') }}" + _BODY,
    "two megabytes": "{# " + "x" * 2_000_000 + " #}" + _BODY,
    "ten thousand brackets": "{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}" + _BODY,
    "ten thousand conditions": "{% if 1 %}" * 10_000 + "{% endif %}" * 10_000 + _BODY,
    "a thousand loops in each other": "{% for i in [1] %}" * 1000 + "{% endfor %}" * 1000 + _BODY,
    "a number of 5,000 digits": "{{ " + "9" * 5000 + " }}" + _BODY,
}
_GIVEN = {
    name: _REFUSED[name]
    for name in (
        "no Jinja",
        "UTF-16",
        "loops in loops",
        "a power of a power",
        "a text that doubles",
        "its own refusal",
        "Python's insides",
        "no pictures",
        "two megabytes",
    )
} | {"empty": b""}
_FINE = {
    "one that is right": _BODY,
    "a byte order mark": b"\xef\xbb\xbf" + _BODY.encode(),
    "Windows' line ends": _BODY.replace("%}{%", "%}{#\r\n#}{%").encode(),
    "a function's insides": "{{ range.__globals__ }}" + _BODY,
    "stars in a text": "{# 2**10 #}{{ '' if '**' else '' }}" + _BODY,
    "a name that is not there": "{{ nothing }}" + _BODY,
    "a loop of a thousand": "{% for i in range(1000) %}{% endfor %}" + _BODY,
}
_VALUES: dict[str, object] = {
    "a number": 1,
    "true": True,
    "a list": [_BODY],
    "a list of names": [{"name": "tool_use", "template": _BODY}],
    "a list of lists": [[["name", "default"]]],
    "names without templates": [{"name": "default"}],
    "an object without a default": {"tool_use": _BODY},
    "an object of numbers": {"default": 4},
    "an endless one": _REFUSED["loops in loops"],
    "one that fails": _REFUSED["its own refusal"],
}
_FINE_VALUES: dict[str, object] = {
    "one that is right": _BODY,
    "a list with a default": [{"name": "default", "template": _BODY}, {"name": "tools", "template": "x"}],
}
_PATHS = {
    "nothing there": "nowhere.jinja",
    "a folder": "folder",
    "a FIFO": "fifo",
    "a device": "/dev/zero",
    "a loop of links": "loop",
    "a name of 5,000 letters": "n" * 5000,
    "shipped, but above": "embedded:../../../etc/passwd",
    "shipped, but not there": "embedded:none.jinja",
}
_FILES: dict[str, str] = {
    "null": "null",
    "a list": "[]",
    "a text": json.dumps(_BODY),
    "10,000 levels": deep(),
}


def _given(path: str) -> tuple[str, ...]:
    return (*PLAN, f"model.chat_template={path}") if "," not in path else (*PLAN, f"model.chat_template='{path}'")


def _written(text: str | bytes) -> Make:
    def make(place: Place) -> None:
        place.copy("model", "m")
        place.write("t.jinja", text)

    return make


def _in_settings(value: object) -> Make:
    edit = with_edit("tokenizer_config.json", setting("chat_template", value))

    def make(place: Place) -> None:
        edit(place)
        (place.folder / "m" / _FILE).unlink()

    return make


def _as_old_file(content: str) -> Make:
    write = with_file("chat_template.json", content)

    def make(place: Place) -> None:
        write(place)
        (place.folder / "m" / _FILE).unlink()

    return make


def _special(place: Place) -> None:
    place.copy("model", "m")
    (place.folder / "folder").mkdir()
    os.mkfifo(place.folder / "fifo")
    Path(place.folder / "loop").symlink_to("loop")
