"""Load the newest model and let it infer: the probe that proves that it is whole."""

from __future__ import annotations

import joblib

from wine import MODEL, baseline_accuracy, read_params, read_split


def main() -> None:
    """Print the accuracy of the trained model, or of the baseline before any training."""
    split = read_split(read_params()["data"])
    if not MODEL.exists():
        print(f"no model is trained yet; baseline accuracy {baseline_accuracy(split):.3f}")
        return
    model = joblib.load(MODEL)
    print(f"model accuracy {model.score(split.test_x, split.test_y):.3f}")


if __name__ == "__main__":
    main()
