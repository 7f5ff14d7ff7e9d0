"""Model folders: what a model asks of its environment, and whether the environment has it.

Read are MLflow's `MLmodel`, `requirements.txt`, `python_env.yaml` and `conda.yaml` next to a
model, and the versions that scikit-learn writes into its pickles.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from checks.artifacts import installed
from checks.artifacts.source import Unreadable, opened
from checks.model import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from checks.context import Context

RULE = "artifacts.version"
_LIMIT_BYTES = 1 << 20
_FILES = ("MLmodel", "requirements.txt", "python_env.yaml", "conda.yaml")
_FLAVORS = {
    "sklearn_version": "scikit-learn",
    "pytorch_version": "torch",
    "xgb_version": "xgboost",
    "lgb_version": "lightgbm",
    "catboost_version": "catboost",
    "keras_version": "keras",
    "tf_version": "tensorflow",
    "transformers_version": "transformers",
    "onnx_version": "onnx",
    "statsmodels_version": "statsmodels",
    "spacy_version": "spacy",
    "prophet_version": "prophet",
    "skops_version": "skops",
}
_BUILDS = {
    "mlflow": ("mlflow-skinny",),
    "tensorflow": ("tensorflow-cpu",),
    "xgboost": ("xgboost-cpu",),
    "psycopg2": ("psycopg2-binary",),
}
"""Other distributions of the same package."""


@dataclass(frozen=True, slots=True)
class Need:
    """One thing that a model asks for.

    Attributes:
        name: Distribution; ``python`` for the interpreter.
        wanted: A specifier such as ``==1.4.2``, or the version that saved the model.
        source: The file that says so.
        framework: Whether it is the library that the model itself was saved with.
    """

    name: str
    wanted: str
    source: str
    framework: bool = False


def folders(files: Iterable[Path]) -> list[Path]:
    """Return the folders of files that say what their model needs."""
    return sorted(
        folder
        for folder in {path.parent for path in files}
        if any((folder / name).is_file() for name in _FILES)
    )


def declares_carried_code(path: Path) -> bool:
    """Return whether an MLflow model says that its pickle was written by cloudpickle."""
    try:
        document = _yaml(path.parent / "MLmodel")
    except (Unreadable, ValueError):
        return False
    flavors = document.get("flavors")
    for flavor in flavors.values() if isinstance(flavors, dict) else ():
        if isinstance(flavor, dict) and (
            "cloudpickle_version" in flavor or flavor.get("serialization_format") == "cloudpickle"
        ):
            return True
    return False


def check_folder(folder: Path, context: Context) -> Iterator[Finding]:
    """Yield what a model folder asks for and the environment does not have."""
    needs: list[Need] = []
    for name, read in _READERS.items():
        path = folder / name
        if not os.path.lexists(path):
            continue
        try:
            needs += read(path, context.subject(path))
        except Unreadable as error:
            yield Finding(
                "artifacts.unreadable",
                Severity.ERROR,
                context.subject(path),
                str(error),
                hint=error.hint,
            )
        except ValueError as error:
            message = f"cannot be read: {error}"
            hint = "write the model again"
            yield Finding(
                "artifacts.damaged", Severity.ERROR, context.subject(path), message, hint=hint
            )
    yield from _compare(needs, context.subject(folder), context)


def check_named(subject: str, versions: Mapping[str, str], context: Context) -> Iterator[Finding]:
    """Yield versions that a pickle names and the environment does not have."""
    needs = [Need(name, version, subject, framework=True) for name, version in versions.items()]
    yield from _compare(needs, subject, context)


def _compare(needs: list[Need], subject: str, context: Context) -> Iterator[Finding]:
    prefix = context.env_prefix
    if prefix is None:
        return
    have = installed.distributions(prefix)
    python = installed.python_version(prefix)
    seen: set[str] = set()
    for need in sorted(needs, key=lambda n: not n.framework):
        name = installed.normalize(need.name)
        if name in seen:
            continue
        seen.add(name)
        names = (name, *_BUILDS.get(name, ()))
        found = python if name == "python" else next((have[n] for n in names if n in have), None)
        if found is None and name != "python":
            yield _finding(need, subject, None)
        elif found is not None and (severity := _differs(need, found)) is not None:
            yield _finding(need, subject, found, severity)


def _differs(need: Need, found: str) -> Severity | None:
    """Return how much it weighs that `found` is installed; None where it satisfies.

    A framework has to be of the same major and minor version as the one that saved the model;
    another patch is worth a word. Other requirements are warnings.
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet  # noqa: PLC0415
    from packaging.version import InvalidVersion, Version  # noqa: PLC0415

    try:
        if not need.framework and need.name != "python":
            fits = SpecifierSet(need.wanted).contains(found, prereleases=True)
            return None if fits else Severity.WARNING
        wanted, have = Version(need.wanted.lstrip("=")), Version(found)
    except (InvalidSpecifier, InvalidVersion):
        return None
    same = wanted.release[:2] == have.release[:2]
    if need.name == "python":
        return None if same else Severity.WARNING
    if not same:
        return Severity.ERROR
    return None if wanted.public == have.public else Severity.INFO


