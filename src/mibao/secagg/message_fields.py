"""Reading the fields of a canonical message: each function gives one field or says what was expected of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mibao.errors import InputError, IntegrityError, ProtocolError
from mibao.secagg.masking import Phase

# What a message holds. Readers below check each field: nothing is taken on trust from the annotation.
Body = dict[str, Any]


def client_name(number: int) -> str:
    """How an error names a client."""
    return f"client {number}"


@contextmanager
def blaming(peer: str, step: Phase) -> Iterator[None]:
    """Turn a fault in what ``peer`` sent into a ``ProtocolError`` that names the peer and the step."""
    try:
        yield
    except (IntegrityError, InputError) as error:
        raise ProtocolError(f"{peer}, step {step.value}: {error}") from error


def expect_fields(body: Body, *names: str) -> None:
    """Raises ``IntegrityError`` unless ``body`` has exactly these fields."""
    if set(body) != set(names):
        raise IntegrityError(f"expected exactly the fields {', '.join(names)}")


def integer(body: Body, name: str) -> int:
    """A field that is an integer. Raises ``IntegrityError`` for anything else."""
    value = body.get(name)
    if type(value) is not int:
        raise IntegrityError(f"{name}: expected an integer")
    return value


def octets(body: Body, name: str, *, size: int | None = None) -> bytes:
    """A field that is a byte string of ``size`` bytes. Raises ``IntegrityError`` for anything else."""
    value = body.get(name)
    if not isinstance(value, bytes):
        raise IntegrityError(f"{name}: expected bytes")
    if size is not None and len(value) != size:
        raise IntegrityError(f"{name}: expected {size} bytes, got {len(value)}")
    return value


def numbers(body: Body, name: str) -> tuple[int, ...]:
    """A field that is a list of client numbers, ascending. Raises ``IntegrityError`` for anything else."""
    value = body.get(name)
    if not isinstance(value, list):
        raise IntegrityError(f"{name}: expected a list")
    found = tuple(item for item in value if type(item) is int)
    if len(found) != len(value) or any(a >= b for a, b in itertools.pairwise(found)):
        raise IntegrityError(f"{name}: expected client numbers, ascending, each once")
    return found


def entries(body: Body, name: str, *, size: int | None = None, most: int | None = None) -> dict[int, bytes]:
    """A field that maps client numbers to ``size`` bytes each, or to at most ``most``, as ascending pairs.

    Raises:
        IntegrityError: anything else.
    """
    value = body.get(name)
    if not isinstance(value, list):
        raise IntegrityError(f"{name}: expected a list")
    found: dict[int, bytes] = {}
    last = -1
    for pair in value:
        match pair:
            case [int(number), bytes(content)] if type(number) is int and _fits(content, size, most):
                if number <= last:
                    raise IntegrityError(f"{name}: expected client numbers, ascending, each once")
                found[number] = content
                last = number
            case _:
                raise IntegrityError(f"{name}: expected pairs of a client number and {size or most} bytes")
    return found


def _fits(content: bytes, size: int | None, most: int | None) -> bool:
    return (size is None or len(content) == size) and (most is None or len(content) <= most)


def pairs(content: Mapping[int, bytes]) -> list[list[int | bytes]]:
    """What :func:`entries` reads."""
    return [[number, content[number]] for number in sorted(content)]


def messages(body: Body, name: str, *, most: int) -> list[bytes]:
    """A field that is a list of at most ``most`` messages. Raises ``IntegrityError`` for anything else."""
    value = body.get(name)
    if not isinstance(value, list) or len(value) > most:
        raise IntegrityError(f"{name}: expected a list of at most {most} messages")
    found = [item for item in value if isinstance(item, bytes)]
    if len(found) != len(value):
        raise IntegrityError(f"{name}: expected bytes")
    return found
