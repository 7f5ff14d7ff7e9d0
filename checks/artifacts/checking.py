"""Carrying out `[[check.artifact]]`: each file once, every problem named."""

from __future__ import annotations

import fnmatch
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from checks.artifacts import installed, models, parts, sealed
from checks.artifacts.declaration import ArtifactCheck
from checks.artifacts.formats import LOADS_CODE, Format, claimed
from checks.artifacts.inspection import Inspection, inspect
from checks.artifacts.source import Unreadable, hollow, opened
from checks.cache import WORTH_BYTES, file_key, signature_of
from checks.context import Context
from checks.globs import expand, is_pattern
from checks.model import CheckReport, CheckSkip, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator


_FETCH = {
    Format.LFS_POINTER: ("is a Git LFS pointer, the model itself was not fetched", "git lfs pull"),
    Format.HTML: ("is a web page, probably the error page of a download", "download it again"),
}
_WHOLE = "artifacts.whole"
_ZEROS_BYTES = 1 << 20
_WITHOUT_CHECKSUM = {
    *(Format.NPY, Format.SAFETENSORS, Format.GGUF, Format.HDF5, Format.CATBOOST, Format.TFLITE),
    Format.TORCH_LEGACY,
}
_IN_SEVERAL_FILES = {Format.SAVED_MODEL, Format.ONNX, Format.JSON}
_CODE_FREE = frozenset(Format) - LOADS_CODE - {Format.UNKNOWN, Format.ZIP}


def check(declaration: ArtifactCheck, context: Context) -> CheckReport:
    """Check the artifacts that a declaration names.

    Nothing is loaded: bytes are read, structures compared, names of imports judged.
    """
    started = time.monotonic()
    job = _Job(declaration, context)
    job.run()
    return CheckReport(
        checked=tuple(job.checked),
        findings=tuple(_weigh(finding, declaration.severity) for finding in job.findings),
        skipped=tuple(job.skipped),
        elapsed_s=time.monotonic() - started,
        cached=job.cached,
    )


def judge_content(file: BinaryIO, size: int, name: str) -> list[Finding]:
    """Return what is wrong with an artifact's content that lies in no file of the project.

    Args:
        file: The content, seekable.
        size: Its length in bytes.
        name: Its path, for findings; its ending is held against the content.
    """
    job = _Job(ArtifactCheck(name, versions="off"), Context(Path(), {}))
    job.judge(name, Path(name), inspect(file, size, name))
    return job.findings


def find(pattern: str, context: Context) -> list[Path]:
    """Return the files that a path or glob names, sorted; those inside folders, too."""
    start = os.path.abspath(context.resolve(pattern))
    matches = expand(os.path.abspath(context.pattern(pattern))) if is_pattern(pattern) else []
    found: set[str] = set()
    for match in matches or ([start] if os.path.lexists(start) else []):
        if not os.path.isdir(match):
            found.add(match)
            continue
        for folder, folders, names in os.walk(match):
            folders[:] = [name for name in folders if name != ".git"]
            found.update(os.path.join(folder, name) for name in names)
    return [Path(path) for path in sorted(found)]


