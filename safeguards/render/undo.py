"""`guard undo` looks like a rollback."""

from __future__ import annotations

from safeguards.render.rollback import as_data, as_text

__all__ = ["as_data", "as_text"]
