"""Memory made ready ahead of writing, and files written back ahead of the sync: both change times and nothing else."""

from __future__ import annotations

import time

import numpy as np
import pytest

from mibao.sealed import large_pages
from mibao.sealed.memory import fresh_memory

SIZE = (1 << 22) + 12_345


def test_memory_made_ready_is_zero_and_keeps_what_was_written():
    memory = fresh_memory(SIZE)
    ready = large_pages.readier(memory)
    ready(0, 5000)
    memory[:5000] = b"x" * 5000
    for begin in range(0, SIZE, 700_000):
        ready(begin, min(SIZE, begin + 700_000))
    assert bytes(memory[:5000]) == b"x" * 5000
    assert not any(memory[5000:])


def test_memory_made_ready_needs_no_page_fault_any_more():
    memory = fresh_memory(SIZE)
    large_pages.readier(memory)(0, SIZE)
    before = _faults()
    np.frombuffer(memory, np.uint8)[::4096] = 1
    assert _faults() - before < SIZE // 4096 // 4


def test_the_rest_stays_usable_once_large_pages_are_given_up(monkeypatch: pytest.MonkeyPatch):
    times = iter(range(1000))
    monkeypatch.setattr(time, "thread_time", lambda: float(next(times)))  # every piece seems to take a second
    memory = fresh_memory(SIZE)
    ready = large_pages.readier(memory)
    for begin in range(0, SIZE, 1 << 20):
        ready(begin, min(SIZE, begin + (1 << 20)))
    assert next(times) < 5, "it was timed again after it had given up"
    assert not any(memory)


def test_memory_that_is_no_mapping_is_left_alone():
    whole = bytearray(b"x" * 10_000)
    large_pages.readier(memoryview(whole))(0, 10_000)
    assert whole == b"x" * 10_000


def test_a_part_of_a_mapping_is_left_alone():
    memory = fresh_memory(SIZE)
    large_pages.readier(memory[4096:])(0, 4096)
    assert not any(memory)


def _faults() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
