"""A hundred clean projects, and more that only sound like production: none is blocked."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from safeguards.scope import ScopeVerdict, assess

SKLEARN = "from sklearn.svm import SVC\nSVC().fit([[0], [1]], [0, 1])\n"

# What the project says of its tracker: files, environment.
TRACKERS: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "none": ({}, {}),
    "sqlite in .env": ({".env": "MLFLOW_TRACKING_URI=sqlite:///mlflow.db\nAPI_KEY=x\n"}, {}),
    "loopback in .env": ({".env": "export MLFLOW_TRACKING_URI=http://127.0.0.1:5000\n"}, {}),
    "remote in a comment": ({".env": "# MLFLOW_TRACKING_URI=https://m.example.com\n"}, {}),
    "remote in an example": ({".env.example": "MLFLOW_TRACKING_URI=https://m.example.com\n"}, {}),
    "folder in the environment": ({}, {"MLFLOW_TRACKING_URI": "./mlruns"}),
    "server in the environment": ({}, {"MLFLOW_TRACKING_URI": "http://localhost:8080"}),
    "empty in the environment": ({}, {"MLFLOW_TRACKING_URI": "", "MLFLOW_REGISTRY_URI": ""}),
    "local databases": (
        {
            "guard.toml": '[guard]\nenvironment = "local"\n[[database]]\n'
            'url = "postgresql://me:pw@localhost/m"\n[[database]]\nurl = "sqlite:///m.db"\n'
        },
        {},
    ),
    "cloud credentials": (
        {".env": "AWS_ACCESS_KEY_ID=x\nDATABRICKS_HOST=https://x.cloud.databricks.com\n"},
        {"AWS_PROFILE": "dev", "DATABRICKS_TOKEN": "x", "GOOGLE_APPLICATION_CREDENTIALS": "/x"},
    ),
}

# What the project is, and how it is run.
SHAPES: Mapping[str, tuple[Mapping[str, str], str]] = {
    "a script": ({"train.py": SKLEARN}, "python train.py --lr 0.1"),
    "a package": (
        {"src/app/__init__.py": "", "src/app/train.py": SKLEARN},
        "python -m app.train",
    ),
    "an import of boto3": (
        {"train.py": "import boto3\nboto3.client('s3').upload_file('a', 'b', 'c')\n"},
        "uv run train.py",
    ),
    "a docstring": (
        {"train.py": '"""mlflow.set_tracking_uri("https://m.example.com")"""\n' + SKLEARN},
        "python -u train.py",
    ),
    "a comment": (
        {"train.py": "import mlflow\n# mlflow.set_tracking_uri('https://m.example.com')\n"},
        "poetry run python train.py",
    ),
    "a local tracker": (
        {"train.py": "import mlflow\nmlflow.set_tracking_uri('sqlite:///mlflow.db')\n"},
        "env CUDA_VISIBLE_DEVICES=0 python train.py",
    ),
    "a deploy script aside": (
        {
            "train.py": SKLEARN,
            "deploy.py": "import sagemaker\nsagemaker.Session()\n",
            "deploy.sh": "kubectl apply -f job.yaml\n",
            "k8s/job.yaml": "kind: Job\n",
        },
        "bash -c 'set -e; python train.py'",
    ),
    "a makefile": (
        {"Makefile": "train:\n\tpython train.py\ndeploy:\n\tkubectl apply -f x\n"},
        "make train",
    ),
    "an upgrade": ({"train.py": SKLEARN}, "pip install -U mlflow"),
    "documents": (
        {"README.md": "kubectl apply; az ml job create; https://m.example.com", "train.py": ""},
        "python train.py",
    ),
}

# Shapes of their own, each with a sound of production in it.
ODD: Mapping[str, tuple[Mapping[str, str], str]] = {
    "tests of a deployment": (
        {"tests/test_x.py": "import sagemaker\ndef test_x():\n    sagemaker.Session()\n"},
        "pytest -q",
    ),
    "a formatter": (
        {"deploy.py": "import mlflow\nmlflow.set_tracking_uri('https://m.example.com')\n"},
        "ruff format deploy.py",
    ),
    "a look at a file": ({"deploy.sh": "kubectl apply -f x\n"}, "cat deploy.sh"),
    "an editor": ({"deploy.py": "import kfp\nkfp.Client(host='https://x')\n"}, "vim deploy.py"),
    "local mode": (
        {"train.py": "from sagemaker.pytorch import PyTorch\nPyTorch(instance_type='local')\n"},
        "python train.py",
    ),
    "a local emulator": (
        {
            "train.py": "import boto3\n"
            "boto3.client('sagemaker', endpoint_url='http://localhost:4566')\n"
        },
        "python train.py",
    ),
    "a local pipeline server": (
        {"train.py": "import kfp\nkfp.Client(host='http://localhost:8080')\n"},
        "python train.py",
    ),
    "a compiled pipeline": (
        {"pipeline.py": "from kfp import compiler, dsl\ncompiler.Compiler().compile(p, 'p')\n"},
        "python pipeline.py",
    ),
    "types only": (
        {
            "train.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
            "    from azure.ai.ml import MLClient\n" + SKLEARN
        },
        "python train.py",
    ),
    "a switch that is off": (
        {
            "train.py": "import mlflow\nif False:\n    mlflow.set_tracking_uri('https://m.example')\n"
        },
        "python train.py",
    ),
    "an offline logger": (
        {"train.py": "import wandb\nwandb.init(mode='offline')\n"},
        "python train.py",
    ),
    "another set_tracking_uri": (
        {"train.py": "from mine import set_tracking_uri\nset_tracking_uri('https://m.example')\n"},
        "python train.py",
    ),
    "a text with the call": (
        {"train.py": "print('mlflow.set_tracking_uri(\"https://m.example.com\")')\n"},
        "python train.py",
    ),
    "a download": (
        {"train.py": "import urllib.request\nurllib.request.urlopen('https://example.com')\n"},
        "python train.py",
    ),
    "a local feature store": (
        {"feature_store.yaml": "provider: local\nregistry: r.db\nonline_store: {path: o}\n"},
        "feast apply",
    ),
    "a feature store on this machine": (
        {
            "feature_store.yaml": "provider: local\nregistry: {registry_type: remote, "
            "path: 'localhost:6570'}\nonline_store: {type: redis, connection_string: 'x'}\n"
        },
        "feast materialize-incremental 2024-01-01",
    ),
    "a local MLproject": (
        {
            "MLproject": "entry_points:\n  main:\n    command: python train.py --uri {u}\n",
            "train.py": SKLEARN,
        },
        "mlflow run . -e main",
    ),
    "pipelines by DVC": (
        {"dvc.yaml": "stages:\n  train:\n    cmd: python train.py\n", ".dvc/config": "[core]\n"},
        "dvc repro",
    ),
    "a notebook": ({"x.ipynb": '{"cells": []}'}, "jupyter nbconvert --execute x.ipynb"),
    "containers": (
        {"docker-compose.yml": "services: {mlflow: {image: x}}\n"},
        "docker compose run --rm train",
    ),
    "a branch called production": ({}, "git switch production"),
    "a table called production": ({"t.py": "TABLE = 'production'\n"}, "python t.py --table prod"),
    "a hydra configuration": (
        {"conf/config.yaml": "env: production\n", "t.py": SKLEARN},
        "python t.py env=local",
    ),
    "a migration": ({}, "mlflow db upgrade sqlite:///mlflow.db"),
    "an own server": ({}, "mlflow ui --backend-store-uri ./mlruns --port 5001"),
    "a garbage collection": ({}, "mlflow gc --backend-store-uri sqlite:///mlflow.db"),
    "a heredoc": (
        {"run.sh": "cat > notes <<EOF\nkubectl apply -f x\nEOF\npython train.py\n"},
        "bash run.sh",
    ),
    "an s3 data path": ({"train.py": "PATH = 's3://bucket/data'\n"}, "python train.py"),
    "a lock file": ({"uv.lock": "[[package]]\nname = 'sagemaker'\n"}, "uv sync"),
    "a sound alike tool": ({}, "./kubectl-free-train --databricks-style"),
}


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(("tracker", "shape"), list(itertools.product(TRACKERS, SHAPES)))
def test_a_clean_project_is_not_blocked(
    tracker: str, shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten ways to have a tracker times ten shapes: nothing is refused, nothing is warned of."""
    (tracker_files, environ), (files, command) = TRACKERS[tracker], SHAPES[shape]
    _write(tmp_path, {**tracker_files, **files})
    monkeypatch.chdir(tmp_path)
    verdict = assess(tmp_path, shlex.split(command), {"HOME": "/x"} | dict(environ), "local")
    assert verdict == ScopeVerdict()


@pytest.mark.parametrize("shape", ODD)
def test_what_only_sounds_like_production_is_not_blocked(
    shape: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words, files aside and local stand-ins of the services are no reason to stop."""
    files, command = ODD[shape]
    _write(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    verdict = assess(tmp_path, shlex.split(command), {"HOME": str(tmp_path)}, "dev")
    assert verdict == ScopeVerdict()
