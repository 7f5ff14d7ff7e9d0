"""Tools and arguments that act on clusters, managed services and remote trackers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from safeguards.scope.clusters import is_local_cluster
from safeguards.scope.model import Concern, Reach
from safeguards.scope.shell import Simple, is_python
from safeguards.scope.targets import TRACKING_NAMES, judge, option_value, shown, tracker_concern

_ADDRESS_OPTIONS = frozenset(
    {"--tracking-uri", "--registry-uri", "--backend-store-uri", "--registry-store-uri"}
)
_CLUSTER_READ_ONLY = frozenset(
    {"version", "config", "completion", "help", "kustomize", "template", "lint", "repo", "explain"}
)
_HARMLESS = frozenset({"--help", "-h", "--version", "help", "version", "configure", "completion"})
_VALUED = frozenset(
    {"--region", "--profile", "--output", "-o", "--endpoint-url", "-n", "--namespace", "--project"}
    | {"--context", "--kube-context", "--kubeconfig", "--subscription", "--endpoint", "--server"}
    | {"-s", "--account", "--configuration", "--query", "--host"}
)
_MLFLOW_BACKENDS = {
    "databricks": "Databricks",
    "kubernetes": "Kubernetes",
    "sagemaker": "SageMaker",
    "azureml": "Azure ML",
}

_Words = Sequence[str]
_Environ = Mapping[str, str]


def assess_command(simple: Simple, environ: Mapping[str, str]) -> Iterator[Concern]:
    """Yield what a program and its arguments say about the target."""
    for name in TRACKING_NAMES:
        value = simple.assignments.get(name, "")
        concern = tracker_concern(name, value, simple.where, certain=simple.certain)
        if concern is not None:
            yield concern
    yield from _addresses(simple)
    service = _service(simple, {**environ, **simple.inherited, **simple.assignments})
    if service is not None:
        yield Concern(
            what=f"{service} (by {_named(simple)})",
            where=simple.where,
            why="it acts on a cluster or a managed service, which guard cannot put back",
            fix="run it without guard, or point it at something on this machine (kind, minikube)",
            certain=simple.certain,
        )


def _service(simple: Simple, environ: _Environ) -> str | None:
    program, words = simple.program, simple.words[1:]
    if is_python(program) and words[:1] == ("-m",):
        program, words = next(iter(words[1:2]), ""), words[2:]
    verbs = _verbs(words)
    judged = _TOOLS.get(program)
    if judged is None or not verbs or set(words[:2]) & _HARMLESS:
        return None
    return judged(verbs, words, environ)


def _verbs(words: _Words) -> list[str]:
    """Return the words that are neither options nor the values of common ones."""
    before = ("", *words)
    return [
        word
        for previous, word in zip(before, words, strict=False)
        if not word.startswith("-") and previous not in _VALUED
    ]


def _cluster(verbs: _Words, words: _Words, environ: _Environ) -> str | None:
    dry = any(word in {"--dry-run=client", "--dry-run"} for word in words)
    if verbs[0] in _CLUSTER_READ_ONLY or dry or is_local_cluster(words, environ):
        return None
    return "a Kubernetes cluster"


def _kubeflow(verbs: _Words, words: _Words, environ: _Environ) -> str | None:
    compiles = verbs[0] in {"dsl", "component", "diagnose_me", "config"}
    endpoint = option_value(words, "--endpoint") or environ.get("KF_PIPELINES_ENDPOINT")
    local = endpoint is not None and judge(endpoint) is Reach.LOCAL
    return None if compiles or local else "Kubeflow"


def _aws(verbs: _Words, words: _Words, _environ: _Environ) -> str | None:
    endpoint = option_value(words, "--endpoint-url")
    local = endpoint is not None and judge(endpoint) is Reach.LOCAL
    return "SageMaker" if verbs[0].startswith("sagemaker") and not local else None


def _azure(verbs: _Words, _words: _Words, _environ: _Environ) -> str | None:
    return "Azure ML" if verbs[0] == "ml" else None


def _google(verbs: _Words, _words: _Words, _environ: _Environ) -> str | None:
    return "Vertex AI" if {"ai", "ai-platform"} & set(verbs[:2]) else None


def _mlflow(verbs: _Words, words: _Words, _environ: _Environ) -> str | None:
    if verbs[0] == "sagemaker":
        return "SageMaker"
    if verbs[0] == "run":
        return _MLFLOW_BACKENDS.get(option_value(words, "--backend", "-b") or "")
    if verbs[0] == "deployments":
        target = option_value(words, "--target", "-t") or ""
        return _MLFLOW_BACKENDS.get(target.partition(":")[0])
    return None


_TOOLS: Mapping[str, Callable[[_Words, _Words, _Environ], str | None]] = {
    "kubectl": _cluster,
    "oc": _cluster,
    "helm": _cluster,
    "kfp": _kubeflow,
    "aws": _aws,
    "sagemaker": lambda _verbs, _words, _environ: "SageMaker",
    "az": _azure,
    "gcloud": _google,
    "databricks": lambda _verbs, _words, _environ: "Databricks",
    "dbx": lambda _verbs, _words, _environ: "Databricks",
    "mlflow": _mlflow,
}


def _addresses(simple: Simple) -> Iterator[Concern]:
    for number, word in enumerate(simple.words[1:], 1):
        option, has_value, value = word.partition("=")
        if option.replace("_", "-") in _ADDRESS_OPTIONS:
            following = next(iter(simple.words[number + 1 : number + 2]), "")
            uri = value if has_value else following
            concern = tracker_concern(option, uri, simple.where, certain=simple.certain)
            if concern is not None:
                yield concern
        elif "://" in word and judge(value if has_value else word) is Reach.MANAGED:
            yield Concern(
                what=shown(value if has_value else word),
                where=simple.where,
                why="it is a managed service, which guard cannot put back",
                fix="use a target on this machine",
                certain=simple.certain,
            )


def _named(simple: Simple) -> str:
    """Return program and verb; options may hold secrets."""
    verb = next((word for word in simple.words[1:] if not word.startswith("-")), "")
    return f"{simple.program} {verb}".strip() if re.fullmatch(r"[\w.-]*", verb) else simple.program
