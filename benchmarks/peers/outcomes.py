"""What came of an attack: the peer took it, refused it by an error of its own, or fell over something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

ACCEPTED = "ACCEPTED"
REFUSED = "refused"
Loaded = Mapping[str, Any]


def outcome(load: Callable[[], object], *, own: tuple[type[BaseException], ...]) -> str:
    """``ACCEPTED``, ``refused``, or ``failed: `` and the name of an error that is none of the peer's ``own``."""
    try:
        load()
    except own:
        return REFUSED
    except BaseException as error:  # noqa: BLE001  a panic of native code is one too
        return f"failed: {type(error).__name__}"
    return ACCEPTED


def over_flips(
    data: bytes,
    places: Iterable[int],
    load: Callable[[bytes], Loaded],
    *,
    own: tuple[type[BaseException], ...],
    same: Callable[[Loaded], bool],
) -> str:
    """The outcomes of one bit flipped at each of ``places``, counted; ``same`` tells a flip that changed nothing."""
    found: Counter[str] = Counter()
    changed = 0
    for at in places:
        altered = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        loaded: list[Loaded] = []
        answer = outcome(lambda altered=altered, loaded=loaded: loaded.append(load(altered)), own=own)  # type: ignore[misc]
        found[answer.partition(":")[0]] += 1
        changed += bool(loaded) and not same(loaded[0])
    tried = sum(found.values())
    failed = f", failed otherwise at {found['failed']}" if found["failed"] else ""
    if not found[ACCEPTED]:
        return REFUSED + failed
    return f"{ACCEPTED} at {found[ACCEPTED]} of {tried} bytes, with other tensors at {changed}{failed}"
