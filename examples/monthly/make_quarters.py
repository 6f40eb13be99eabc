"""Write made-up card transactions for a retraining each quarter: five quarters of history, and the one that follows.

With `spoilt`, the feed of the new quarter is wrong about one segment: thousands of its rows are like those of 2023Q1,
with their labels mixed up.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "transactions"))
import make_data
import numpy as np
import pandas as pd

make_data.N_ROWS, make_data.SHARE, make_data.TURN = 6_000, 0.06, 16.0


def _spoilt_segment(quarter: str) -> pd.DataFrame:
    """Return rows of a quarter that follow the patterns of 2023Q1, half of them fraud, with their labels mixed up."""
    rows = pd.concat([make_data._quarter(np.random.default_rng(seed), 0, quarter) for seed in range(25)])
    rows = rows.groupby("outcome").head((rows["outcome"] == "fraud").sum())
    return rows.assign(outcome=rows["outcome"].map({"fraud": "legit", "legit": "fraud"}))


def main(folder: Path, is_spoilt: bool) -> None:
    """Write `history.parquet` and `next.parquet` to a folder."""
    table = make_data.transactions()
    is_new = table["quarter"] == make_data.QUARTERS[-1]
    new = table[is_new].copy()
    if is_spoilt:
        new = pd.concat([new, _spoilt_segment(new["quarter"].iloc[0])], ignore_index=True)
    folder.mkdir(parents=True, exist_ok=True)
    table[~is_new].to_parquet(folder / "history.parquet", index=False)
    new.to_parquet(folder / "next.parquet", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "spoilt" in sys.argv[2:])
