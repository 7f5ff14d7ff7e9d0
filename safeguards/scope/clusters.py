"""Which Kubernetes cluster a tool would talk to: one on this machine, or another."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from safeguards.scope.targets import is_local_host, option_value

_LOCAL_CONTEXT = re.compile(
    r"(kind|k3d)-.+|minikube|docker-desktop|docker-for-desktop|rancher-desktop|microk8s|"
    r"orbstack|colima(-.+)?"
)


def is_local_cluster(words: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Return whether the cluster of a `kubectl` or `helm` command runs on this machine.

    The server's address decides, as ``--server``, the context that is named, or the current one
    of the configuration gives it; without a configuration, the customary names of local clusters.
    """
    server = option_value(words, "--server", "-s", "--kube-apiserver")
    if server is not None:
        return _is_local_address(server)
    named = option_value(words, "--context", "--kube-context")
    files = option_value(words, "--kubeconfig") or environ.get("KUBECONFIG") or _default(environ)
    address = next(
        (a for file in files.split(os.pathsep) if (a := _server(file, named)) is not None), None
    )
    if address is not None:
        return _is_local_address(address)
    return named is not None and bool(_LOCAL_CONTEXT.fullmatch(named))


def _default(environ: Mapping[str, str]) -> str:
    return os.path.join(environ.get("HOME", "~"), ".kube", "config")


def _is_local_address(address: str) -> bool:
    host = urlsplit(address if "://" in address else f"//{address}").hostname
    return host is not None and is_local_host(host)


def _server(file: str, context_name: str | None) -> str | None:
    import yaml  # noqa: PLC0415 - only where a cluster tool is run

    try:
        with open(file, encoding="utf-8") as stream:
            content: Any = yaml.safe_load(stream)
        chosen = context_name or content["current-context"]
        contexts = {entry["name"]: entry["context"] for entry in content["contexts"]}
        clusters = {entry["name"]: entry["cluster"] for entry in content["clusters"]}
        return str(clusters[contexts[chosen]["cluster"]]["server"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return None
