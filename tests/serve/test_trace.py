from __future__ import annotations

import asyncio

import pytest

from serve.trace import Made, Stopwatch, Trace, TracedCache, Work, merge


def cache(stage: str = "encoder") -> TracedCache[bytes]:
    return TracedCache(stage, 1000, len)


async def made(watch: Stopwatch, value: bytes = b"x", trace: Trace | None = None, seconds: float = 2.0) -> Made[bytes]:
    watch.seconds += seconds
    return Made(value, trace or {})


def test_a_miss_reports_own_seconds_and_what_it_asked() -> None:
    upstream = {"frames": Work(3.0, "miss")}
    result = asyncio.run(cache().get("k", lambda watch: made(watch, trace=upstream)))
    assert result.trace == {"frames": Work(3.0, "miss"), "encoder": Work(2.0, "miss")}


def test_a_hit_costs_nothing_and_asks_nobody() -> None:
    async def twice() -> Made[bytes]:
        kept = cache()
        await kept.get("k", lambda watch: made(watch, trace={"frames": Work(3.0, "miss")}))
        return await kept.get("k", lambda watch: made(watch, b"another"))

    result = asyncio.run(twice())
    assert result == Made(b"x", {"encoder": Work(0.0, "hit")})


def test_who_joins_a_computation_sees_its_misses_but_none_of_its_seconds() -> None:
    async def together() -> list[Made[bytes]]:
        kept, start = cache(), asyncio.Event()

        async def slow(watch: Stopwatch) -> Made[bytes]:
            await start.wait()
            return await made(watch, trace={"frames": Work(3.0, "miss")})

        waiting = [asyncio.create_task(kept.get("k", slow)) for _ in range(2)]
        await asyncio.sleep(0)
        start.set()
        return list(await asyncio.gather(*waiting))

    first, joined = asyncio.run(together())
    assert first.trace == {"frames": Work(3.0, "miss"), "encoder": Work(2.0, "miss")}
    assert joined.trace == {"frames": Work(0.0, "miss"), "encoder": Work(0.0, "miss")}


def test_an_inner_cache_of_the_same_stage_decides_between_hit_and_miss() -> None:
    inner = {"encoder": Work(0.5, "hit")}
    result = asyncio.run(cache().get("k", lambda watch: made(watch, trace=inner)))
    assert result.trace == {"encoder": Work(2.5, "hit")}


def test_a_flush_by_prefix_leaves_the_other_keys() -> None:
    async def scenario() -> list[bool]:
        kept = cache()
        for key in ("a/1", "a/2", "ab/1"):
            await kept.get(key, made)
        kept.flush("a/")
        left = [key in kept for key in ("a/1", "a/2", "ab/1")]
        assert kept.stats.entries == 1
        kept.flush()
        assert kept.stats.entries == 0
        return left

    assert asyncio.run(scenario()) == [False, False, True]


def test_a_stopwatch_adds_up_its_blocks_even_when_one_fails() -> None:
    watch = Stopwatch()
    with pytest.raises(ZeroDivisionError), watch.running():
        _ = 1 / 0
    once = watch.seconds
    with watch.running():
        pass
    assert watch.seconds > once > 0


def test_merge_adds_seconds_and_keeps_misses() -> None:
    merged = merge({"a": Work(1.0, "hit")}, {"a": Work(2.0, "miss"), "b": Work(1.0, "hit")}, {"a": Work(0.0, "hit")})
    assert merged == {"a": Work(3.0, "miss"), "b": Work(1.0, "hit")}
