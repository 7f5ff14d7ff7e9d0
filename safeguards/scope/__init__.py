"""Local, dev and staging only: what a command would reach, judged before it starts.

What is certain refuses the command; what is only suspected is said aloud and the command goes
on, because a needless refusal teaches people to work without guard. Certain is what the command
line, the environment or guard's own configuration says, and what the script that is run does
in any case. A condition, a function that nobody calls, a file that the command may or may not
read are suspicions. An import, a comment, a document, credentials in the environment are neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from safeguards.scope import files
from safeguards.scope.command import assess_command
from safeguards.scope.model import Concern, Reach, ScopeVerdict
from safeguards.scope.shell import Simple, expand, inline_code, script_of
from safeguards.scope.targets import TRACKING_NAMES, judge, tracker_concern

__all__ = ["Concern", "Reach", "ScopeVerdict", "assess", "judge"]

ALLOWED = ("local", "dev", "staging")
_PRODUCTION = re.compile(r"(?i)(^|[-_.])(prod|production|prd|live)($|[-_.])")
_STAGES = ("ENVIRONMENT", "APP_ENV", "DEPLOY_ENV", "DEPLOYMENT_ENVIRONMENT", "STAGE")
_PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "DATABRICKS_CONFIG_PROFILE")
# Set by the services themselves in the containers that they run.
_INSIDE = {
    "SM_TRAINING_ENV": "a SageMaker job",
    "SM_CURRENT_HOST": "a SageMaker job",
    "DATABRICKS_RUNTIME_VERSION": "a Databricks cluster",
    "AZUREML_RUN_ID": "an Azure ML job",
    "CLOUD_ML_JOB_ID": "a Vertex AI job",
    "KFP_POD_NAME": "a Kubeflow pipeline",
}
_FEAST_VERBS = frozenset(
    {"apply", "materialize", "materialize-incremental", "teardown", "delete", "serve"}
)


def assess(
    project: Path, command: Sequence[str], environ: Mapping[str, str], declared: str
) -> ScopeVerdict:
    """Return what speaks against running a command here.

    Reads files of the project, runs nothing, and asks no network.

    Args:
        project: The project's folder.
        command: The command's words.
        environ: The command's environment.
        declared: What the configuration calls the environment (``local``, ``production`` …).

    Returns:
        Refusals and warnings, each once, in the order in which they were found.
    """
    found: dict[tuple[str, str], Concern] = {}
    for concern in _concerns(project, command, environ, declared):
        key = (concern.what, concern.where)
        if key not in found or concern.certain:
            found[key] = concern
    return ScopeVerdict(
        refusals=tuple(c for c in found.values() if c.certain),
        warnings=tuple(c for c in found.values() if not c.certain),
    )


def _concerns(
    project: Path, command: Sequence[str], environ: Mapping[str, str], declared: str
) -> Iterator[Concern]:
    yield from _declared(declared)
    simples = list(expand(command, project))
    chosen = {k: v for s in simples[:1] for k, v in s.assignments.items()}
    yield from _environment({k: v for k, v in environ.items() if k not in chosen})
    effective = {**environ, **chosen}
    yield from files.assess_dotenv(project, effective)
    yield from files.assess_guard_configuration(project)
    yield from files.assess_settings(project)
    yield from files.assess_mlproject(project, certain=any(map(_runs_mlproject, simples)))
    yield from files.assess_feature_store(project, certain=any(map(_changes_features, simples)))
    for simple in simples:
        yield from assess_command(simple, environ)
        yield from _script(simple, project, effective)


def _declared(declared: str) -> Iterator[Concern]:
    name = declared.strip().lower()
    if name in ALLOWED:
        return
    yield Concern(
        what=f"the environment is called {declared!r}",
        where="configuration",
        why="guard works on local, dev and staging only",
        fix='set environment = "local" in guard.toml if this is no production',
    )


def _environment(environ: Mapping[str, str]) -> Iterator[Concern]:
    for name in TRACKING_NAMES:
        concern = tracker_concern(name, environ.get(name, ""), "environment")
        if concern is not None:
            yield concern
    for name, place in _INSIDE.items():
        if environ.get(name):
            yield Concern(
                what=f"this is {place}",
                where="environment",
                why=f"{name} is set, which the service itself does",
                fix="run it on a machine of your own",
            )
    for name in (*_STAGES, *_PROFILES):
        if _PRODUCTION.search(environ.get(name, "")):
            yield Concern(
                what=f"{name} speaks of production",
                where="environment",
                why="a command may act on what it names",
                fix=f"unset {name}, or set it to what this run is for",
                certain=False,
            )


def _script(simple: Simple, project: Path, environ: Mapping[str, str]) -> Iterator[Concern]:
    merged = {**environ, **simple.inherited, **simple.assignments}
    path, text = script_of(simple, project), inline_code(simple)
    if path is None and text is None:
        return
    from safeguards.scope import code  # noqa: PLC0415 - only where the command is Python

    if path is not None:
        found = code.assess_code(path, project, merged)
    else:
        found = code.assess_text(text or "", simple.where, merged)
    for concern in found:
        yield replace(concern, certain=concern.certain and simple.certain)


def _runs_mlproject(simple: Simple) -> bool:
    return simple.certain and simple.program == "mlflow" and "run" in simple.words[1:2]


def _changes_features(simple: Simple) -> bool:
    return (
        simple.certain and simple.program == "feast" and bool(_FEAST_VERBS & set(simple.words[1:]))
    )
