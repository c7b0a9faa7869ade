"""Each bound bites: what a decoder that was taken over cannot do, and what is left when the kernel takes no filter."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.errors import Undecodable
from models.video import Limits, Sampling
from serve.sandbox.launcher import SandboxError
from serve.sandbox.pool import Pool
from serve.settings import MiB, Sandbox
from tests.serve.sandbox.conftest import TIGHT, UNFILTERED, Orders, Run

FORBIDDEN = [
    "open /etc/hostname",
    "open /proc/self/environ",
    "make /tmp/dsr-sandbox-escape",
    "unlink /tmp/dsr-sandbox-escape",
    "list /",
    "socket",
    "pipe",
    "memfd",
    "exec",
    "fork",
    "vfork",
    "ptrace",
    "peek",
    "kill",
    "nice",
    "code",
    "dumpable",
]


@pytest.fixture(scope="module")
def unfiltered() -> Iterator[Pool]:
    pool = Pool(TIGHT.model_copy(update={"videos_per_child": 1}), 1, UNFILTERED)
    yield pool
    pool.close()


@pytest.mark.parametrize("order", FORBIDDEN)
def test_a_decoder_may_not(order: str, run: Run[str], pool: Pool, orders: Orders) -> None:
    assert run(orders.give(pool, order)) == "EPERM"
    assert not Path("/tmp/dsr-sandbox-escape").exists()


def test_a_decoder_may_start_threads(run: Run[str], pool: Pool, orders: Orders) -> None:
    assert run(orders.give(pool, "thread")) == "a thread ran"


def test_a_decoder_gets_nothing_of_the_environment(
    run: Run[str], orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "DSR_API_KEYS", "PYTHONSTARTUP", "LD_PRELOAD_OF_SOMEONE"):
        monkeypatch.setenv(name, "secret")
    own = Pool(TIGHT, 1, UNFILTERED)
    names = set(run(orders.give(own, "environment")).strip("[]").split(", "))
    own.close()
    assert "OMP_NUM_THREADS" in names
    assert names <= {
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GLIBC_TUNABLES", "LC_ALL", "LD_LIBRARY_PATH"),
    }


def test_a_decoder_has_lost_its_limits_for_good(run: Run[str], pool: Pool, orders: Orders) -> None:
    core, written, _ = run(orders.give(pool, "limits")).split(",")
    assert (core, written) == ("0", "0")
    for name in ("RLIMIT_CPU", "RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_NOFILE"):
        assert run(orders.give(pool, f"raise {name}")) == "EPERM", name


def test_a_decoder_can_change_neither_its_video_nor_the_size_of_its_memory(
    run: Run[str], pool: Pool, orders: Orders
) -> None:
    assert run(orders.give(pool, "write")) == "EBADF"  # a descriptor for reading
    assert run(orders.give(pool, "grow")) == "cannot"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_a_decoder_is_not_root(run: Run[str], pool: Pool, orders: Orders) -> None:
    status = Path(f"/proc/{run(orders.give(pool, 'pid'))}/status").read_text()
    assert "Uid:\t65534\t65534\t65534\t65534\n" in status
    assert "CapEff:\t0000000000000000\n" in status


def test_too_much_memory_is_said_with_the_limit(run: Run[Any], pool: Pool, orders: Orders) -> None:
    assert run(orders.give(pool, f"allocate {100 * MiB}")) == f"allocated {100 * MiB}"
    with orders.file(f"DO allocate {300 * MiB}".encode()) as file, pytest.raises(Undecodable) as refusal:
        run(pool.read(file, Sampling(), Limits()))
    assert refusal.value.message == "decoding the video takes more than 256 MiB of memory, which is the limit"
    assert refusal.value.limit == 256


def test_too_much_processor_time_is_said_with_the_limit(run: Run[Any], pool: Pool, orders: Orders) -> None:
    with orders.file(b"DO spin") as file, pytest.raises(Undecodable, match="more than 1 s of processor time"):
        run(pool.read(file, Sampling(), Limits()))


def test_without_a_filter_the_other_layers_hold(
    run: Run[Any], unfiltered: Pool, orders: Orders, caplog: pytest.LogCaptureFixture
) -> None:
    for order in ("open /etc/hostname", "make /tmp/dsr-sandbox-escape", "socket", "pipe", "memfd"):
        assert run(orders.give(unfiltered, order)) == "EMFILE", order  # no descriptor may be added
    assert run(orders.give(unfiltered, "limits")) == "0,0,0"
    assert run(orders.give(unfiltered, "grow")) == "cannot"  # sealed
    assert run(orders.give(unfiltered, "write")) == "EBADF"
    for size, expected in ((100, f"allocated {100 * MiB}"), (300, None)):
        if expected:
            assert run(orders.give(unfiltered, f"allocate {size * MiB}")) == expected
        else:
            with orders.file(f"DO allocate {size * MiB}".encode()) as file, pytest.raises(Undecodable, match="MiB"):
                run(unfiltered.read(file, Sampling(), Limits()))


def test_a_kernel_without_filters_is_said_once_or_refused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "serve.sandbox.pool"):
        Pool(Sandbox(), 1, UNFILTERED).close()
    assert [record.message for record in caplog.records] == [
        "the kernel takes no filter of system calls; decoders are confined by the other bounds alone"
    ]
    with pytest.raises(SandboxError, match="no filter of system calls, which the settings require"):
        Pool(Sandbox(require_seccomp=True), 1, UNFILTERED)


def test_the_parent_keeps_its_own_limits(pool: Pool) -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 16
