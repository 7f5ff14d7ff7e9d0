"""What surrounds an operation: configuration, pipeline, supervision, output."""

from __future__ import annotations


def version() -> str:
    """Return the version of the installed distribution, ``unknown`` where there is none."""
    import importlib.metadata  # noqa: PLC0415 - slow, and only `--version` and reports ask

    try:
        return importlib.metadata.version("mlguard")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
