"""What is a secret of the environment, and where its value is found."""

from __future__ import annotations

import pytest

from forgetbench.core.secrets import held_secret, is_secret, without_secrets


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "WANDB_API_KEY",
        "OPENAI_KEY",
        "DB_PASSWORD",
        "GITHUB_token",
    ],
)
def test_variables_called_like_secrets_are_known(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["SCRATCH", "TOKENIZERS_PARALLELISM", "HF_TOKEN_PATH", "SSH_KEY_FILE", "KEYBOARD"])
def test_other_variables_are_not(name: str) -> None:
    assert not is_secret(name)


def test_a_secret_is_found_in_a_text_and_named_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "abcdefgh1234")
    monkeypatch.setenv("SHORT_TOKEN", "true")
    assert held_secret("run-abcdefgh1234-x") == "MY_TOKEN"
    assert held_secret("it is true") is None
    assert without_secrets("run-abcdefgh1234-x") == "run-<MY_TOKEN>-x"
