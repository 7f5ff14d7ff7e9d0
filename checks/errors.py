"""Errors of the checks package: a wrong declaration, never a bad input (that is a finding)."""

from __future__ import annotations

from typing import ClassVar


class CheckError(Exception):
    """Base of every error that a caller of the checks may want to catch."""

    code: ClassVar[str] = "check_failed"

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class DeclarationError(CheckError):
    """A check was declared in a way that cannot be carried out."""

    code: ClassVar[str] = "check_declaration"


class EngineUnavailable(CheckError):
    """A check asks for an engine that is not installed or does not answer."""

    code: ClassVar[str] = "check_engine_unavailable"
