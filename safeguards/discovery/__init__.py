"""Finds what a project has without running any of it: trackers, databases, artifacts, services."""

from __future__ import annotations

from safeguards.discovery.outside import Outside, outside

__all__ = ["Outside", "outside"]
