"""The ring and the choice, without Ray. `test_routing_service.py` has the router in a real Ray Serve."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from pydantic import ValidationError

from serve.ring import Bound, Ring, for_anyone, for_clip
from serve.settings import Routing, Settings

KEYS = [f"vid_{number:064x}/f32" for number in range(4000)]
NODES = Routing().virtual_nodes


def names(count: int, start: int = 0) -> list[str]:
    """Ray names replicas by eight random characters."""
    alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
    return ["".join(random.Random(seed).choices(alphabet, k=8)) for seed in range(start, start + count)]


def owner(ring: Ring, key: str) -> str:
    return next(ring.walk(key))


def owners(ring: Ring) -> dict[str, str]:
    return {key: owner(ring, key) for key in KEYS}


@pytest.mark.parametrize("count", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("seed", [0, 100, 200])
def test_members_get_about_equal_shares(count: int, seed: int) -> None:
    shares = Counter(owners(Ring(names(count, seed), NODES)).values())
    assert len(shares) == count
    # With 100 places each a share has a standard deviation of a tenth; drawing 4000 keys adds less than that.
    assert max(shares.values()) < 1.45 * len(KEYS) / count
    assert min(shares.values()) > 0.6 * len(KEYS) / count


def test_more_virtual_nodes_make_shares_more_equal() -> None:
    def spread(nodes: int) -> float:
        shares = Counter(owners(Ring(names(8), nodes)).values())
        return max(shares.values()) / min(shares[name] for name in names(8)) if len(shares) == 8 else float("inf")

    assert spread(1000) < spread(100) < spread(2)


def test_the_ring_does_not_depend_on_the_order_of_its_members_nor_on_the_process() -> None:
    ring, turned = Ring(names(5), NODES), Ring(reversed(names(5)), NODES)
    assert owners(ring) == owners(turned)
    # Two versions of the service side by side must agree: a change of the hash moves every clip.
    assert [owner(Ring("abc", 3), key) for key in KEYS[:8]] == list("bbabbaca")


def test_a_walk_meets_every_member_once() -> None:
    ring = Ring(names(7), NODES)
    for key in KEYS[:200]:
        assert sorted(ring.walk(key)) == sorted(names(7))
    assert list(Ring((), NODES).walk("key")) == []


@pytest.mark.parametrize("count", [2, 3, 8])
def test_when_a_member_goes_only_its_keys_move_and_to_several_others(count: int) -> None:
    members = names(count)
    before = Ring(members, NODES)
    for gone in members:
        after = Ring(set(members) - {gone}, NODES)
        moved = {key for key in KEYS if owner(before, key) != owner(after, key)}
        assert moved == {key for key in KEYS if owner(before, key) == gone}
        heirs = Counter(owner(after, key) for key in moved)
        assert len(heirs) == count - 1


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_when_a_member_comes_keys_move_to_it_alone_and_only_its_share(count: int) -> None:
    before, after = owners(Ring(names(count), NODES)), owners(Ring([*names(count), "new"], NODES))
    moved = {key for key in KEYS if before[key] != after[key]}
    assert {after[key] for key in moved} == {"new"}
    assert 0.6 / (count + 1) < len(moved) / len(KEYS) < 1.45 / (count + 1)


def test_a_dead_member_in_the_ring_is_as_good_as_gone() -> None:
    """A router knows of a death before it gets a new ring."""
    ring, without = Ring(names(4), NODES), Ring(names(4)[1:], NODES)
    loads = dict.fromkeys(names(4)[1:], 0)
    for key in KEYS[:500]:
        assert for_clip(ring.walk(key), loads, Bound(1.25, 8)) == list(without.walk(key))


@pytest.mark.parametrize("bound", [Bound(1.0, 1), Bound(1.25, 8), Bound(2.0, 1)])
@pytest.mark.parametrize("count", [1, 3, 8])
@pytest.mark.parametrize("hot", [0.0, 0.5, 1.0])
def test_no_member_ever_gets_more_than_the_bound(bound: Bound, count: int, hot: float) -> None:
    """Requests come and go at random, a share of them about one clip; each is placed with what is known by then."""
    draw = random.Random(count)
    ring = Ring(names(count), NODES)
    loads = dict.fromkeys(names(count), 0)
    under_way: list[str] = []
    for _ in range(3000):
        if under_way and draw.random() < (0.3 if len(under_way) < 60 else 0.7):
            loads[under_way.pop(draw.randrange(len(under_way)))] -= 1
            continue
        key = KEYS[0] if draw.random() < hot else draw.choice(KEYS)
        limit = bound.factor * (len(under_way) + 1) / count + bound.slack
        chosen = for_clip(ring.walk(key), loads, bound)[0]
        loads[chosen] += 1
        under_way.append(chosen)
        assert loads[chosen] <= limit
    assert len(under_way) > 30


def test_a_key_stays_with_its_owner_while_that_has_room_and_then_spreads_in_the_rings_order() -> None:
    ring, bound = Ring(names(4), NODES), Bound(1.25, 8)
    for key in KEYS[:50]:
        order = list(ring.walk(key))
        loads = dict.fromkeys(order, 0)
        placed = []
        for _ in range(60):
            chosen = for_clip(ring.walk(key), loads, bound)[0]
            loads[chosen] += 1
            placed.append(chosen)
        assert placed[:8] == [order[0]] * 8  # the slack
        assert list(dict.fromkeys(placed)) == order[: len(set(placed))]
        assert all(loads[a] >= loads[b] for a, b in pairwise(order))
        assert max(loads.values()) <= 1.25 * 60 / 4 + 8


def test_members_without_room_come_last_the_least_loaded_of_them_first() -> None:
    ring, loads = Ring("abcd", NODES), {"a": 90, "b": 0, "c": 70, "d": 80}
    assert for_clip(ring.walk("key"), loads, Bound(1.0, 1)) == ["b", "c", "d", "a"]


def test_without_a_key_it_is_the_less_loaded_of_two() -> None:
    draw, loads = random.Random(1), {"a": 5, "b": 1, "c": 3}
    first: Counter[str] = Counter()
    for _ in range(3000):
        order = for_anyone(loads, draw)
        assert sorted(order) == ["a", "b", "c"]
        first[order[0]] += 1
    assert first["a"] == 0  # never the less loaded of two
    assert first["b"] == pytest.approx(2000, abs=150)  # whenever it is one of the two
    assert for_anyone({"a": 7}, draw) == ["a"]


def test_without_keys_and_loads_everyone_gets_the_same() -> None:
    draw = random.Random(2)
    first = Counter(for_anyone(dict.fromkeys("abcd", 0), draw)[0] for _ in range(4000))
    assert all(count == pytest.approx(1000, abs=150) for count in first.values())


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"decoder": {"routing": {"factor": 0.9}}}, "decoder.routing.factor"),
        ({"encoder": {"routing": {"slack": 0}}}, "encoder.routing.slack"),
        ({"selector": {"routing": {"virtual_nodes": 0}}}, "selector.routing.virtual_nodes"),
        ({"frames": {"routing": {"slak": 3}}}, "frames.routing.slak"),
        ({"ingress": {"routing": {}}}, "ingress.routing"),  # nothing is asked of it about a clip by its name
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, object], place: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(given)
    assert place in str(caught.value).replace("\n", " ")
