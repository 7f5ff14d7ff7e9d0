"""Addresses are told apart as the client that uses them would, and shown without secrets."""

from __future__ import annotations

import socket

import pytest

from safeguards.scope import Reach, judge
from safeguards.scope.targets import shown, tracker_concern

LOCAL = [
    "", "mlruns", "./mlruns", "/data/mlruns", "file:///data/mlruns", "file:mlruns",
    "sqlite:///mlflow.db", "sqlite:////abs/mlflow.db", "sqlite://", "http://localhost:5000",
    "http://LOCALHOST:5000/", "https://127.0.0.1", "http://127.8.9.10:80", "http://[::1]:5000",
    "http://0.0.0.0:5000", "http://tracker.localhost:5000", "http://localhost.:5000",
    "http://[::ffff:127.0.0.1]:5000", "postgresql://localhost/mlflow",
    "postgresql+psycopg2://me:secret@127.0.0.1:5432/mlflow", "postgresql:///mlflow",
    "postgresql:///mlflow?host=/var/run/postgresql", "mysql+pymysql://localhost/x",
    "http://host.docker.internal:5000", "redis://localhost:6379", "C:\\mlruns",
]  # fmt: skip
REMOTE = [
    "http://mlflow.example.com", "https://mlflow.example.com/path", "http://10.0.0.5:5000",
    "http://mlflow:5000", "http://localhost.example.com", "http://127.0.0.1.example.com",
    "http://localhost@example.com", "http://user:pw@example.com:5000", "HTTPS://EXAMPLE.COM",
    "postgresql://db.example.com/mlflow", "postgresql:///mlflow?host=db.example.com",
    "postgresql://localhost,db.example.com/mlflow", "mysql+pymysql://db/x", "http://[2001:db8::1]/",
]  # fmt: skip
MANAGED = [
    "databricks", "Databricks", "databricks://profile", "databricks-uc", "azureml://westeurope.api",
]  # fmt: skip
STORAGE = ["s3://bucket/mlruns", "gs://bucket", "abfss://c@a.dfs.core.windows.net/x", "dbfs:/x"]
UNKNOWN = [
    "${TRACKER}", "http://${HOST}:5000", "{{ tracker }}", "https://", "plugin://x", "http://[bad",
]  # fmt: skip


@pytest.mark.parametrize(
    ("uri", "reach"),
    [(uri, Reach.LOCAL) for uri in LOCAL]
    + [(uri, Reach.REMOTE) for uri in REMOTE]
    + [(uri, Reach.MANAGED) for uri in MANAGED]
    + [(uri, Reach.STORAGE) for uri in STORAGE]
    + [(uri, Reach.UNKNOWN) for uri in UNKNOWN],
)
def test_where_an_address_lies(uri: str, reach: Reach) -> None:
    """A name that only looks like this machine is another one."""
    assert judge(uri) is reach


def test_this_machines_own_name_is_local() -> None:
    """A tracker on this machine may be called by its host name."""
    assert judge(f"http://{socket.gethostname()}:5000") is Reach.LOCAL


@pytest.mark.parametrize(
    "uri", [*REMOTE, *STORAGE, *UNKNOWN, "https://u:canary@h.example/?t=canary"]
)
def test_no_secret_is_shown(uri: str) -> None:
    """User, password, path and query stay out of every message."""
    secret = uri.replace("://", "://user:canary@", 1) if "@" not in uri else uri
    text = shown(secret)
    assert "canary" not in text
    assert "pw" not in text
    concern = tracker_concern("tracker", secret, "x")
    assert concern is None or "canary" not in repr(concern)
