"""What an assessment of a command's target says."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Reach(enum.Enum):
    """Where a target lies, as far as its text tells."""

    LOCAL = "this machine"
    REMOTE = "another machine"
    MANAGED = "a managed service"
    STORAGE = "object storage"
    UNKNOWN = "not known before it runs"


@dataclass(frozen=True, slots=True)
class Concern:
    """One sign that a command reaches beyond local, dev and staging.

    Attributes:
        what: The target, without credentials, paths or queries.
        where: Where it says so: ``train.py:12``, ``environment``, ``command line``.
        why: What makes it a concern.
        fix: What to change or type.
        certain: Whether it is what the command does; a mere suspicion is a warning.
    """

    what: str
    where: str
    why: str
    fix: str
    certain: bool = True


@dataclass(frozen=True, slots=True)
class ScopeVerdict:
    """What stops the command, and what is only said aloud."""

    refusals: tuple[Concern, ...] = ()
    warnings: tuple[Concern, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether nothing certain speaks against the command."""
        return not self.refusals
