"""Prepare the features: `--dry-run` goes the whole way and writes nothing."""

from __future__ import annotations

import argparse

import numpy as np

from wine import ROOT, read_params, read_split


def main() -> None:
    """Read, split, standardise, verify, and write data/features.npz."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dry-run", action="store_true", help="write nothing")
    options = parser.parse_args()
    split = read_split(read_params()["data"])
    if not (np.isfinite(split.train_x).all() and np.isfinite(split.test_x).all()):
        raise SystemExit("pipeline.py: features are not finite; look at data/wine.csv")
    if not options.dry_run:
        np.savez(ROOT / "data" / "features.npz", train=split.train_x, test=split.test_x)
    print(f"{len(split.train_y)} training and {len(split.test_y)} test rows, 13 features")


if __name__ == "__main__":
    main()
