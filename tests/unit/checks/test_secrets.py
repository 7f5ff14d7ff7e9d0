"""Secrets: found by mark and by name, model settings left alone, values never repeated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks import secrets
from checks.secrets import find_secrets, is_configuration

# Put together here, so that no scanner takes this file for a leak.
MARKED = [
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1B2_" * 13,
    "glpat-" + "a1B2c3D4e5" * 2,
    "xoxb-" + "1234567890-abcdef",
    "sk-ant-" + "a1B2c3D4" * 5,
    "hf_" + "aBcDeFgHiJ" * 3 + "aBcD",
    "AIza" + "a1B2c" * 7,
    "dapi" + "0123456789abcdef" * 2,
    "-----BEGIN RSA " + "PRIVATE KEY-----",
    "-----BEGIN " + "PRIVATE KEY-----",
]
NAMED = [
    "DB_PASSWORD=hunter22",
    "export AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPxRfiCY",
    "  apiKey: 'f3a9c1d27b5e4f6089ab'",
    '  "client_secret": "f3a9c1d27b5e4f6089ab",',
    "wandb_api_key: 0123456789abcdef0123456789abcdef01234567",
    "auth-token = f3a9c1d27b5e4f6089ab",
    "url: postgresql://mlflow:hunter22@db.internal/mlflow",
]
HARMLESS = [
    "max_tokens: 4096",
    "eos_token: '<|endoftext|>'",
    "pad_token_id: 50256",
    "tokenizer: bert-base-uncased-whole-word-9",
    "decoder_start_token: something-long-12345678",
    "mask_token: '[MASK]'",
    "password: ${DB_PASSWORD}",
    "password: changeme",
    "api_key: <your key here>",
    "api_key: your-api-key-goes-here-1",
    "secret: os.environ['SECRET_KEY_NAME1']",
    "token: {{ secrets.TOKEN }}",
    "password:",
    "secret_key: null",
    "access_token: !vault secret/data/abc123",
    "num_key_value_heads: 8",
    "private_key: /etc/ssl/private/key1.pem",
    "url: postgresql://localhost/mlflow",
    "url: postgresql://mlflow:${PASSWORD}@db/mlflow",
    "learning_rate: 1e-3",
    "sha256: 0123456789abcdef0123456789abcdef",
    "DB_PASSWORD=hunter22  # guard: allow-secret",
]


@pytest.mark.parametrize("text", MARKED)
def test_marks_of_issuers(text: str) -> None:
    """Tokens with a mark are found in any text."""
    (found,) = find_secrets(f"first line\nx = '{text}'\n", settings=False)
    assert found.line == 2


@pytest.mark.parametrize("line", NAMED)
def test_names_of_settings(line: str) -> None:
    """Settings with the name of a secret and a value like one are found in configuration."""
    assert len(list(find_secrets(line, settings=True))) == 1
    assert list(find_secrets(line, settings=False)) == []


@pytest.mark.parametrize("line", HARMLESS)
def test_what_is_no_secret(line: str) -> None:
    """Model settings, references, placeholders and allowed lines are left alone."""
    assert list(find_secrets(line, settings=True)) == []


def test_the_value_is_not_kept() -> None:
    """What is found does not hold the secret itself."""
    assert "hunter22" not in repr(list(find_secrets("DB_PASSWORD=hunter22", settings=True)))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".env", True),
        ("conf/.env.local", True),
        ("prod.env", True),
        ("a/b.yaml", True),
        ("MLproject", True),
        ("train.py", False),
        ("environment", False),
        ("a.ipynb", False),
    ],
)
def test_which_files_are_configuration(path: str, expected: bool) -> None:  # noqa: FBT001
    """Names of settings count in configuration only."""
    assert is_configuration(path) is expected


@given(st.text(max_size=3000), st.booleans())
def test_any_text_is_survived(text: str, settings: bool) -> None:  # noqa: FBT001
    """No text raises."""
    list(find_secrets(text, settings=settings))


def test_long_lines_take_no_time() -> None:
    """A minified file of 1 MB on a line, and one of nothing but separators, are passed."""
    assert list(find_secrets("a=" * 500_000, settings=True)) == []
    assert list(find_secrets(("- " * 9_000 + "\n") * 20, settings=True)) == []
    assert list(find_secrets(("_-." * 6_000 + "token\n") * 20, settings=True)) == []


def test_literals_stand_in_every_mark() -> None:
    """What is looked for first may not hide what is looked for then."""
    for pattern in secrets._MARKED.values():
        found = [literal for literal in secrets._LITERALS if literal in _plain(pattern)]
        assert found, pattern


def _plain(pattern: str) -> str:
    """Return a pattern with its choices written out, as far as the marks use them."""
    for group, choices in (("gh[pousr]_", "ghp_gho_ghu_ghs_ghr_"), ("(?:AKIA|ASIA)", "AKIA ASIA")):
        pattern = pattern.replace(group, choices)
    return pattern.replace("\\.", ".").replace("[sr]k_live", "sk_live").replace("AgEIcH", "AgEI")
