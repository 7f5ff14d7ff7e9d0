"""Environment variables: changes are seen, values are not."""

from __future__ import annotations

import json

import pytest

from rollback.resources.configuration import (
    VariableChange,
    capture_variables,
    changed_variables,
    looks_secret,
)

KEY = bytes(range(32))


@pytest.mark.parametrize(
    "name",
    [
        "PASSWORD", "DB_PASSWORD", "PGPASSWORD", "MYSQL_PWD", "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID", "OPENAI_API_KEY", "APIKEY", "HF_TOKEN", "GITHUB_PAT", "hf_token",
        "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY", "SENTRY_DSN", "PRIVATE_KEY", "KEY2",
        "GOOGLE_APPLICATION_CREDENTIALS", "BASIC_AUTH", "SESSION_COOKIE", "MYTOKEN", "SSH_KEY_1",
    ],
)  # fmt: skip
def test_names_of_secrets(name: str) -> None:
    """A pattern in the configuration never reveals them."""
    assert looks_secret(name)
    captured = capture_variables({name: "canary"}, ["*"], KEY)
    assert "canary" not in json.dumps(captured)


@pytest.mark.parametrize(
    "name", ["PATH", "KEYBOARD", "MLFLOW_TRACKING_URI", "OMP_NUM_THREADS", "PATTERN", "COMPASS"]
)
def test_names_that_are_no_secrets(name: str) -> None:
    """What helps to understand a run may be listed by pattern."""
    assert not looks_secret(name)
    assert capture_variables({name: "v"}, [name[:3] + "*"], KEY)[name]["value"] == "v"


def test_nothing_in_clear_unless_listed() -> None:
    """Names, and a hash that needs the key; listed values in clear."""
    environ = {"LR": "0.1", "DB_PASSWORD": "hunter2", "MODE": "fast"}
    captured = capture_variables(environ, ["LR"], KEY)
    assert sorted(captured) == ["DB_PASSWORD", "LR", "MODE"]
    assert captured["LR"]["value"] == "0.1"
    assert set(captured["MODE"]) == {"hash"}
    assert "hunter2" not in json.dumps(captured)


def test_a_secret_is_shown_only_where_it_is_spelt_out() -> None:
    """The project may insist, by its full name."""
    environ = {"HF_TOKEN": "canary"}
    assert "value" not in capture_variables(environ, ["HF_*"], KEY)["HF_TOKEN"]
    assert capture_variables(environ, ["HF_TOKEN"], KEY)["HF_TOKEN"]["value"] == "canary"


def test_a_password_in_an_url_stays_hidden() -> None:
    """The name is harmless, the value is not."""
    environ = {"DATABASE_URL": "postgresql://me:hunter2@localhost/db"}
    assert "hunter2" not in json.dumps(capture_variables(environ, ["DATABASE_*"], KEY))


def test_hashes_need_the_key_and_hide_equal_values() -> None:
    """Neither another store nor a neighbour's equal value gives a value away."""
    captured = capture_variables({"A": "same", "B": "same"}, [], KEY)
    assert captured["A"]["hash"] != captured["B"]["hash"]
    assert captured["A"]["hash"] != capture_variables({"A": "same"}, [], KEY[::-1])["A"]["hash"]
    assert captured == capture_variables({"B": "same", "A": "same"}, [], KEY)
    with pytest.raises(ValueError, match="16 bytes"):
        capture_variables({}, [], b"short")


def test_changes() -> None:
    """Added, modified, deleted, by name; what every shell changes is no change."""
    old = capture_variables({"A": "1", "B": "2", "C": "3", "SHLVL": "1", "_": "x"}, ["A"], KEY)
    new = capture_variables({"A": "9", "C": "3", "D": "4", "SHLVL": "2", "_": "y"}, ["A"], KEY)
    assert changed_variables(old, new) == [
        VariableChange("modified", "A", "1", "9"),
        VariableChange("deleted", "B"),
        VariableChange("added", "D"),
    ]
    assert changed_variables(old, old) == []


def test_odd_names_and_values() -> None:
    """Bytes that are no text, newlines and empty values survive JSON."""
    environ = {"A\udcff": "v\udcfe\n", "EMPTY": ""}
    captured = json.loads(json.dumps(capture_variables(environ, ["A\udcff"], KEY)))
    assert sorted(captured) == ["A\\xff", "EMPTY"]
    assert captured["A\\xff"]["value"] == "v\udcfe\n"
