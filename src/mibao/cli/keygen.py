"""`mibao keygen`: a recipient's or a signer's key pair."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mibao.errors import InputError

if TYPE_CHECKING:
    from mibao.crypto.keys import RecipientSuite, SignerSuite


class SuiteName(StrEnum):
    """Suites by the names that stand in a key's text."""

    MLKEM768_X25519 = "mlkem768-x25519"
    X25519 = "x25519"
    ED25519 = "ed25519"
    ED25519_MLDSA65 = "ed25519-mldsa65"


def keygen(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the private key goes, e.g. alice.key.")],
    sign: Annotated[bool, typer.Option("--sign", help="Make a signer's key instead of a recipient's.")] = False,
    suite: Annotated[
        SuiteName | None,
        typer.Option(help="Default: mlkem768-x25519 for a recipient, ed25519 for a signer.", show_default=False),
    ] = None,
    passphrase: Annotated[
        bool, typer.Option("--passphrase", help="Protect it: asks at the terminal, or takes $MIBAO_PASSPHRASE.")
    ] = False,
) -> None:
    """Make a key pair: a private key only you can read, and a public one to hand out.

    A recipient's key opens models that were sealed to it. A signer's key (--sign) vouches for models and ledgers.
    """
    from rich.console import Console
    from rich.text import Text

    from mibao.cli import keys_io
    from mibao.crypto import keys, rng

    chosen = _suite(suite, sign=sign)
    seed = rng.random_bytes(keys.SEED_BYTES[chosen])
    key = (
        keys.generate_signer(chosen, seed)
        if isinstance(chosen, keys.SignerSuite)
        else keys.generate_recipient(chosen, seed)
    )
    secret = keys_io.ask_new_passphrase() if passphrase else None
    public_path = keys_io.write_pair(output, key, passphrase=secret)
    console = Console(highlight=False, soft_wrap=True)
    protection = "protected by your passphrase" if secret else "not protected by a passphrase"
    console.print(Text.assemble((str(output), "bold"), f"  private, {protection}: keep it to yourself"))
    console.print(Text.assemble((str(public_path), "bold"), "  public: hand it out"))
    console.print(f"{key.public.kind}, {key.suite.value}, id {key.key_id}", style="dim")


def _suite(named: SuiteName | None, *, sign: bool) -> RecipientSuite | SignerSuite:
    from mibao.crypto.keys import RecipientSuite, SignerSuite

    if named is None:
        return SignerSuite.ED25519 if sign else RecipientSuite.MLKEM768_X25519
    suites: type[RecipientSuite] | type[SignerSuite] = SignerSuite if sign else RecipientSuite
    if named.value not in [suite.value for suite in suites]:
        known = " or ".join(suite.value for suite in suites)
        raise InputError(f"--suite: expected {known} for a {'signer' if sign else 'recipient'}, got {named.value}")
    return suites(named.value)
