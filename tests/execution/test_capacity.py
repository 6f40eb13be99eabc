"""How many trials of each request run at once."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.execution.capacity import GpuPrecedence, NodeResources, share_slots
from orchestrator.search.suggestion import PlannedTrial
from orchestrator.spec.fields import ResolvedRequest
from orchestrator.spec.loading import parse_spec


def cpu(cpus: float = 1.0) -> ResolvedRequest:
    return ResolvedRequest(cpus, 0.0, 1, "cpu")


def gpu(gpus: float = 1.0, cpus: float = 1.0) -> ResolvedRequest:
    return ResolvedRequest(cpus, gpus, 1, "cuda")


NODE = NodeResources


@pytest.mark.parametrize(
    ("nodes", "requests", "expected"),
    [
        # CPU only.
        ([NODE(2, 0)], [cpu()], [2]),
        ([NODE(8, 0)], [cpu(3)], [2]),
        ([NODE(2, 0), NODE(3, 0)], [cpu(2)], [2]),
        ([NODE(1, 0)], [cpu(0.25)], [4]),
        ([NODE(1, 0)], [cpu(0.1)], [10]),
        # GPU and CPU on one node: the GPU trial is dealt first, CPU trials get the rest.
        ([NODE(4, 1)], [gpu(), cpu()], [1, 3]),
        ([NODE(4, 1)], [cpu(), gpu()], [3, 1]),
        ([NODE(2, 2)], [gpu(), cpu()], [1, 1]),
        ([NODE(4, 4)], [gpu(), cpu()], [2, 2]),
        # A node with a GPU beside one without: CPU trials leave the GPU node's CPUs to GPU trials.
        ([NODE(2, 1), NODE(4, 0)], [gpu(), cpu()], [1, 5]),
        ([NODE(1, 1), NODE(4, 0)], [cpu(), gpu()], [4, 1]),
        ([NODE(4, 4), NODE(4, 0)], [gpu(), cpu()], [4, 4]),
        # Fractions share a GPU.
        ([NODE(8, 1)], [gpu(0.25)], [4]),
        ([NODE(8, 1)], [gpu(0.1)], [8]),
        ([NODE(16, 1)], [gpu(0.1)], [10]),
        ([NODE(8, 1)], [gpu(0.5), gpu(0.25)], [1, 2]),
        ([NODE(8, 2)], [gpu(2), gpu(1)], [1, 0]),
        ([NODE(8, 3)], [gpu(2), gpu(1)], [1, 1]),
        # A GPU trial without CPUs takes none away.
        ([NODE(2, 1)], [gpu(1, 0), cpu()], [1, 2]),
        # What fits nowhere has no slot and takes none from others.
        ([NODE(2, 0)], [gpu(), cpu()], [0, 2]),
        ([NODE(2, 0), NODE(2, 0)], [cpu(4), cpu(1)], [0, 4]),
        ([], [cpu()], [0]),
        ([NODE(4, 0)], [], []),
    ],
)
def test_slots(nodes: list[NodeResources], requests: list[ResolvedRequest], expected: list[int]) -> None:
    slots = share_slots(nodes, requests)
    assert [slots[request] for request in requests] == expected


@pytest.mark.parametrize(
    ("nodes", "requests"),
    [
        ([NODE(2, 1)], [cpu(), gpu()]),
        ([NODE(16, 8)], [cpu(), gpu(), cpu(2)]),
        ([NODE(4, 1), NODE(4, 0)], [gpu(0.25), cpu(), cpu(2), cpu(4)]),
        ([NODE(3, 1)], [gpu(), cpu(), cpu(0.5)]),
    ],
)
def test_no_kind_starves_whatever_the_order(nodes: list[NodeResources], requests: list[ResolvedRequest]) -> None:
    for order in itertools.permutations(requests):
        slots = share_slots(nodes, order)
        assert all(n >= 1 for n in slots.values()), (order, slots)


@pytest.mark.parametrize("n_cpus", [1, 2, 5, 8])
@pytest.mark.parametrize("n_gpus", [0, 1, 2])
def test_slots_fill_the_cluster_exactly(n_cpus: int, n_gpus: int) -> None:
    requests = [cpu(), cpu(2), gpu(0.5), gpu(1, 2)]
    slots = share_slots([NODE(n_cpus, n_gpus)], requests)
    cpus = sum(request.cpus * n for request, n in slots.items())
    gpus = sum(request.gpus * n for request, n in slots.items())
    assert cpus <= n_cpus
    assert gpus <= n_gpus
    assert not any(r.cpus <= n_cpus - cpus and r.gpus <= n_gpus - gpus for r in requests), "room is left"


def test_equal_kinds_get_equal_shares() -> None:
    slots = share_slots([NODE(9, 0)], [cpu(), ResolvedRequest(1.0, 0.0, 2, "cpu"), ResolvedRequest(1.0, 0.0, 3, "cpu")])
    assert set(slots.values()) == {3}


def test_a_node_fits_what_it_has() -> None:
    node = NODE(2, 0.3)
    assert node.fits(gpu(0.1 + 0.2, 2)), "rounding does not count"
    assert not node.fits(gpu(0.31))
    assert not node.fits(cpu(2.1))


# GPU trials that wait for a worker while CPU trials run.


def planned(request: ResolvedRequest, seed: int) -> PlannedTrial:
    spec = parse_spec({"methods": ["naive"]})
    return PlannedTrial(spec.trial(spec.cells[0], {}, seed, "confirm", "f00d"), spec.cells[0], 0, request)


CPU_TRIAL, GPU_TRIAL = planned(cpu(), 0), planned(gpu(), 1)
FITS = {cpu(): 2, gpu(): 1}


BOTH = [CPU_TRIAL, GPU_TRIAL]


def test_cpu_trials_wait_while_a_gpu_trial_lacks_its_worker() -> None:
    rule = GpuPrecedence()
    assert rule.holds_cpu_trials(BOTH, {CPU_TRIAL.spec.key}, FITS)
    assert not rule.holds_cpu_trials(BOTH, {CPU_TRIAL.spec.key, GPU_TRIAL.spec.key}, FITS)


def test_cpu_trials_wait_for_no_other_reason() -> None:
    assert not GpuPrecedence().holds_cpu_trials([CPU_TRIAL], set(), FITS), "for each other"
    assert not GpuPrecedence().holds_cpu_trials(BOTH, set(), {cpu(): 2, gpu(): 0}), "for a GPU that is not there"
    assert not GpuPrecedence().holds_cpu_trials([GPU_TRIAL], set(), FITS), "if no CPU trial is in the way"


def test_a_gpu_trial_holds_cpu_trials_once() -> None:
    """Else CPU trials would run one at a time while someone else has the GPU."""
    rule = GpuPrecedence()
    assert rule.holds_cpu_trials(BOTH, set(), FITS)
    assert not rule.holds_cpu_trials([GPU_TRIAL], set(), FITS)
    assert not rule.holds_cpu_trials(BOTH, set(), FITS), "someone else has the GPU"
    assert rule.holds_cpu_trials([*BOTH, planned(gpu(), 2)], set(), FITS), "another trial may hold them again"


def test_without_holding_a_gpu_trial_would_starve() -> None:
    """CPU trials run on a plain node and on one with a GPU; Tune gives each of their workers the next one."""

    def rounds_until_placed(holds: bool) -> int | None:
        rule, left = GpuPrecedence(), {"plain": 3, "gpu node": 2}
        for number in range(100):
            if "gpu node" not in left:
                return number
            held = holds and rule.holds_cpu_trials([*[CPU_TRIAL] * len(left), GPU_TRIAL], {CPU_TRIAL.spec.key}, FITS)
            left = {node: n - 1 or 3 for node, n in left.items() if n > 1 or not held}
        return None

    assert rounds_until_placed(holds=True) == 2
    assert rounds_until_placed(holds=False) is None
