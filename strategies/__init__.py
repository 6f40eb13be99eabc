"""Continual-learning strategies in pure PyTorch, and the one registry of their names."""

from __future__ import annotations

from strategies.base import (
    Batch,
    Hyperparameters,
    NoHyperparameters,
    Strategy,
    TaskData,
    TrialDivergedError,
)
from strategies.ewc import Ewc
from strategies.joint import Joint
from strategies.learner import Learner
from strategies.naive import Naive
from strategies.network import IncrementalType, Network, OutputLayout
from strategies.packnet import Packnet
from strategies.replay import Replay
from strategies.seeds import Generators, derive_seed
from strategies.settings import TrainingSettings

STRATEGIES: dict[str, type[Strategy]] = {strategy.name: strategy for strategy in (Naive, Joint, Ewc, Replay, Packnet)}
"""Every method by name, in the order in which it is listed to users."""

__all__ = [
    "STRATEGIES",
    "Batch",
    "Generators",
    "Hyperparameters",
    "IncrementalType",
    "Learner",
    "Network",
    "NoHyperparameters",
    "OutputLayout",
    "Strategy",
    "TaskData",
    "TrainingSettings",
    "TrialDivergedError",
    "derive_seed",
]
