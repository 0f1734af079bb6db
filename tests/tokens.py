"""Real PKCS#11 tokens in software: SoftHSM2, and the one of NSS, which does RSA-OAEP with SHA-256."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from strict_skips import program

PIN = "1234"
SO_PIN = "5678"
LABEL = "mibao"
_LIBRARIES = (Path("/usr/lib"), Path("/usr/local/lib"))
_OS_LOCKING = 2


def _library(name: str, *, apt: str) -> str:
    found = [path for folder in _LIBRARIES for path in folder.glob(f"**/{name}")]
    if not found:
        pytest.skip(f"needs {name}: apt install {apt}")
    return str(found[0])


@contextmanager
def softhsm(folder: Path) -> Iterator[str]:
    """The path of its module, with a token of three AES keys (``models`` and ``others`` of 256 bits, ``short`` of
    128) and an RSA-3072 pair."""
    program("softhsm2-util", apt="softhsm2")
    library = _library("libsofthsm2.so", apt="softhsm2")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm2.conf"))
        patch.setenv("MODEL_PIN", PIN)
        command = ["softhsm2-util", "--init-token", "--free", "--label", LABEL, "--pin", PIN, "--so-pin", SO_PIN]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        import pkcs11

        loaded = pkcs11.lib(library)
        loaded.reinitialize()
        with loaded.get_token(token_label=LABEL).open(user_pin=PIN, rw=True) as session:
            for number, (label, bits) in enumerate((("models", 256), ("others", 256), ("short", 128))):
                session.generate_key(pkcs11.KeyType.AES, bits, label=label, id=bytes([number + 1]), store=True)
            session.generate_keypair(pkcs11.KeyType.RSA, 3072, label="pair", id=b"\x09", store=True)
        yield library


class _InitArguments(ctypes.Structure):
    """NSS's CK_C_INITIALIZE_ARGS: PKCS #11's own, with a text of parameters before the reserved pointer."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("create", "destroy", "lock", "unlock")),
        ("flags", ctypes.c_ulong),
        ("parameters", ctypes.c_char_p),
        ("reserved", ctypes.c_void_p),
    )


@contextmanager
def nss(folder: Path) -> Iterator[str]:
    """The path of NSS's module, with a token of two RSA-3072 pairs, ``pair`` and ``second``, and an AES-256 key.

    NSS wants to be told where its token lies when it is initialised, which python-pkcs11 cannot say: the module's own
    C_Initialize is called with that, as p11-kit's ``x-init-reserved`` does.
    """
    library = _library("libsoftokn3.so", apt="libnss3")
    parameters = f"configdir='sql:{folder}' certPrefix='' keyPrefix='' flags= minPS=0 dbTokenDescription='{LABEL}'"
    arguments = _InitArguments(flags=_OS_LOCKING, parameters=parameters.encode())
    functions = ctypes.POINTER(ctypes.c_void_p)()
    get_functions = ctypes.CDLL(library).C_GetFunctionList
    get_functions.argtypes = [ctypes.c_void_p]
    assert get_functions(ctypes.byref(functions)) == 0
    kind = ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)
    original = functions[1]
    initialize = kind(original)
    with_parameters = kind(lambda _: initialize(ctypes.addressof(arguments)))
    functions[1] = ctypes.cast(with_parameters, ctypes.c_void_p).value
    import pkcs11

    loaded = pkcs11.lib(library)
    try:
        token = loaded.get_token(token_label=LABEL)
        with token.open(so_pin="", rw=True) as session:
            session.init_pin(PIN)
        with token.open(user_pin=PIN, rw=True) as session:
            for number, label in enumerate(("pair", "second")):
                session.generate_keypair(pkcs11.KeyType.RSA, 3072, label=label, id=bytes([number + 1]), store=True)
            session.generate_key(pkcs11.KeyType.AES, 256, label="models", id=b"\x09", store=True)
        yield library
    finally:
        loaded.finalize()
        functions[1] = original
