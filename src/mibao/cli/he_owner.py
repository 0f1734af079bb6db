"""`mibao he public` and `mibao he weights`: what a model's owner gives to a data owner, and to a host of neither."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mibao.errors import InputError, KeyMismatch

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The owner's circuit, with weights in clear.")]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the result goes.")]


def public(bundle: Bundle, output: Output) -> None:
    """Write the circuit without its weights, for the data owner to make a key and encrypt with."""
    from mibao.he import files

    files.write_bytes(output, files.read_circuit(bundle).public().to_bytes())
    typer.echo(f"{output}: for the data owner; it holds no weights")


def weights(
    bundle: Bundle,
    output: Output,
    public_key: Annotated[
        Path, typer.Option("--public-key", metavar="PUBLIC.KEY", help="The data owner's, made by its keygen.")
    ],
    fingerprint: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="What the data owner's keygen printed; another key is refused."),
    ] = None,
) -> None:
    """Encrypt the weights under the data owner's public key, for a compute host that is neither owner.

    Whoever put another key in place of the data owner's would read the weights: ask the data owner for the fingerprint,
    and not through the host.
    """
    from mibao.he import Circuit, PublicKey, files

    circuit = files.read_circuit(bundle)
    if not isinstance(circuit, Circuit):
        raise InputError("trees: they stay in clear at their owner, who computes with them")
    files.check_new(output)
    key = PublicKey.from_bytes(files.read_message(public_key), spec=circuit.spec)
    if fingerprint is not None and fingerprint.strip().lower() != key.fingerprint:
        raise KeyMismatch(
            f"{public_key}: its fingerprint is {key.fingerprint}, another than expected: the key was replaced on its "
            "way, or the fingerprint mistyped"
        )
    files.write_bytes(output, circuit.encrypt_weights(key))
    typer.echo(f"{public_key}: fingerprint {key.fingerprint}")
    if fingerprint is None:
        typer.echo("compare it with the data owner, and not through the host, before anybody gets the weights")
    typer.echo(f"{output}: {output.stat().st_size:,} bytes, for the compute host, weights encrypted")
