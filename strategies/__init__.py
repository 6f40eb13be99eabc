"""Continual-learning strategies in pure PyTorch, and the one registry of their names."""

from __future__ import annotations

from strategies.agem import Agem
from strategies.base import (
    Batch,
    Forward,
    Hyperparameters,
    NoHyperparameters,
    Strategy,
    TaskData,
    TrialDivergedError,
)
from strategies.der import Der, DerPlusPlus
from strategies.ewc import Ewc
from strategies.freeze import Freeze
from strategies.gem import Gem
from strategies.generative_replay import GenerativeReplay
from strategies.icarl import Icarl
from strategies.joint import Joint
from strategies.learner import Learner
from strategies.lwf import Lwf
from strategies.mas import Mas
from strategies.mer import Mer
from strategies.methods import Method, MethodError, Registry, UnknownMethodError
from strategies.naive import Naive
from strategies.network import IncrementalType, Network, OutputLayout
from strategies.packnet import Packnet
from strategies.pnn import Pnn
from strategies.replay import Replay
from strategies.seeds import Generators, derive_seed
from strategies.settings import TrainingSettings
from strategies.si import Si
from strategies.supsup import Supsup

STRATEGIES = Registry(
    (
        Naive,
        Joint,
        Replay,
        GenerativeReplay,
        Der,
        DerPlusPlus,
        Mer,
        Icarl,
        Lwf,
        Si,
        Mas,
        Ewc,
        Gem,
        Agem,
        Freeze,
        Packnet,
        Pnn,
        Supsup,
    )
)
"""Every strategy by name, in the order in which it is listed to users and in which the seams of a combination add up:
examples first, then penalties, projections of the gradient, and what freezes."""


def find_method(name: str) -> Method:
    """Return the method that `name` stands for: a strategy, a combination, or one from another package.

    Raises:
        MethodError: where a part is unknown, or parts cannot be combined.
    """
    return STRATEGIES.method(name)


__all__ = [
    "STRATEGIES",
    "Batch",
    "Forward",
    "Generators",
    "Hyperparameters",
    "IncrementalType",
    "Learner",
    "Method",
    "MethodError",
    "Network",
    "NoHyperparameters",
    "OutputLayout",
    "Strategy",
    "TaskData",
    "TrainingSettings",
    "TrialDivergedError",
    "UnknownMethodError",
    "derive_seed",
    "find_method",
]
