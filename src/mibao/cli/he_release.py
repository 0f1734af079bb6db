"""`mibao he release`: the only decryption whose answers may be shown to others."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

from mibao.errors import InputError, KeyMismatch


def release(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The circuit, compiled with --release-answers.")],
    answer: Annotated[Path, typer.Argument(metavar="ANSWER", help="What the compute host sent back.")],
    key: Annotated[Path, typer.Option("--key", metavar="CLIENT.KEY", help="The secret key.")],
    count: Annotated[
        Path, typer.Option("--count", metavar="CLIENT.RELEASED", help="What the key has released; made by keygen.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.npy", help="Where the answers go.")],
) -> None:
    """Decrypt an answer through noise that hides the key, so that it may be shared, and count it.

    The key is retired at its limit. Keep CLIENT.RELEASED beside the key and restore neither from a backup: an older
    count would have more answers released than the circuit promises.
    """
    import numpy as np

    from mibao.he import Client, files
    from mibao.he.release_state import ReleaseFile

    circuit, client = files.read_circuit(bundle), files.read_client_key(key)
    if client.spec.circuit_id != circuit.spec.circuit_id:
        raise KeyMismatch("client key: made for another circuit")
    if not isinstance(client, Client):
        raise InputError("release: answers of trees cannot be released, no bound of their noise is proven")
    files.check_new(output)
    terms = client.spec.release
    if terms is None:
        raise InputError("release: this circuit leaves no room for noise; compile it with --release-answers")
    kept = ReleaseFile(count, key_id=client.key_id)
    answers = client.decrypt_for_release(
        files.read_message(answer),
        answers_limit=terms.release.answers_limit,
        statistical_bits=terms.release.statistical_bits,
        count=kept,
    )
    stream = io.BytesIO()
    np.save(stream, answers, allow_pickle=False)
    files.write_bytes(output, stream.getvalue())
    typer.echo(
        f"{output}: answers of {len(answers)} rows, which may be shared; {kept.released()} of "
        f"{terms.release.answers_limit} ciphertexts of this key are out"
    )
