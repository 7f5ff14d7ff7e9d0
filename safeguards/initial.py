"""The `guard.toml` that `guard init` writes: commented, valid, and about this very project."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from safeguards.config import Config
from safeguards.discovery import Outside
from safeguards.discovery.surveying import Survey
from safeguards.discovery.variables import is_remote

_MOST_DATA = 4
_MOST_MODELS = 4


def compose(config: Config, found: Survey, outside: Outside) -> str:
    """Return the text of a configuration for a project.

    What is certain is active, and never stricter than a warning; what has to be decided by
    somebody who knows the data is there as a comment.

    Args:
        config: The project's configuration so far (defaults).
        found: What is in the project.
        outside: What its runs use outside of it.
    """
    parts = [_head(found), _guard(), _protect(found, outside), _databases(found, outside)]
    parts += [_data(found), _artifacts(found), _parameters(found), _machine()]
    parts += [_probes(config.project), _service()]
    return "\n".join(part.rstrip() + "\n" for part in parts if part)


def _head(found: Survey) -> str:
    tools = ", ".join(sorted(found.tools)) or "none of the trackers that guard knows"
    lines = [
        "# How guard looks after this project. Everything here is optional:",
        "# `guard run -- COMMAND` protects the whole project without this file, too.",
        f"# Found in use: {tools}.",
    ]
    if found.locks:
        lines.append(f"# Dependencies are locked by {', '.join(found.locks)}.")
    lines += [
        f"# A tracker is named in {_comment(n)}: {_comment(u)}" for n, u in found.trackers.items()
    ]
    lines += [
        f"#   {_comment(uri)} is not on this machine: guard cannot roll it back."
        for uri in dict.fromkeys(found.trackers.values())
        if is_remote(uri)
    ]
    if not found.complete:
        lines.append("# The project is large: not all of it was looked at.")
    return "\n".join(lines)


def _guard() -> str:
    return """\
[guard]
environment = "local"            # local, dev or staging; production is refused
budget = "5m"                    # how long a rollback may take
# store = "auto"                 # where snapshots are kept; auto: your state folder
# max_store = "20GB"
"""


def _protect(found: Survey, outside: Outside) -> str:
    lines = ["[protect]"]
    lines.append('# exclude = ["scratch/"]        # not protected at all')
    raw = next(
        (os.path.dirname(path) for path in found.data if "raw" in path.split("/")), "data/raw"
    )
    lines.append(
        f"# watch = [{_text(raw + '/')}]       # too large to keep: changes are reported only"
    )
    if outside.folders:
        lines.append("# Outside the project, and in use:")
        lines.append(f"also = [{', '.join(_text(str(folder)) for folder in outside.folders)}]")
    else:
        lines.append('# also = ["~/bentoml"]          # folders outside the project')
    lines.append('# variables = ["CUDA_VISIBLE_DEVICES"]   # values that may be recorded')
    return "\n".join(lines)


def _databases(found: Survey, outside: Outside) -> str:
    lines = []
    if found.databases:
        inside = ", ".join(_comment(path) for path in found.databases)
        lines.append(f"# Databases in the project are found by themselves: {inside}.")
    for database in outside.databases:
        lines += ["[[database]]", f"url = {_text(f'sqlite:///{database}')}"]
    if not outside.databases:
        lines += ["# [[database]]                 # one that lies outside the project",
                  '# url = "sqlite:////srv/mlflow/mlflow.db"']  # fmt: skip
    return "\n".join(lines)


def _data(found: Survey) -> str:
    lines = []
    for path in found.data[:_MOST_DATA]:
        lines += [
            "[[check.data]]",
            f"path = {_text(path)}",
            "max_missing = 0.10               # share of missing values in a column",
            "sigma = 3",
            "max_outliers = 0.02              # share beyond sigma",
            '# schema = "schemas/data.yaml"   # guard schema infer FILE -o schemas/data.yaml',
            '# target = "label"               # then: min_class_share = 0.05',
            'severity = "warning"             # "error" stops a run',
            "",
        ]
    if not lines:
        lines = ["# [[check.data]]", '# path = "data/train.parquet"', "# max_missing = 0.10"]
    return "\n".join(lines)


def _artifacts(found: Survey) -> str:
    lines = []
    sealed = {os.path.dirname(path): path for path in found.manifests}
    folders = dict.fromkeys(os.path.dirname(path) for path in found.models)
    for folder in list(folders)[:_MOST_MODELS]:
        suffixes = {os.path.splitext(p)[1] for p in found.models if os.path.dirname(p) == folder}
        for suffix in sorted(suffixes):
            lines += ["[[check.artifact]]", f"path = {_text(os.path.join(folder, '*' + suffix))}"]
            if folder in sealed:
                lines.append(f"sha256 = {_text(sealed[folder])}")
            else:
                name = os.path.join(folder, "SHA256SUMS")
                lines.append(f"# sha256 = {_text(name)}   # guard seal writes it")
            lines += ['severity = "warning"', ""]
    if not lines:
        lines = [
            "# [[check.artifact]]",
            '# path = "models/*.pkl"',
            '# sha256 = "models/SHA256SUMS"',
        ]
    return "\n".join(lines)


def _parameters(found: Survey) -> str:
    file = found.parameters[0] if found.parameters else "params.yaml"
    return f"""\
# [[check.params]]
# file = {_text(file)}
# [check.params.ranges]
# "train.lr" = {{ min = 1e-6, max = 1.0 }}
# "train.batch_size" = {{ choices = [16, 32, 64] }}
"""


def _machine() -> str:
    return """\
[check.machine]
memory = 0.80                    # share in use before a run
severity = "warning"
# gpu_memory = 0.90
# disk_free = "5GB"
"""


def _probes(project: Path) -> str:
    lines = ["# After a rollback, before success is declared:"]
    script = next((n for n in ("train.py", "src/train.py") if (project / n).is_file()), "train.py")
    lines += ["# [[probe]]", '# name = "training dry run"']
    lines += [f"# command = {_text(f'python {script} --dry-run')}", '# timeout = "60s"']
    return "\n".join(lines)


def _service() -> str:
    return """\
# Stopped before a rollback, started after it; servers on SQLite need neither.
# [[service]]
# name = "feature-server"
# stop = "systemctl --user stop feature-server"
# start = "systemctl --user start feature-server"
# health = "http://127.0.0.1:6566/health"
"""


def _text(value: str) -> str:
    """Return a TOML basic string; JSON's escapes are a subset of its own."""
    return json.dumps(value.encode("utf-8", "replace").decode(), ensure_ascii=False)


def _comment(value: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in value)


def write(file: Path, text: str, *, replace: bool) -> None:
    """Write the configuration, whole or not at all.

    Raises:
        FileExistsError: There is one and it shall not be replaced.
        OSError: It cannot be written.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    try:
        if replace:
            os.replace(partial, file)
        else:
            os.link(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def as_mapping(found: Survey, outside: Outside) -> Mapping[str, object]:
    """Return what was found as JSON has it."""
    return {
        "tools": sorted(found.tools),
        "trackers": dict(found.trackers),
        "databases": [*found.databases, *(str(path) for path in outside.databases)],
        "data": list(found.data),
        "models": list(found.models),
        "manifests": list(found.manifests),
        "parameters": list(found.parameters),
        "locks": list(found.locks),
        "notebooks": found.notebooks,
        "outside": [str(folder) for folder in outside.folders],
        "complete": found.complete,
    }
