"""What DVC tracks: files that belong into its cache and not into git.

Formats: https://doc.dvc.org/user-guide/project-structure (`*.dvc` and `dvc.yaml`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any


def dvc_outputs(path: str, content: bytes) -> Iterator[str]:
    """Yield the outputs that a DVC file names, from the top of the repository.

    Args:
        path: A ``*.dvc`` file or a ``dvc.yaml``.
        content: What is in it; a broken file names none.
    """
    import yaml  # noqa: PLC0415 - 20 ms, and only in projects with DVC

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        document = yaml.load(content, loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, ValueError, RecursionError):
        return
    if not isinstance(document, Mapping):
        return
    folder = posixpath.dirname(path)
    stages = document.get("stages")
    for stage in [document, *(stages.values() if isinstance(stages, Mapping) else ())]:
        if isinstance(stage, Mapping):
            base = posixpath.join(folder, str(stage.get("wdir") or ""))
            for name in _cached(stage.get("outs")):
                yield posixpath.normpath(posixpath.join(base, name))


def _cached(outputs: Any) -> Iterator[str]:
    """Yield outputs that lie in DVC's cache; with ``cache: false`` they belong into git."""
    for output in outputs if isinstance(outputs, list) else ():
        if isinstance(output, str):
            yield output
        elif isinstance(output, Mapping) and "path" in output:
            if output.get("cache") is not False:
                yield str(output["path"])
        elif isinstance(output, Mapping):
            for name, settings in output.items():
                if not isinstance(settings, Mapping) or settings.get("cache") is not False:
                    yield str(name)
