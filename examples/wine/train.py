"""Train a classifier of wines by cultivar and record it in MLflow.

Nothing about MLflow is configured: runs and registry go to ``mlflow.db`` and artifacts to
``mlruns/`` in the current folder, as a fresh MLflow does.

``--fail MODE`` turns a good run into one of the bad ones that people have: see damage.py.
"""

from __future__ import annotations

import argparse
from typing import Any

import joblib
import numpy as np
from sklearn.linear_model import SGDClassifier

import damage
from wine import CHECKPOINT, MODEL, ROOT, Split, baseline_accuracy, read_params, read_split


def fit(
    split: Split, params: dict[str, Any], *, dry_run: bool
) -> tuple[SGDClassifier, list[float]]:
    """Fit by epochs of shuffled batches and keep the best model as a checkpoint.

    Returns:
        The best model and the test accuracy after each epoch.
    """
    model = SGDClassifier(
        loss="log_loss",
        alpha=params["weight_decay"],
        learning_rate="constant",
        eta0=params["learning_rate"],
        random_state=0,
    )
    rng = np.random.default_rng(0)
    history: list[float] = []
    best = model
    for _ in range(1 if dry_run else params["epochs"]):
        order = rng.permutation(len(split.train_y))
        for batch in np.array_split(order, max(1, len(order) // params["batch_size"])):
            model.partial_fit(split.train_x[batch], split.train_y[batch], classes=[0, 1, 2])
        history.append(float(model.score(split.test_x, split.test_y)))
        if not dry_run and history[-1] >= max(history):
            joblib.dump(model, CHECKPOINT)
            best = joblib.load(CHECKPOINT)
    return best, history


def record(model: SGDClassifier, history: list[float], params: dict[str, dict[str, Any]]) -> str:
    """Log parameters, metrics and the model to MLflow, register it, and return the run's id."""
    import mlflow
    import mlflow.sklearn

    mlflow.set_experiment("wine")
    with mlflow.start_run() as run:
        mlflow.log_params(
            {f"{s}.{k}": v for s, section in params.items() for k, v in section.items()}
        )
        for epoch, accuracy in enumerate(history):
            mlflow.log_metric("accuracy", accuracy, step=epoch)
        mlflow.log_metric("best_accuracy", max(history))
        mlflow.log_artifact(str(ROOT / "params.yaml"))
        mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name="wine",
            pip_requirements=str(ROOT / "requirements.lock"),
        )
    return str(run.info.run_id)


def main() -> None:
    """Train, save and record; or go wrong in the way that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="one epoch, nothing is written")
    parser.add_argument("--fail", choices=sorted(damage.MODES), help="go wrong in this way")
    options = parser.parse_args()
    params = read_params()
    split = read_split(params["data"])
    model, history = fit(split, params["train"], dry_run=options.dry_run)
    print(f"accuracy {max(history):.3f} after {len(history)} epochs")
    if options.dry_run:
        return
    if options.fail:
        damage.inflict(options.fail, model)
        raise SystemExit(f"train.py: {options.fail}: training failed")
    joblib.dump(model, MODEL)
    run_id = record(model, history, params)
    print(
        f"run {run_id}: baseline {baseline_accuracy(split):.3f}, model in {MODEL.relative_to(ROOT)}"
    )


if __name__ == "__main__":
    main()