class _Job:
    """One declaration on its way; collects what a report is made of."""

    def __init__(self, declaration: ArtifactCheck, context: Context) -> None:
        self.declaration = declaration
        self.context = context
        self.checked: list[tuple[str, str]] = []
        self.findings: list[Finding] = []
        self.skipped: list[CheckSkip] = []
        self.cached = 0
        self.several = False

    def run(self) -> None:
        declaration, context = self.declaration, self.context
        files = find(declaration.path, context)
        manifest = context.resolve(declaration.sha256) if declaration.sha256 else None
        if manifest is not None:
            self.checked.append((sealed.RULE, context.subject(manifest)))
            inside = [path for path in files if path != Path(os.path.abspath(manifest))]
            self.findings += sealed.verify(manifest, inside, self._covers, context)
            files = inside
        if not files and declaration.required:
            self._add("missing", declaration.path, "no file is there", hint="correct `path`")
        for path in files:
            self._check_file(path)
        for folder in models.folders(files):
            self.checked.append((models.RULE, context.subject(folder)))
            self._weighed(models.check_folder(folder, context), declaration.versions)

    def _covers(self, path: Path) -> bool:
        start = os.path.abspath(self.context.resolve(self.declaration.path))
        if str(path) == start or str(path).startswith(start.rstrip(os.sep) + os.sep):
            return True
        pattern = os.path.abspath(self.context.pattern(self.declaration.path))
        return is_pattern(self.declaration.path) and fnmatch.fnmatchcase(str(path), pattern)

    def _check_file(self, path: Path) -> None:
        subject = self.context.subject(path)
        try:
            with opened(path) as (file, status):
                key = self._key(path, status)
                if key is not None and self._recall(key):
                    return
                part = _Job(self.declaration, self.context)
                part.read(path, (file, status), subject)
                still = signature_of(os.fstat(file.fileno())) == signature_of(status)
        except Unreadable as error:
            self.checked.append((_WHOLE, subject))
            self._add(error.rule, subject, str(error), hint=error.hint)
            return
        self._take(part.report())
        if key is not None and self.context.cache is not None and still and not part.several:
            self.context.cache.put(key, part.report())

    def _key(self, path: Path, status: os.stat_result) -> str | None:
        """Return under which key the result of a file is kept; None where it is not."""
        if self.context.cache is None or status.st_size < WORTH_BYTES:
            return None
        about: list[Any] = [asdict(self.declaration), self.context.subject(path)]
        prefix = self.context.env_prefix
        if prefix is not None and self.declaration.versions != "off":
            about += [str(prefix), installed.distributions(prefix)]
        about.append(models.declares_carried_code(path))
        return file_key(_WHOLE, path, status, about)

    def _recall(self, key: str) -> bool:
        """Take what is known of an unchanged file from before; return whether there is such."""
        known = self.context.cache.get(key) if self.context.cache is not None else None
        if known is None:
            return False
        self._take(known)
        self.cached += len(known.checked)
        return True

    def _take(self, report: CheckReport) -> None:
        self.checked += report.checked
        self.findings += report.findings
        self.skipped += report.skipped

    def report(self) -> CheckReport:
        """Return what was collected, as heavy as it is."""
        return CheckReport(tuple(self.checked), tuple(self.findings), tuple(self.skipped))

    def read(self, path: Path, opened_: tuple[BinaryIO, os.stat_result], subject: str) -> None:
        """Check one open file, and the files beside it that it names."""
        file, status = opened_
        self.checked.append((_WHOLE, subject))
        if not status.st_size:
            self._add("damaged", subject, "is empty (0 bytes)", hint=_MEND)
            return
        if hollow(status):
            message = (
                f"is mostly a hole: {status.st_size:,} bytes were reserved, "
                f"{status.st_blocks * 512:,} written"
            )
            self._add("damaged", subject, message, hint=_MEND)
            return
        seen = inspect(file, status.st_size, path.name)
        self.judge(subject, path, seen)
        self.several = seen.format in _IN_SEVERAL_FILES
        for part in _missing_parts(path, file, status.st_size, seen):
            self._add("damaged", subject, part, hint=_MEND)
        if seen.damage is None and seen.format in _WITHOUT_CHECKSUM:
            zeros = _zeros_at_end(file, status.st_size)
            if zeros:
                self.findings.append(
                    Finding(
                        "artifacts.damaged",
                        Severity.WARNING,
                        subject,
                        f"{seen.format}: its last {zeros:,} bytes are all zero: was it written "
                        "to its end?",
                        value=zeros,
                        limit=_ZEROS_BYTES,
                        hint="load it and look at its last tensors, or write it again",
                    )
                )

    def judge(self, subject: str, path: Path, seen: Inspection) -> None:
        """Add what an inspection has shown."""
        if seen.damage is not None:
            found = Finding(
                "artifacts.damaged",
                Severity.ERROR,
                subject,
                f"{seen.format}: {seen.damage}",
                value=seen.damage.value,
                limit=seen.damage.limit,
                hint=_MEND,
            )
            self.findings.append(found)
        if seen.unread is not None:
            fix = "store it uncompressed, or with zlib, gzip, bz2 or xz"
            self.skipped.append(CheckSkip(f"artifacts.whole of {subject}", seen.unread, fix))
        self._compare_format(subject, path, seen)
        self._judge_imports(subject, path, seen)
        if self.declaration.versions != "off" and seen.walk.versions:
            findings = models.check_named(subject, seen.walk.versions, self.context)
            self._weighed(findings, self.declaration.versions)

    def _compare_format(self, subject: str, path: Path, seen: Inspection) -> None:
        if seen.format in _FETCH:
            message, hint = _FETCH[seen.format]
            self._add("format", subject, message, hint=hint)
            return
        allowed = claimed(path.name)
        if not allowed or seen.format in allowed or seen.damage is not None:
            return
        wanted = " or ".join(sorted(allowed - {Format.UNKNOWN}))
        hides_code = seen.format in LOADS_CODE and allowed <= _CODE_FREE
        unknown = seen.format is Format.UNKNOWN
        message = f"is named {path.suffix}, but its content is {_article(seen.format)}"
        level = "error" if hides_code or unknown else self.declaration.extension
        finding = Finding(
            "artifacts.format",
            Severity.ERROR,
            subject,
            message,
            value=str(seen.format),
            limit=wanted,
            hint="write the file again" if unknown else "rename it to what it is",
        )
        self._weighed([finding], level)

    def _judge_imports(self, subject: str, path: Path, seen: Inspection) -> None:
        if not seen.walk.imports or self.declaration.pickle == "off":
            return
        from checks.artifacts import danger  # noqa: PLC0415  # only where something is imported

        self.checked.append(("artifacts.pickle", subject))
        found = {
            pair
            for pair in danger.dangerous(seen.walk)
            if not any(_accepts(rule, pair) for rule in self.declaration.allow)
        }
        if not found:
            return
        modules = ", ".join(sorted({module for module, _name in found})[:3])
        finding = Finding(
            "artifacts.pickle",
            Severity.ERROR,
            subject,
            f"loading it can run code: it imports {danger.show(found)}",
            count=len(found),
            hint=f"do not load it unless you made it; then accept it with allow = [{modules!r}]",
        )
        carried = all(m.partition(".")[0] == danger.CARRIED_CODE for m, _n in found)
        declared = carried and models.declares_carried_code(path)
        self._weighed([finding], "warning" if declared else self.declaration.pickle)

    def _add(self, rule: str, subject: str, message: str, *, hint: str) -> None:
        found = Finding(f"artifacts.{rule}", Severity.ERROR, subject, message, hint=hint)
        self.findings.append(found)

    def _weighed(self, findings: list[Finding] | Iterator[Finding], level: str) -> None:
        if level != "off":
            self.findings += [_weigh(finding, Severity(level)) for finding in findings]


