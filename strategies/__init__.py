"""Continual-learning strategies in pure PyTorch, and the registry of their names.

Importing this package does not import PyTorch; `Learner` and `Network` do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strategies.contract import (
    Batch,
    Exclusive,
    Forward,
    Hyperparameters,
    NoHyperparameters,
    Strategy,
    StreamSizes,
    TaskData,
    TrialDivergedError,
)
from strategies.gradients.logit_term import LogitTerm
from strategies.layout import IncrementalType, OutputLayout
from strategies.methods.agem import Agem
from strategies.methods.cbp import Cbp
from strategies.methods.cls_er import ClsEr
from strategies.methods.der import Der, DerPlusPlus
from strategies.methods.er_ace import ErAce
from strategies.methods.ewc import Ewc
from strategies.methods.freeze import Freeze
from strategies.methods.gdumb import Gdumb
from strategies.methods.gem import Gem
from strategies.methods.generative_replay import GenerativeReplay
from strategies.methods.icarl import Icarl
from strategies.methods.joint import Joint
from strategies.methods.l2 import L2
from strategies.methods.l2_init import L2Init
from strategies.methods.lwf import Lwf
from strategies.methods.mas import Mas
from strategies.methods.mer import Mer
from strategies.methods.mir import Mir
from strategies.methods.naive import Naive
from strategies.methods.ncm import Ncm
from strategies.methods.packnet import Packnet
from strategies.methods.pnn import Pnn
from strategies.methods.redo import Redo
from strategies.methods.replay import Replay
from strategies.methods.ridge import Ridge
from strategies.methods.shrink_and_perturb import ShrinkAndPerturb
from strategies.methods.si import Si
from strategies.methods.slda import Slda
from strategies.methods.supsup import Supsup
from strategies.methods.wa import Wa
from strategies.methods.x_der import XDer
from strategies.registry import Method, MethodError, Registry, UnknownMethodError
from strategies.seeds import Generators, derive_seed
from strategies.settings import Added, TrainingSettings

if TYPE_CHECKING:
    from strategies.learner import Learner
    from strategies.network import Network

STRATEGIES = Registry(
    (
        Naive,
        Joint,
        Replay,
        GenerativeReplay,
        Der,
        DerPlusPlus,
        XDer,
        Mer,
        ErAce,
        ClsEr,
        Mir,
        Gdumb,
        Icarl,
        Lwf,
        Wa,
        Si,
        Mas,
        Ewc,
        L2,
        L2Init,
        ShrinkAndPerturb,
        Redo,
        Cbp,
        Gem,
        Agem,
        Freeze,
        Packnet,
        Pnn,
        Supsup,
        Ridge,
        Slda,
        Ncm,
    )
)
"""Every strategy by name. The order is that of lists for users, and that in which a combination calls its parts:
examples first, then penalties, projections of the gradient, and freezing. Last are methods that train no network."""


def __getattr__(name: str) -> object:
    """Import what needs PyTorch when it is first asked for."""
    if name == "Learner":
        from strategies.learner import Learner

        return Learner
    if name == "Network":
        from strategies.network import Network

        return Network
    raise AttributeError(f"module 'strategies' has no attribute '{name}'")


def find_method(name: str) -> Method:
    """Return the method that `name` stands for: a strategy, a combination, or one from another package.

    Raises:
        MethodError: if a part is unknown, or parts cannot be combined.
    """
    return STRATEGIES.method(name)


__all__ = [
    "STRATEGIES",
    "Added",
    "Batch",
    "Exclusive",
    "Forward",
    "Generators",
    "Hyperparameters",
    "IncrementalType",
    "Learner",
    "LogitTerm",
    "Method",
    "MethodError",
    "Network",
    "NoHyperparameters",
    "OutputLayout",
    "Strategy",
    "StreamSizes",
    "TaskData",
    "TrainingSettings",
    "TrialDivergedError",
    "UnknownMethodError",
    "derive_seed",
    "find_method",
]
