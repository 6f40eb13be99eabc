from __future__ import annotations

import hashlib

import torch
from tiny_worlds import same, through_a_file

from strategies import Generators, derive_seed


def draws(generator: torch.Generator, n: int = 4) -> list[float]:
    return torch.rand(n, generator=generator).tolist()


def test_a_seed_is_the_top_63_bits_of_the_hash_of_its_parts() -> None:
    digest = hashlib.sha256(b"3/init/backbone").hexdigest()

    assert derive_seed(3, "init/backbone") == int(digest[:16], 16) // 2
    assert derive_seed("a", 1) == derive_seed("a/1")
    assert derive_seed(3, "x") != derive_seed(4, "x")


def test_drawing_for_one_purpose_never_moves_another() -> None:
    quiet, busy = Generators(5), Generators(5)
    draws(busy["replay"], 100)
    draws(busy.fresh("batches"), 100)

    assert draws(busy["batches"]) == draws(quiet["batches"])


def test_purposes_and_seeds_differ() -> None:
    sequences = [draws(Generators(seed)[purpose]) for seed in (0, 1) for purpose in ("batches", "replay")]

    assert len(set(map(tuple, sequences))) == 4


def test_a_generator_goes_on_where_it_was_left_and_a_fresh_one_begins_again() -> None:
    generators = Generators(0)
    first, second = draws(generators["batches"]), draws(generators["batches"])

    assert first != second
    assert draws(generators.fresh("batches")) == first


def test_saved_positions_go_on_and_forget_what_came_later() -> None:
    saved = Generators(0)
    draws(saved["batches"], 3)
    state = through_a_file(saved.state_dict())
    loaded = Generators(0)
    draws(loaded["replay"], 7)
    loaded.load_state_dict(state)

    assert same(loaded.state_dict(), state)
    assert draws(loaded["batches"]) == draws(saved["batches"])
    assert draws(loaded["replay"]) == draws(Generators(0)["replay"])
