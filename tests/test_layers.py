"""Sockets, clocks, files' randomness and processes stand at the edge, and every package has its layer.

``lint-imports`` holds the arrows between packages; this holds what it cannot see: which single module may
import a door to the outside, and that no package was added without a layer.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_SOURCE = _ROOT / "src" / "mibao"
_MODULES = {
    ".".join(path.relative_to(_SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(_SOURCE.rglob("*.py"))
}

# Where the outside may enter: DESIGN.md, "The house". A name that ends in an underscore is a prefix.
_EDGE = (
    "mibao.__main__", "mibao.cli", "mibao.demo", "mibao.federated", "mibao.serving", "mibao.sealed.store",
    "mibao.sealed.files", "mibao.sealed.large_pages",  # asks how long the kernel took for a page
    "mibao.sealed.unlock_", "mibao.sealed.aws", "mibao.sealed.source_", "mibao.ledger.log", "mibao.ledger.log_",
    "mibao.deid.vault", "mibao.deid.vault_", "mibao.deid.files", "mibao.deid.files_", "mibao.he.files",
    "mibao.secagg.journal",
    "mibao.he.release_state",  # how many answers a key has given out
    "mibao.he.sandbox",  # what strangers send is parsed in a process of its own
)  # fmt: skip
# A sender's context draws its own ephemeral key: one that a caller repeated would reveal both messages.
# A compiled circuit's random id binds keys and messages to it, and compiling is one call.
_MAY_DRAW = {"mibao.crypto.kem", "mibao.he.circuit", "mibao.he.forest_circuit"}
_RNG = "mibao.crypto.rng"
_ENTROPY = ("secrets", "random", "os.urandom", "os.getrandom", "uuid", _RNG)
_CLOCKS = ("time", "datetime.now", "datetime.utcnow", "datetime.today", "date.today", "datetime.datetime.now")
_OUTSIDE = ("socket", "ssl", "subprocess", "multiprocessing", "sqlite3", "tempfile", "asyncio", *_CLOCKS)


def _imports(source: str) -> Iterator[str]:
    """Each module or attribute that ``source`` imports or calls by its full name."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield module
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                yield f"{name}.{attribute}"


def _doors(source: str, doors: tuple[str, ...]) -> set[str]:
    return {door for door in doors for name in _imports(source) if name == door or name.startswith(f"{door}.")}


def _is_at_edge(module: str) -> bool:
    return any(module == edge or module.startswith(edge if edge.endswith("_") else f"{edge}.") for edge in _EDGE)


def _found(module: str, doors: tuple[str, ...]) -> set[str]:
    return _doors(_MODULES[module].read_text(encoding="utf-8"), doors)


@pytest.mark.parametrize("module", [name for name in _MODULES if not _is_at_edge(name)])
def test_inside_there_is_no_entropy_clock_socket_or_process(module: str) -> None:
    if module == _RNG:
        assert _found(module, _OUTSIDE) == set()
    else:
        assert _found(module, _ENTROPY + _OUTSIDE) <= ({_RNG} if module in _MAY_DRAW else set())


@pytest.mark.parametrize("module", [name for name in _MODULES if _is_at_edge(name)])
def test_at_the_edge_entropy_comes_from_one_place(module: str) -> None:
    assert _found(module, tuple(door for door in _ENTROPY if door != _RNG)) == set()


@pytest.mark.parametrize(
    ("source", "door"),
    [
        ("import secrets", "secrets"),
        ("from os import urandom", "os.urandom"),
        ("import os\nos.urandom(8)", "os.urandom"),
        ("from mibao.crypto import rng", "mibao.crypto.rng"),
        ("from mibao.crypto.rng import random_bytes", "mibao.crypto.rng"),
        ("from numpy import ndarray\nimport time", "time"),
        ("from datetime import UTC, datetime\ndatetime.now(UTC)", "datetime.now"),
    ],
)
def test_each_way_of_opening_a_door_is_seen(source: str, door: str) -> None:
    assert _doors(source, _ENTROPY + _OUTSIDE) == {door}


def _contract(name: str) -> dict[str, list[str]]:
    tools = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (contract,) = [contract for contract in tools["importlinter"]["contracts"] if contract["id"] == name]
    return dict(contract)


# `python -m mibao` calls the command and holds nothing of its own.
_TOP_LEVEL = {".".join(module.split(".")[:2]) for module in _MODULES} - {"mibao", "mibao.__main__"}


def test_every_package_and_module_stands_in_a_layer() -> None:
    named = {part.strip().strip("()") for layer in _contract("layers")["layers"] for part in layer.split("|")}
    assert named >= _TOP_LEVEL


def test_every_package_but_crypto_is_kept_from_the_cipher_library() -> None:
    door = _contract("one-door")
    assert set(door["source_modules"]) >= _TOP_LEVEL - {"mibao.crypto"}
    assert door["forbidden_modules"] == ["cryptography"]
