"""Write data/wine.csv from scikit-learn's bundled copy, and the baseline that it gives."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_wine

from wine import BASELINE, ROOT, read_params, read_split


def main() -> None:
    """Write both files; the same bytes each time."""
    params = read_params()["data"]
    frame = load_wine(as_frame=True).frame.rename(
        columns={"target": params["target"], "od280/od315_of_diluted_wines": "od280_od315"}
    )
    frame.to_csv(ROOT / params["path"], index=False)
    split = read_split(params)
    centres = np.stack([split.train_x[split.train_y == kind].mean(axis=0) for kind in range(3)])
    np.savez(BASELINE, centres=centres)
    print(f"{len(frame)} wines, baseline of {centres.shape[0]} centres")


if __name__ == "__main__":
    main()
