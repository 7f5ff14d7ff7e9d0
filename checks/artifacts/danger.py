"""Which imports of a pickle are dangerous: picklescan's judgement, plus a few it leaves open.

picklescan keeps the list of what attacks have used. Only names are handed to it, as the
plainest pickle there is; the files themselves are read by `checks.artifacts.pickled`, in
bounded memory and with joblib's arrays.
"""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

from checks.artifacts.pickled import ROOMS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from checks.artifacts.pickled import Import, Walk

_RUNS_CODE = {
    "__builtin__": {"__import__", "execfile", "globals", "input", "setattr", "delattr", "vars"},
    "builtins": {"__import__", "globals", "input", "setattr", "delattr", "vars", "locals"},
    "keras.layers": {"Lambda"},
    "types": {"CodeType", "FunctionType", "LambdaType"},
}
_RUNS_CODE_MODULES = frozenset(
    {
        *("_frozen_importlib", "_frozen_importlib_external", "code", "codeop", "dill"),
        *("ftplib", "http", "importlib", "marshal", "multiprocessing", "smtplib", "telnetlib"),
        *("urllib", "zipimport"),
    }
)
CARRIED_CODE = "cloudpickle"
"""The distribution whose pickles carry functions as byte code."""


def dangerous(walk: Walk) -> set[Import]:
    """Return those imports that let a pickle run code of its choice when it is loaded.

    Args:
        walk: What pickles import and call. Imports that only reach for attributes
            (`getattr`, `functools.partial`) count where what they reach for may lead to code.
    """
    found: set[Import] = set()
    judged: list[Import] = []
    for module, name in walk.imports - walk.harmless:
        if not _is_plain(module) or not _is_plain(name) or _runs_code(module, name):
            found.add((module, name))
        else:
            judged.append((module, name))
    return found | _scan(judged) if judged else found


def show(imports: Iterable[Import], limit: int = 5) -> str:
    """Return imports as people read them: ``os.system, builtins.eval and 3 more``."""
    texts = sorted({f"{module}.{name}" for module, name in imports})
    shown = ", ".join(text.encode("unicode_escape").decode()[:80] for text in texts[:limit])
    return f"{shown} and {len(texts) - limit} more" if len(texts) > limit else shown


def _is_plain(text: str) -> bool:
    return text.isascii() and all(
        part.isidentifier() or part == "<locals>" for part in text.split(".")
    )


def _runs_code(module: str, name: str) -> bool:
    if module == name == "unknown" or module == "copyreg":  # codes of the loading program
        return True
    parts = name.split(".")
    # `some.module os.system`: a name may lead through a module to any other.
    if any(part in ROOMS for part in parts) or any(map(_is_special, parts)):
        return True
    return module.partition(".")[0] in _RUNS_CODE_MODULES or name in _RUNS_CODE.get(module, ())


def _is_special(part: str) -> bool:
    return part.startswith("__") and part.endswith("__") and len(part) > len("____")


def _scan(imports: list[Import]) -> set[Import]:
    # It costs 50 ms to import, so only where there is a pickle; it ships no types.
    from picklescan.scanner import (  # type: ignore[import-untyped]  # noqa: PLC0415
        SafetyLevel,
        scan_pickle_bytes,
    )

    logger = logging.getLogger("picklescan")
    logger.disabled = True  # its findings are ours to print
    lines = b"".join(f"c{module}\n{name}\n".encode() for module, name in imports)
    result = scan_pickle_bytes(io.BytesIO(lines + b"."), "imports", multiple_pickles=False)
    seen = {(entry.module, entry.name): entry.safety for entry in result.globals}
    return {
        pair for pair in imports if seen.get(pair, SafetyLevel.Dangerous) is SafetyLevel.Dangerous
    }