def _zeros_at_end(file: BinaryIO, size: int) -> int:
    """Return how many zeros end a file, where they are too many to be chance; else 0."""
    if size < 2 * _ZEROS_BYTES:
        return 0
    zeros = 0
    while zeros < size:
        step = min(_ZEROS_BYTES, size - zeros)
        file.seek(size - zeros - step)
        left = file.read(step).rstrip(b"\0")
        zeros += step - len(left)
        if left:
            break
    return zeros if zeros >= _ZEROS_BYTES else 0


def _missing_parts(path: Path, file: BinaryIO, size: int, seen: Inspection) -> Iterator[str]:
    """Yield what other files of a model in several files lack."""
    if seen.format is Format.SAVED_MODEL:
        yield from parts.saved_model(path)
    elif seen.format is Format.ONNX and seen.damage is None:
        yield from parts.external_data(path, file, size)
    elif seen.format is Format.JSON:
        yield from parts.shards(path)


_MEND = "write it again, or put it back: guard rollback --last --only artifacts"


def _weigh(finding: Finding, most: Severity) -> Finding:
    lower = most is Severity.WARNING and finding.severity is Severity.ERROR
    return replace(finding, severity=most) if lower else finding


def _accepts(rule: str, pair: tuple[str, str]) -> bool:
    whole = ".".join(pair)
    return whole == rule or whole.startswith(f"{rule}.")


def _article(found: Format) -> str:
    if found is Format.UNKNOWN:
        return "nothing that guard recognises"
    return f"{'an' if found[0] in 'AEIOaeio' else 'a'} {found} file"
