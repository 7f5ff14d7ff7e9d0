"""The data, the parameters and the folders that all scripts of this project share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml
from sklearn.model_selection import train_test_split

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent
MODEL = ROOT / "models" / "wine.joblib"
CHECKPOINT = ROOT / "models" / "best.ckpt"
BASELINE = ROOT / "models" / "baseline.npz"


@dataclass(frozen=True)
class Split:
    """Features (rows x 13, standardised by the training rows) and cultivars (0, 1, 2)."""

    train_x: NDArray[np.float64]
    test_x: NDArray[np.float64]
    train_y: NDArray[np.int64]
    test_y: NDArray[np.int64]


def read_params() -> dict[str, dict[str, Any]]:
    """Return the content of params.yaml."""
    params: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return params


def read_split(params: dict[str, Any]) -> Split:
    """Read the table that `params` (the section ``data``) names, split and standardise it."""
    frame = pd.read_csv(ROOT / params["path"])
    target = frame.pop(params["target"]).to_numpy(dtype=np.int64)
    train_x, test_x, train_y, test_y = train_test_split(
        frame.to_numpy(dtype=np.float64),
        target,
        test_size=params["test_share"],
        random_state=params["seed"],
        stratify=target,
    )
    mean, sigma = train_x.mean(axis=0), train_x.std(axis=0)
    return Split((train_x - mean) / sigma, (test_x - mean) / sigma, train_y, test_y)


def baseline_accuracy(split: Split) -> float:
    """Return the accuracy of the sealed baseline: the nearest class centre wins."""
    centres = np.load(BASELINE)["centres"]
    distances = np.linalg.norm(split.test_x[:, None, :] - centres[None, :, :], axis=2)
    return float((distances.argmin(axis=1) == split.test_y).mean())
