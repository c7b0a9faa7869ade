"""The cache bounded in bytes, alone."""

from __future__ import annotations

import random

import pytest

from serve.cache import ByteLRU


@pytest.mark.parametrize("seed", range(20))
def test_an_lru_agrees_with_a_plain_model_of_itself_and_never_exceeds_its_budget(seed: int) -> None:
    rng = random.Random(seed)
    budget = rng.choice([0, 1, 10, 50])
    lru: ByteLRU[int, int] = ByteLRU(budget, size_of=lambda value: value)
    model: list[tuple[int, int]] = []  # (key, value), least recently used first; a value is its own size
    hits = misses = evictions = rejected = 0
    for _ in range(2000):
        key, value = rng.randrange(12), rng.randrange(30)
        known = dict(model)
        match rng.choice(["get", "get", "put", "put", "drop", "drop_where"] if rng.random() < 0.1 else ["get", "put"]):
            case "get":
                assert lru.get(key) == known.get(key)
                hits, misses = hits + (key in known), misses + (key not in known)
                model.sort(key=lambda entry: entry[0] == key)
            case "put":
                assert lru.put(key, value) == value
                model = [entry for entry in model if entry[0] != key]
                if max(value, 1) > budget:
                    rejected += 1
                else:
                    model.append((key, value))
                while sum(max(size, 1) for _, size in model) > budget:
                    model.pop(0)
                    evictions += 1
            case "drop":
                assert lru.drop(key) == (key in known)
                model = [entry for entry in model if entry[0] != key]
            case "drop_where":
                assert lru.drop_where(lambda key: key % 3 == 0) == sum(key % 3 == 0 for key in known)
                model = [entry for entry in model if entry[0] % 3]
        stats = lru.stats
        assert stats.bytes == sum(max(size, 1) for _, size in model) <= budget
        assert stats.entries == len(lru) == len(model)
        assert all(key in lru for key, _ in model)
    assert (stats.hits, stats.misses, stats.evictions, stats.rejected) == (hits, misses, evictions, rejected)


def test_reading_saves_an_entry_from_eviction() -> None:
    lru: ByteLRU[str, str] = ByteLRU(2, len)
    lru.put("old", "a")
    lru.put("new", "b")
    lru.get("old")
    lru.put("third", "c")
    assert "old" in lru
    assert "new" not in lru


def test_an_entry_larger_than_the_budget_comes_back_evicts_nobody_and_replaces_its_old_value() -> None:
    lru: ByteLRU[str, str] = ByteLRU(3, len)
    lru.put("a", "1")
    lru.put("b", "2")
    assert lru.put("a", "1234") == "1234"
    assert lru.get("a") is None
    assert lru.get("b") == "2"
    assert lru.stats.rejected == 1


def test_none_can_be_a_value() -> None:
    lru: ByteLRU[str, None] = ByteLRU(10, lambda value: 1)
    lru.put("a", None)
    assert lru.get("a", "absent") is None
    assert lru.get("b", "absent") == "absent"


def test_a_budget_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="-5"):
        ByteLRU(-5, len)


def test_entries_without_bytes_are_bounded_too() -> None:
    lru: ByteLRU[int, bytes] = ByteLRU(10, len)
    for key in range(1000):
        lru.put(key, b"")
    assert len(lru) == 10
