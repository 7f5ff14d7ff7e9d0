"""The bad days of a machine-learning project, each done with the tools that do it for real."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wine import MODEL, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable


def inflict(mode: str, model: Any) -> None:
    """Do the damage called `mode`, but only to a copy of this example.

    Raises:
        SystemExit: This folder is not a repository of its own, so it may be guard's checkout.
    """
    if not (ROOT / ".git").is_dir():
        raise SystemExit(f"{ROOT} is not a repository of its own; copy it first: see ../README.md")
    MODES[mode](model)


def half_written_model(model: Any) -> None:
    """Rewrite the model in place and be killed half way, as by the kernel's memory killer."""
    content = pickle.dumps(model)
    with open(MODEL, "wb") as file:
        file.write(content[: len(content) // 2])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


def delete_artifacts(_model: Any) -> None:
    """Delete the models and all of MLflow's artifacts."""
    shutil.rmtree(ROOT / "mlruns", ignore_errors=True)
    shutil.rmtree(ROOT / "models")


def spoil_database(_model: Any) -> None:
    """Zero all metrics, delete the parameters and drop the registry's versions."""
    with sqlite3.connect(ROOT / "mlflow.db") as database:
        database.execute("UPDATE metrics SET value = 0")
        database.execute("DELETE FROM params")
        database.execute("DROP TABLE model_versions")
    database.close()


def edit_config(_model: Any) -> None:
    """Edit the parameters in place and delete the schema."""
    subprocess.run(
        ["sed", "-i", "s/learning_rate: .*/learning_rate: 900/", "params.yaml"],
        check=True,
        cwd=ROOT,
    )
    (ROOT / "schemas" / "wine.yaml").unlink()


def git_clean(_model: Any) -> None:
    """Clean away everything that git does not track, and the stashes."""
    _run("git", "clean", "-fdxq")
    _run("git", "stash", "clear")


def git_destroy(_model: Any) -> None:
    """Remove what git tracks, what it does not, the stashes, and the objects behind them."""
    _run("git", "rm", "-rfq", ".")
    os.makedirs(ROOT, exist_ok=True)
    _run("git", "clean", "-fdxq")
    _run("git", "stash", "clear")
    _run("git", "gc", "-q", "--prune=now")


def pip_install(_model: Any) -> None:
    """Install another version of `idna` into the environment that is running."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = _wheel_of_another_version("idna", "2.0.dev1", Path(folder))
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        done = subprocess.run(
            [*pip, "--force-reinstall", str(wheel)], check=False, capture_output=True
        )
        if done.returncode != 0:
            uv = ["uv", "pip", "install", "-q", "--offline", "--no-index", "--no-deps"]
            subprocess.run([*uv, "--python", sys.executable, str(wheel)], check=True)


def rm_rf(_model: Any) -> None:
    """Delete the whole project, its repository and the current folder."""
    subprocess.run(["rm", "-rf", str(ROOT)], check=True, cwd="/")


def truncate_notebook(_model: Any) -> None:
    """Leave a notebook of 0 bytes, as a full disk does when an editor saves."""
    os.truncate(ROOT / "notebooks" / "explore.ipynb", 0)


def overwrite_env(_model: Any) -> None:
    """Overwrite .env with the template, readable by everybody."""
    shutil.copyfile(ROOT / ".env.example", ROOT / ".env")
    os.chmod(ROOT / ".env", 0o644)


MODES: dict[str, Callable[[Any], None]] = {
    "half-written-model": half_written_model,
    "delete-artifacts": delete_artifacts,
    "spoil-database": spoil_database,
    "edit-config": edit_config,
    "git-clean": git_clean,
    "git-destroy": git_destroy,
    "pip-install": pip_install,
    "rm-rf": rm_rf,
    "truncate-notebook": truncate_notebook,
    "overwrite-env": overwrite_env,
}


def _run(*command: str) -> None:
    subprocess.run(command, check=True, cwd=ROOT)


def _wheel_of_another_version(name: str, version: str, folder: Path) -> Path:
    """Build a wheel from the installed files of `name` that calls itself `version`."""
    distribution = metadata.distribution(name)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    record = []
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in distribution.files or []:
            if path.parts[0] == name and path.suffix == ".py":
                archive.write(distribution.locate_file(path).__fspath__(), str(path))
                record.append(f"{path},,")
        archive.writestr(f"{name}/broken.py", "raise ImportError('a version nobody asked for')\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: damage\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        record += [
            f"{name}/broken.py,,",
            f"{info}/METADATA,,",
            f"{info}/WHEEL,,",
            f"{info}/RECORD,,",
        ]
        archive.writestr(f"{info}/RECORD", "\n".join(record) + "\n")
    return wheel
