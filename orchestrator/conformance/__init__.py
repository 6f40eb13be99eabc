"""What every method must hold, as an importable test suite for pytest.

from orchestrator.conformance import MethodConformance

class TestMine(MethodConformance):
    method = "my_package.my_module:MyStrategy"
"""

from orchestrator.conformance.suite import MethodConformance
from orchestrator.conformance.world import Case

__all__ = ["Case", "MethodConformance"]
