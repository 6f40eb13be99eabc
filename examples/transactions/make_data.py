"""Write a made-up table of card transactions: 30,000 rows in six quarters, 2 % of them fraud, whose pattern drifts.

Fraud is far from the ordinary in amount, distance, time and pace, in a direction that turns from quarter to quarter.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

N_ROWS, SHARE, SEED = 5_000, 0.02, 7
QUARTERS = ["2023Q1", "2023Q2", "2023Q3", "2023Q4", "2024Q1", "2024Q2"]
TURN = 19.0
"""Degrees by which the pattern of fraud turns each quarter."""

DISTANCE = 3.8
"""How far fraud is from the ordinary, in standard deviations."""


def transactions() -> pd.DataFrame:
    """Return the table, the same each time."""
    generator = np.random.default_rng(SEED)
    return pd.concat([_quarter(generator, number, name) for number, name in enumerate(QUARTERS)], ignore_index=True)


def _quarter(generator: np.random.Generator, number: int, name: str) -> pd.DataFrame:
    is_fraud = np.zeros(N_ROWS, dtype=bool)
    is_fraud[generator.choice(N_ROWS, round(SHARE * N_ROWS), replace=False)] = True
    place = generator.normal(size=(N_ROWS, 6))
    angle = np.deg2rad(TURN * number)
    place[is_fraud, 0] += DISTANCE * np.cos(angle)
    place[is_fraud, 1] += DISTANCE * np.sin(angle)
    one, two = place[:, 0], place[:, 1]
    return pd.DataFrame(
        {
            "quarter": name,
            "amount": (180 + 40 * one + 5 * place[:, 2]).round(2),
            "kilometres_from_home": (95 + 25 * two + 4 * place[:, 3]).round(1),
            "minutes_since_last": (400 + 60 * two - 60 * one + 20 * place[:, 4]).round(1),
            "account_age_days": (1500 + 300 * place[:, 5]).round(),
            "merchant": generator.choice(["food", "fuel", "online", "travel"], N_ROWS, p=[0.4, 0.2, 0.3, 0.1]),
            "card_present": generator.random(N_ROWS) < 0.6,
            "outcome": np.where(is_fraud, "fraud", "legit"),
        }
    )


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "transactions.csv")
    transactions().to_csv(target, index=False)
    print(f"wrote {target}")
