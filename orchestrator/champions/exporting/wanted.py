"""What a user may ask of `export`. Light, since the command line imports it before anything else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Wanted:
    """Which model of a run is wanted, and how.

    Args:
        scenario: the only one of the run by default.
        method: the recommended one by default.
        suggestion: the one that stands for the method by default.
        seed: of the confirm trials; by default the median one by the objective.
        ensemble: a network for each confirm seed.
        with_test: train on the test split too.
        more_tasks: how many further tasks will be learned by updates; none by default.
        keep_evaluation: keep the held-out examples in the folder.
    """

    scenario: str | None = None
    method: str | None = None
    suggestion: int | None = None
    seed: int | None = None
    ensemble: bool = False
    with_test: bool = False
    more_tasks: int | None = None
    keep_evaluation: bool = False
