"""What the graph of an output depends on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def uses_in_graph(output: Tensor) -> Counter[Tensor]:
    """Return how often the graph of `output` uses each leaf that requires a gradient."""
    uses: Counter[Tensor] = Counter()
    seen: set[Any] = set()
    waiting: list[Any] = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for following, _ in node.next_functions:
            if hasattr(following, "variable"):
                uses[following.variable] += 1
            else:
                waiting.append(following)
    return uses