def _finding(
    need: Need, subject: str, found: str | None, severity: Severity | None = None
) -> Finding:
    weight = severity or (Severity.ERROR if need.framework else Severity.WARNING)
    wanted = need.wanted.strip()
    state = "which the environment lacks" if found is None else f"the environment has {found}"
    if need.framework:
        message = f"was saved with {need.name} {wanted}, {state}"
    else:
        message = f"{need.source} asks for {need.name}{_spaced(wanted)}, {state}"
    pin = wanted if wanted[:1] in "<>=!~" else f"=={wanted}"
    hint = (
        f"use Python {wanted.lstrip('=')} for it"
        if need.name == "python"
        else f"pip install '{need.name}{pin}', or save the model again"
    )
    return Finding(
        RULE,
        weight,
        subject,
        message,
        column=need.name,
        value=found or "none",
        limit=wanted,
        hint=hint,
    )


def _spaced(wanted: str) -> str:
    return wanted if wanted[:1] in "<>=!~" else f" {wanted}"


def _read_mlmodel(path: Path, source: str) -> list[Need]:
    document = _yaml(path)
    flavors = document.get("flavors")
    if not isinstance(flavors, dict) or not flavors:
        raise ValueError("it names no flavor of the model")
    needs = []
    for flavor in flavors.values():
        for key, version in (flavor if isinstance(flavor, dict) else {}).items():
            if key in _FLAVORS and isinstance(version, str):
                needs.append(Need(_FLAVORS[key], version.partition("+")[0], source, framework=True))
            elif key == "python_version" and isinstance(version, str):
                needs.append(Need("python", version, source))
        data = flavor.get("model_path") or flavor.get("data") if isinstance(flavor, dict) else None
        if isinstance(data, str) and not os.path.lexists(path.parent / data):
            raise ValueError(f"it names {data!r}, which is not there")
    return needs


def _read_requirements(path: Path, source: str) -> list[Need]:
    return [need for line in _text(path).splitlines() for need in _requirement(line, source)]


def _read_python_env(path: Path, source: str) -> list[Need]:
    document = _yaml(path)
    needs = [Need("python", str(document["python"]), source)] if "python" in document else []
    lines = document.get("dependencies")
    for line in lines if isinstance(lines, list) else ():
        if isinstance(line, str) and not line.startswith("-r"):
            needs += _requirement(line, source)
    return needs


def _read_conda(path: Path, source: str) -> list[Need]:
    lines = _yaml(path).get("dependencies")
    needs: list[Need] = []
    for line in lines if isinstance(lines, list) else ():
        if isinstance(line, dict):
            for inner in line.get("pip") or ():
                needs += _requirement(str(inner), source)
        elif isinstance(line, str) and line.startswith("python="):
            needs.append(Need("python", line.partition("=")[2].strip("="), source))
    return needs


def _requirement(line: str, source: str) -> Iterator[Need]:
    """Yield the need in a line of a requirements file; options and URLs are none.

    Lines with a marker (``; sys_platform == …``) hold for some machines only and are left out.
    """
    from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415

    text = line.partition(" #")[0].partition(" --")[0].rstrip("\\ \t")
    try:
        found = Requirement(text)
    except InvalidRequirement:
        return
    if found.specifier and found.marker is None:
        yield Need(found.name, str(found.specifier), source)


def _text(path: Path) -> str:
    with opened(path) as (file, status):
        if status.st_size > _LIMIT_BYTES:
            raise ValueError("it is larger than 1 MB")
        return file.read().decode("utf-8", "replace")


def _yaml(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415  # 20 ms

    try:
        document = yaml.load(_text(path), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"it is no YAML ({type(error).__name__})") from None
    if not isinstance(document, dict):
        raise ValueError("it is empty or no table")  # noqa: TRY004  # one way out for bad content
    return document


_READERS = {
    "MLmodel": _read_mlmodel,
    "requirements.txt": _read_requirements,
    "python_env.yaml": _read_python_env,
    "conda.yaml": _read_conda,
}
