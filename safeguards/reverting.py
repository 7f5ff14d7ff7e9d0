"""`guard rollback --revert`: commits that others may have are undone by a commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rollback.model import Snapshot

if TYPE_CHECKING:
    from rollback.resources.git.layout import GitLayout
    from rollback.resources.git.revert import PushedCommits


@dataclass(frozen=True, slots=True)
class Revert:
    """Pushed commits that are to be undone, once everything else is back."""

    layout: GitLayout
    pushed: PushedCommits
    environ: Mapping[str, str]

    def commit(self) -> str:
        """Add the commit that reverts, and return its hash.

        Raises:
            GitFailed: git refused; the branch is where the rollback put it.
        """
        from rollback.resources.git.revert import revert_pushed  # noqa: PLC0415 - imports git

        return revert_pushed(self.layout, self.pushed, self.environ)


def find_revert(project: Path, snapshot: Snapshot, environ: Mapping[str, str]) -> Revert | None:
    """Return what has to be reverted; None where nothing since the snapshot was pushed.

    Raises:
        GitFailed: The repository cannot be asked.
    """
    from rollback.resources.git.layout import find_git  # noqa: PLC0415 - only where asked for
    from rollback.resources.git.revert import find_pushed  # noqa: PLC0415

    facts = snapshot.facts.get("git")
    target = facts.get("head") if isinstance(facts, Mapping) else None
    layout = find_git(project)
    if layout is None or not target:
        return None
    pushed = find_pushed(layout, str(target), environ)
    return None if pushed is None else Revert(layout, pushed, environ)
