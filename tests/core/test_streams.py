"""What a terminal gets to see of texts that would command it."""

from __future__ import annotations

import io
import json
import sys

import pytest

from forgetbench.core.streams import guard_streams, visible, visible_json

HOSTILE = "\x1b[31mred\x07\x9b2J\u202egnp.exe\x7f"


def test_control_characters_and_marks_of_direction_are_written_out() -> None:
    assert visible(HOSTILE) == "\\x1b[31mred\\x07\\x9b2J\\u202egnp.exe\\x7f"
    assert visible("Größe\t1\n数") == "Größe\t1\n数"


def test_json_of_such_texts_means_the_same() -> None:
    written = visible_json(json.dumps([HOSTILE], ensure_ascii=False))
    assert written.isascii()
    assert json.loads(written) == [HOSTILE]


def test_guarded_streams_show_messages_of_libraries_and_leave_their_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    guard_streams()
    guard_streams()
    print(f"a\x1b[2J{HOSTILE[:5]}")
    sys.stderr.write("\r 10%")
    sys.stderr.write("\n\x1b[A")
    assert out.getvalue() == "a\\x1b[2J\\x1b[31m\n"
    assert err.getvalue() == "\r 10%\n\x1b[A"
