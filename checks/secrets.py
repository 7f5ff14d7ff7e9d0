"""Secrets in text: by the marks that their issuers give them, and by the names of settings.

Small and honest: what it finds is likely, what it does not find may still be a secret. Larger
scanners cost a second of start-up in every commit. A line that carries ``guard: allow-secret``
or ``pragma: allowlist secret`` is left alone.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_ALLOWED = re.compile(r"(guard:\s*allow-secret|pragma:\s*allowlist\s+secret)", re.IGNORECASE)
_MARKED = {
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})",
    "a GitLab token": r"\bglpat-[A-Za-z0-9_-]{20,}",
    "a Slack token": r"\bxox[baprs]-[A-Za-z0-9-]{10,}",
    "an OpenAI or Anthropic key": r"\bsk-(?:ant-|proj-|svcacct-)?[A-Za-z0-9_-]{32,}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "a Google API key": r"\bAIza[0-9A-Za-z_-]{35}\b",
    "a Google OAuth token": r"\bya29\.[0-9A-Za-z_-]{20,}",
    "a Stripe key": r"\b[sr]k_live_[0-9A-Za-z]{20,}",
    "a Databricks token": r"\bdapi[0-9a-f]{32}\b",
    "an npm token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "a PyPI token": r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{20,}",
    "a SendGrid key": r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{30,}",
    "a Docker token": r"\bdckr_pat_[A-Za-z0-9_-]{20,}",
    "an Azure storage key": r"AccountKey=[A-Za-z0-9+/]{60,}={0,2}",
    "a JSON web token": r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "a private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----",
}
#: One of these stands in each text that a mark matches; looking for them first takes no time.
_LITERALS = (
    *("AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox"),
    *("sk-", "hf_", "AIza", "ya29.", "k_live_", "dapi", "npm_", "pypi-AgEI", "SG.", "dckr_pat_"),
    *("AccountKey=", "eyJ", "PRIVATE KEY"),
)
_ANY_MARK = re.compile("|".join(f"(?P<m{n}>{text})" for n, text in enumerate(_MARKED.values())))
_KINDS = tuple(_MARKED)
_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"]+:([^\s/@'\"]{3,})@", re.IGNORECASE)
_SETTING = re.compile(
    r"""^\s*(?:export\s+|set\s+|-\s+)?["']?([A-Za-z_][\w.-]*)["']?\s*[:=]\s*(.+?)\s*,?\s*$"""
)
_SECRET_NAME = re.compile(
    r"(?:^|[_.-])(?:password|passwd|passphrase|pwd|secret|secret[_-]?key|api[_-]?key|apikey|"
    r"access[_-]?key|private[_-]?key|client[_-]?secret|auth[_-]?token|access[_-]?token|"
    r"refresh[_-]?token|bearer|token|credentials?)$",
    re.IGNORECASE,
)
_MODEL_TOKENS = re.compile(
    r"(?:^|[_.-])(?:bos|eos|pad|unk|sep|cls|mask|image|audio|video|start|end|stop|special|class|"
    r"decoder|encoder|forced|suppress|prompt|first|last|next|num|max|min|per)[_.-]?(?:\w+[_.-])*token$",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"^(?:\$|<.*>$|\{\{|%[({]|!|\*+$|x+$|\.+$|-+$|none$|null$|true$|false$|~$|todo|tbd|"
    r"change.?me|your|my.?|dummy|example|placeholder|replace|insert|secret$|password$|token$|"
    r"os\.(?:environ|getenv)|env[.\[(]|getenv|process\.env|vault|file:|/)",
    re.IGNORECASE,
)
_PASSWORD = re.compile(r"pass|pwd", re.IGNORECASE)
HIDDEN = "(hidden)"
"""What is shown instead of a secret."""
_ENTROPY_BITS = 3.0
_SHORTEST = 16
_SHORTEST_PASSWORD = 6
_LONGEST_LINE = 20_000
_NAMES = {".netrc", ".pypirc", ".npmrc", "MLproject", "credentials"}
_ENDINGS = (
    *(".env", ".envrc", ".yaml", ".yml", ".toml", ".json", ".ini", ".cfg", ".conf", ".config"),
    *(".properties", ".tfvars"),
)


@dataclass(frozen=True, slots=True)
class Secret:
    """A likely secret; its value is nowhere in here.

    Attributes:
        line: Line number, from 1.
        what: What it looks like.
        name: The setting that holds it, empty where it was known by its mark.
    """

    line: int
    what: str
    name: str = ""


def is_configuration(path: str) -> bool:
    """Return whether a file is configuration, in which names of settings are judged, too."""
    name = path.rpartition("/")[2]
    known = name in _NAMES or name.startswith((".env", "Dockerfile"))
    return known or name.lower().endswith(_ENDINGS)


def find_secrets(text: str, *, settings: bool) -> Iterator[Secret]:
    """Yield the likely secrets of a text, at most one a line.

    Args:
        text: The content of a file.
        settings: Whether its lines are settings (``NAME = value``).
    """
    marks = any(literal in text for literal in _LITERALS)
    if not marks and not settings:
        return
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > _LONGEST_LINE or _ALLOWED.search(line):
            continue
        if marks and (marked := _ANY_MARK.search(line)):
            yield Secret(number, _KINDS[int((marked.lastgroup or "m0")[1:])])
        elif found := _judge_setting(line) if settings else None:
            yield Secret(number, "a secret", found)
        elif settings and (url := _URL.search(line)) and not _PLACEHOLDER.match(url[1]):
            yield Secret(number, "a password in a URL")


def is_secret_name(name: str) -> bool:
    """Return whether a parameter or setting is named like a secret, and not like a model's token.

    Args:
        name: As written, dotted where it lies below others: ``train.apiKey``.
    """
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return bool(_SECRET_NAME.search(snake)) and not _MODEL_TOKENS.search(snake)


def without_secrets(text: str) -> str:
    """Return a text without what looks like a secret by itself: tokens, passwords of URLs."""
    hidden = _ANY_MARK.sub(HIDDEN, text)
    return _URL.sub(lambda match: match[0].replace(f":{match[1]}@", f":{HIDDEN}@"), hidden)


def _judge_setting(line: str) -> str | None:
    """Return the name of a setting that holds a likely secret."""
    match = _SETTING.match(line)
    if match is None:
        return None
    name, value = match[1], match[2].split(" #")[0].strip().strip("\"'")
    if not is_secret_name(name):
        return None
    if _PLACEHOLDER.match(value) or not value.isprintable() or " " in value:
        return None
    if _PASSWORD.search(name):
        return name if len(value) >= _SHORTEST_PASSWORD else None
    strong = len(value) >= _SHORTEST and _entropy(value) >= _ENTROPY_BITS
    return name if strong and any(c.isdigit() for c in value) else None


def _entropy(text: str) -> float:
    """Return Shannon's entropy of a text in bits a character."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)
