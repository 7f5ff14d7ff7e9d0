"""What is wrong with staged files as such: secrets, size, seals, models, what belongs to DVC."""

from __future__ import annotations

import codecs
import hashlib
import posixpath
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, cast

from checks.model import CheckSkip, Finding, Severity
from checks.secrets import find_secrets, is_configuration
from safeguards.integrations.staged import Entry, Index

DEFAULT_MAX_BYTES = 10_000_000
"""Files from this size on do not belong into git, unless the project says otherwise."""
_TEXT_LIMIT_BYTES = 1 << 20
SCANNED_BYTES = 32_000_000
"""Larger texts are not searched for secrets, which is said."""
_TEXTS = (
    ".py",
    ".ipynb",
    ".sh",
    ".md",
    ".rst",
    ".txt",
    ".sql",
    ".r",
    ".js",
    ".ts",
    ".html",
    ".xml",
)
_SPOOL_BYTES = 8 << 20
_POINTER = re.compile(
    rb"\Aversion https://git-lfs\.github\.com/spec/v1\n.*?oid sha256:([0-9a-f]{64})", re.DOTALL
)
_MANIFESTS = re.compile(r"(^|/)(SHA256SUMS?(\.txt)?|sha256sums?(\.txt)?|[^/]+\.sha256(sums?)?)$")
MODEL_ENDINGS = (
    *(".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".safetensors", ".onnx", ".h5"),
    *(".hdf5", ".keras", ".gguf", ".npy", ".npz", ".ubj", ".cbm", ".tflite", ".skops"),
    *(".pt2", ".parquet"),
)
"""Endings that promise a format (`checks.artifacts.formats`, which costs too much to ask here)."""
_TABLES = (".npy", ".npz", ".parquet")
"""Endings that promise a format but hold data as often as models."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is looked at in one commit.

    Attributes:
        index: Where contents come from.
        entries: The files that the commit changes.
        sizes: Their sizes in bytes, by object name.
        max_bytes: Largest file that belongs into git.
        declared: Paths of artifacts that the configuration declares; it says what they may be.
        sealed: Those of them that are declared with a manifest.
    """

    index: Index
    entries: Sequence[Entry]
    sizes: Mapping[str, int]
    max_bytes: int = DEFAULT_MAX_BYTES
    declared: Collection[str] = ()
    sealed: Collection[str] = ()

    def size(self, entry: Entry) -> int:
        """Return the size of an entry in bytes."""
        return self.sizes.get(entry.oid, 0)


def check_secrets(job: Job) -> Iterator[Finding]:
    """Yield likely secrets in staged text; their values are shown nowhere."""
    for entry in job.entries:
        if job.size(entry) > SCANNED_BYTES or not job.size(entry):
            continue
        text = _text(job.index.read(entry))
        if text is None:
            continue
        found = list(find_secrets(text, settings=is_configuration(entry.path)))
        for secret in found[:10]:
            where = f"line {secret.line}"
            if secret.name:
                message = f"{where}: the value of {secret.name} looks like {secret.what}"
            else:
                message = f"{where} holds what looks like {secret.what}"
            yield Finding(
                "secrets.likely",
                Severity.ERROR,
                shown(entry.path),
                message,
                column=secret.name or None,
                count=len(found),
                samples=({"row": secret.line},),
                hint="take it from the environment, and replace it where it was issued; if it "
                "is none, end the line with: # guard: allow-secret",
            )


def unscanned(job: Job) -> Iterator[CheckSkip]:
    """Yield text that is too large to be searched for secrets."""
    for entry in job.entries:
        textual = is_configuration(entry.path) or entry.path.lower().endswith(_TEXTS)
        if textual and job.size(entry) > SCANNED_BYTES:
            yield CheckSkip(
                f"secrets in {shown(entry.path)}",
                f"it is {job.size(entry) / 1e6:.1f} MB, only texts up to "
                f"{SCANNED_BYTES / 1e6:.0f} MB are searched",
                "keep data and outputs in files of their own",
            )


def _text(content: bytes) -> str | None:
    """Return the text of a file; None where it is binary."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    return None if b"\0" in content[:8192] else content.decode("utf-8", "replace")


def check_sizes(job: Job) -> Iterator[Finding]:
    """Yield files that are too large for git."""
    for entry in job.entries:
        size = job.size(entry)
        if size > job.max_bytes:
            yield Finding(
                "staged.large",
                Severity.ERROR,
                shown(entry.path),
                f"is {size / 1e6:.1f} MB, more than {job.max_bytes / 1e6:.1f} MB belong into git",
                value=size,
                limit=job.max_bytes,
                hint=f"git rm --cached {shown(entry.path)}, then track it with DVC or Git LFS",
            )


def check_models(job: Job) -> Iterator[Finding]:
    """Yield staged models that are damaged, dangerous, misnamed, or not what their seal says."""
    models = [entry for entry in job.entries if entry.path.lower().endswith(MODEL_ENDINGS)]
    if not models:
        return
    seals = _seals(job.index)
    for entry in models:
        pointed = _pointer(job, entry)
        if pointed is None and entry.path not in job.declared:
            yield from _inspect(job, entry)
        if entry.path in job.sealed:
            continue
        if not entry.path.lower().endswith(_TABLES) or entry.path in seals:
            yield from _compare_seal(job, entry, pointed, seals)


def check_tracking(job: Job) -> Iterator[Finding]:
    """Yield staged files that DVC tracks, or that would belong under DVC in this project."""
    every = job.index.all()
    files = [e for e in every.values() if e.path.endswith(".dvc") or _name(e) == "dvc.yaml"]
    files = [entry for entry in files if entry.regular]
    if not files and ".dvc/config" not in every:
        return
    outputs: dict[str, str] = {}
    from safeguards.integrations.tracked import dvc_outputs  # noqa: PLC0415

    for source in files:
        for output in dvc_outputs(source.path, job.index.read(source, _TEXT_LIMIT_BYTES)):
            outputs[output] = source.path
    for entry in job.entries:
        owner = next((outputs[p] for p in _parents(entry.path) if p in outputs), None)
        if owner is not None:
            message = f"is tracked by DVC ({shown(owner)}) and must not be in git, too"
            hint = f"git rm --cached {shown(entry.path)}"
            yield Finding("staged.dvc", Severity.ERROR, shown(entry.path), message, hint=hint)
        elif entry.path.lower().endswith(MODEL_ENDINGS) and _pointer(job, entry) is None:
            message = "is a model or data file in a project that uses DVC, but is put into git"
            hint = f"git rm --cached {shown(entry.path)}; dvc add {shown(entry.path)}"
            yield Finding("staged.dvc", Severity.WARNING, shown(entry.path), message, hint=hint)


def shown(path: str) -> str:
    """Return a path as it can be printed anywhere: no control characters, no lone surrogates."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _inspect(job: Job, entry: Entry) -> Iterator[Finding]:
    from checks.artifacts.checking import judge_content  # noqa: PLC0415 - only where there is a model

    if not job.size(entry):
        hint = f"git restore --staged {shown(entry.path)}"
        message = "is empty (0 bytes)"
        yield Finding("artifacts.damaged", Severity.ERROR, shown(entry.path), message, hint=hint)
        return
    with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as file:
        job.index.copy(entry, file)
        yield from judge_content(cast("BinaryIO", file), job.size(entry), shown(entry.path))


def _seals(index: Index) -> dict[str, tuple[str, str]]:
    """Return digest and manifest of every file that a staged or committed manifest lists."""
    from checks.seal import parse  # noqa: PLC0415

    found: dict[str, tuple[str, str]] = {}
    for entry in index.all().values():
        if entry.regular and _MANIFESTS.search(entry.path):
            folder = posixpath.dirname(entry.path)
            for seal in parse(index.read(entry, 16 << 20)).seals:
                name = posixpath.normpath(posixpath.join(folder, seal.name))
                found[name] = (seal.digest, entry.path)
    return found


def _compare_seal(
    job: Job, entry: Entry, pointed: str | None, seals: Mapping[str, tuple[str, str]]
) -> Iterator[Finding]:
    path = shown(entry.path)
    folder = posixpath.dirname(entry.path)
    if entry.path not in seals:
        near = sorted({m for _d, m in seals.values() if posixpath.dirname(m) == folder})
        manifest = near[0] if near else posixpath.join(folder, "SHA256SUMS")
        message = f"is not sealed: {shown(manifest)} does not list it"
        if not near:
            message = "is not sealed: no manifest lists its SHA-256"
        severity = Severity.ERROR if near else Severity.WARNING
        hint = f"guard seal {shown(folder) or '.'} -o {shown(manifest)}; git add {shown(manifest)}"
        yield Finding("staged.unsealed", severity, path, message, hint=hint)
        return
    digest, manifest = seals[entry.path]
    found = pointed or _digest(job, entry)
    if found != digest:
        message = (
            f"differs from its seal in the staged {shown(manifest)}: SHA-256 {found[:12]}…, "
            f"sealed {digest[:12]}…"
        )
        hint = f"seal it anew and stage the manifest: guard seal {path} -o {shown(manifest)}"
        yield Finding(
            "artifacts.seal", Severity.ERROR, path, message, value=found, limit=digest, hint=hint
        )


def _digest(job: Job, entry: Entry) -> str:
    hasher = hashlib.sha256()
    for chunk in job.index.chunks(entry):
        hasher.update(chunk)
    return hasher.hexdigest()


def _pointer(job: Job, entry: Entry) -> str | None:
    """Return the SHA-256 that a Git LFS pointer stands for, None for real content."""
    if job.size(entry) > 1024:  # noqa: PLR2004 - the format's own limit
        return None
    match = _POINTER.match(job.index.read(entry))
    return match[1].decode() if match else None


def _name(entry: Entry) -> str:
    return posixpath.basename(entry.path)


def _parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = posixpath.dirname(path)
