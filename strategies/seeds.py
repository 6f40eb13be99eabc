"""Named random generators, all derived from one seed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from strategies.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on the parts only, not on the process or the platform."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Generators:
    """CPU generators by purpose; a draw for one purpose leaves all others unchanged.

    So a method at strength 0 equals the naive run bit for bit. Their positions are part of a checkpoint.

    Args:
        seed: the trial's seed.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._generators: dict[str, torch.Generator] = {}

    def fresh(self, purpose: str) -> torch.Generator:
        """Return a new generator at the start of its sequence."""
        return torch.Generator().manual_seed(derive_seed(self.seed, purpose))

    def __getitem__(self, purpose: str) -> torch.Generator:
        """Return the generator of `purpose`, which continues from its last draw."""
        if purpose not in self._generators:
            self._generators[purpose] = self.fresh(purpose)
        return self._generators[purpose]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the position of every generator, purpose -> uint8 tensor."""
        return {purpose: generator.get_state() for purpose, generator in self._generators.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the positions in `state`."""
        self._generators = {}
        for purpose, position in state.items():
            self[purpose].set_state(position)
