"""Configuration in the project that names targets: .env, guard.toml, MLproject, feature stores."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safeguards.scope.model import Concern, Reach
from safeguards.scope.targets import TRACKING_NAMES, judge, shown, tracker_concern

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")
_MAX_BYTES = 1_000_000
_MOST_SETTINGS = 200
_SETTING_FOLDERS = ("conf", "config", "configs")
_SETTING_SUFFIXES = frozenset({".yaml", ".yml", ".toml", ".json", ".ini", ".cfg"})
_SETTING = re.compile(
    r"""^[ \t{,]*["']?(?P<name>(?:mlflow[_.-]?)?(?:tracking|registry)[_-]?ur[il])["']?"""
    r"""[ \t]*[:=][ \t]*["']?(?P<uri>[^\s"'#,}]+)""",
    re.IGNORECASE | re.MULTILINE,
)
_CLOUD_PROVIDERS = {"gcp": "Google Cloud", "aws": "AWS", "azure": "Azure"}
_CLOUD_STORES = frozenset(
    {"dynamodb", "datastore", "bigtable", "bigquery", "snowflake", "snowflake.offline"}
    | {"snowflake.online", "redshift", "athena", "spanner", "cosmosdb", "remote", "hopsworks"}
)


def assess_dotenv(project: Path, environ: Mapping[str, str]) -> Iterator[Concern]:
    """Yield remote trackers that ``.env`` names.

    A variable that is set already wins over the file wherever one is loaded, so that the
    file's value is then only worth a warning where the set one is local.
    """
    for number, name, value in read_dotenv(_read(project / ".env") or ""):
        if name in TRACKING_NAMES and value:
            where = f".env:{number}"
            concern = tracker_concern(name, value, where, certain=not environ.get(name))
            if concern is not None:
                yield concern


def read_dotenv(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield line number, name and value of each assignment in the text of a ``.env``."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or not (match := _LINE.fullmatch(line)):
            continue
        value = match[2]
        if value[:1] in {"'", '"'} and (end := value.find(value[0], 1)) > 0:
            value = value[1:end]
        else:
            value = re.split(r"\s#", value, maxsplit=1)[0].strip()
        yield number, match[1], value


def assess_guard_configuration(project: Path) -> Iterator[Concern]:
    """Yield databases and trackers beyond this machine that guard's own configuration names."""
    for name in ("guard.toml", "pyproject.toml"):
        text = _read(project / name) or ""
        try:
            content: Any = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue  # whoever reads the configuration says what is wrong with it
        if name == "pyproject.toml":
            content = content.get("tool", {}).get("guard", {})
        databases = content.get("database", []) if isinstance(content, dict) else []
        for database in databases if isinstance(databases, list) else [databases]:
            url = database.get("url") if isinstance(database, dict) else None
            if isinstance(url, str) and judge(url) in {Reach.REMOTE, Reach.MANAGED}:
                yield Concern(
                    what=f"a database at {shown(url)}",
                    where=f"{name}:{_line_of(text, url)}",
                    why="guard would put it back, and restores databases of this machine only",
                    fix="name a database on this machine, or take the entry out",
                )


def assess_settings(project: Path) -> Iterator[Concern]:
    """Yield remote trackers that the project's own settings name: ``config.yaml``, ``conf/…``.

    Whether the command reads them is not known before it runs, so they are only said.
    """
    for number, path in enumerate(_settings(project)):
        if number >= _MOST_SETTINGS:
            return
        text = _read(path) or ""
        for match in _SETTING.finditer(text):
            line = text.count("\n", 0, match.start("uri")) + 1
            where = f"{path.relative_to(project)}:{line}"
            concern = tracker_concern(match["name"].lower(), match["uri"], where, certain=False)
            if concern is not None and judge(match["uri"]) is not Reach.UNKNOWN:
                yield concern


def _settings(project: Path) -> Iterator[Path]:
    for folder in (project, *(project / name for name in _SETTING_FOLDERS)):
        pattern = "*" if folder == project else "**/*"
        yield from sorted(p for p in folder.glob(pattern) if p.suffix.lower() in _SETTING_SUFFIXES)


def assess_mlproject(project: Path, *, certain: bool) -> Iterator[Concern]:
    """Yield trackers that an ``MLproject`` gives to its containers and entry points.

    Args:
        project: The folder.
        certain: Whether the command runs it (``mlflow run``).
    """
    text = _read(project / "MLproject") or ""
    content = _yaml(text)
    environment = (content.get("docker_env") or {}).get("environment") or []
    found: list[tuple[str, str]] = [
        (pair[0], pair[1])
        for pair in environment
        if isinstance(pair, list) and len(pair) == 2 and all(isinstance(p, str) for p in pair)  # noqa: PLR2004 - name and value
    ]
    for entry in (content.get("entry_points") or {}).values():
        command = entry.get("command") if isinstance(entry, dict) else None
        if isinstance(command, str):
            option = re.search(r"--tracking[-_]uri[= ]+['\"]?([^\s'\"]+)", command)
            found += [("--tracking-uri", option[1])] if option else []
            found += re.findall(rf"\b({'|'.join(TRACKING_NAMES)})=['\"]?([^\s'\"]+)", command)
    for name, uri in found:
        if name in {*TRACKING_NAMES, "--tracking-uri"}:
            where = f"MLproject:{_line_of(text, uri)}"
            concern = tracker_concern(name, uri, where, certain=certain)
            if concern is not None:
                yield concern


def assess_feature_store(project: Path, *, certain: bool) -> Iterator[Concern]:
    """Yield what a Feast ``feature_store.yaml`` (here or one folder below) keeps elsewhere.

    Args:
        project: The folder.
        certain: Whether the command changes the store (``feast apply``, ``materialize`` …).
    """
    for path in (project / "feature_store.yaml", *sorted(project.glob("*/feature_store.yaml"))):
        text = _read(path) or ""
        content = _yaml(text)
        where = str(path.relative_to(project))
        for what, key in _remote_parts(content):
            yield Concern(
                what=f"Feast: {what}",
                where=f"{where}:{_line_of(text, key)}",
                why="it is shared and not on this machine, and cannot be put back",
                fix="use `provider: local` with files in the project for this run",
                certain=certain,
            )


def _remote_parts(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    provider = content.get("provider")
    if provider in _CLOUD_PROVIDERS:
        yield f"the provider is {_CLOUD_PROVIDERS[provider]}", "provider"
    registry = content.get("registry")
    kind = registry.get("registry_type") if isinstance(registry, dict) else None
    path = registry.get("path") if isinstance(registry, dict) else registry
    if kind in {"remote", "snowflake.registry"} and not _is_local_endpoint(path):
        yield f"the registry is {kind}", "registry"
    elif isinstance(path, str) and judge(path) not in {Reach.LOCAL, Reach.UNKNOWN}:
        yield f"the registry is at {shown(path)}", "registry"
    for key in ("online_store", "offline_store"):
        store = content.get(key)
        kind = store.get("type") if isinstance(store, dict) else store
        host = store.get("host") if isinstance(store, dict) else None
        if kind == "remote" and isinstance(store, dict) and _is_local_endpoint(store.get("path")):
            continue
        if kind in _CLOUD_STORES:
            yield f"the {key.replace('_', ' ')} is {kind}", key
        elif isinstance(host, str) and judge(f"postgresql://{host}/") is Reach.REMOTE:
            yield f"the {key.replace('_', ' ')} is on another machine", key


def _is_local_endpoint(path: object) -> bool:
    if not isinstance(path, str):
        return False
    return judge(path if "://" in path else f"http://{path}") is Reach.LOCAL


def _yaml(text: str) -> dict[str, Any]:
    if not text:
        return {}
    import yaml  # noqa: PLC0415 - only where there is such a file

    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read(path: Path) -> str | None:
    try:
        # A FIFO would wait for a writer; a huge file is none of these.
        if not path.is_file() or os.path.getsize(path) > _MAX_BYTES:
            return None
        return path.read_text("utf-8", "replace")
    except OSError:
        return None


def _line_of(text: str, part: str) -> int:
    return text.count("\n", 0, max(0, text.find(part))) + 1
