"""`mibao he`: ask a model without showing the question, or the model. Every party runs its own commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mibao.cli.he_compile import compile_model
from mibao.cli.he_owner import public, weights
from mibao.cli.he_predict import predict
from mibao.cli.he_release import release
from mibao.errors import InputError, KeyMismatch

if TYPE_CHECKING:
    from mibao.he import Client
    from mibao.he.tree_messages import TreeClient
    from mibao.types import RandomId

app = typer.Typer(
    name="he",
    help="Compute on ciphertexts: compile a model, make a key, encrypt, evaluate elsewhere, decrypt.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.command("compile")(compile_model)
app.command("public")(public)

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The circuit: with, without or with encrypted weights.")]
SecretKey = Annotated[Path, typer.Option("--key", metavar="CLIENT.KEY", help="The secret key; the host never sees it.")]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the result goes.")]
Account = Annotated[
    str | None, typer.Option(metavar="NAME", help="Whose the evaluation keys are at the host; nobody's if not given.")
]


@app.command()
def explain(bundle: Bundle) -> None:
    """Print a circuit: who could read what, layout, parameters, sizes, expected error."""
    from mibao.he import files

    for line in files.read_circuit(bundle).explain():
        typer.echo(line)


@app.command()
def keygen(
    bundle: Bundle,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Where the files go; made if absent.")],
    account: Account = None,
) -> None:
    """Make a key: client.key (secret), and server.keys for the host; client.released where answers may be shared.

    Where the mode encrypts weights, BUNDLE is the owner's file with weights in clear, and host.bundle is written with
    them encrypted. The host gets host.bundle, never BUNDLE.

    Where data and model have different owners and the host is neither, BUNDLE is what the model's owner wrote with
    `mibao he public`, and public.key is written for that owner's `mibao he weights`.
    """
    from mibao.he import Circuit, Client, files

    circuit = files.read_circuit(bundle)
    files.check_new(
        *(
            output / name
            for name in (
                files.CLIENT_KEY_NAME,
                files.SERVER_KEYS_NAME,
                files.HOST_BUNDLE_NAME,
                files.RELEASED_NAME,
                files.PUBLIC_KEY_NAME,
            )
        )
    )
    client = circuit.generate_client(account=account)
    encrypted, public_key = None, None
    if isinstance(circuit, Circuit) and isinstance(client, Client) and circuit.spec.weights_publicly:
        if circuit.program is not None:
            raise InputError(f"{bundle}: holds the weights; the key is the data owner's, who gets `mibao he public`")
        public_key = client.public_key()
    elif isinstance(circuit, Circuit) and isinstance(client, Client) and circuit.spec.weights_encrypted:
        encrypted = circuit.encrypt_weights(client)
    secret = output / files.CLIENT_KEY_NAME
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output}: cannot be made ({error.strerror})") from error
    files.write_client_key(secret, client)
    typer.echo(f"{secret}: secret, mode 0600; whoever reads it reads every request and answer")
    if isinstance(client, Client) and client.spec.release is not None:
        _start_count(client, output / files.RELEASED_NAME)
    files.write_bytes(output / files.SERVER_KEYS_NAME, client.server_keys())
    typer.echo(f"{output / files.SERVER_KEYS_NAME}: for the compute host")
    if encrypted is not None:
        files.write_bytes(output / files.HOST_BUNDLE_NAME, encrypted)
        typer.echo(f"{output / files.HOST_BUNDLE_NAME}: for the compute host, weights encrypted")
    if public_key is not None:
        _write_public_key(output / files.PUBLIC_KEY_NAME, public_key)


app.command("weights")(weights)


@app.command()
def encrypt(
    bundle: Bundle,
    records: Annotated[Path, typer.Argument(metavar="IN.npy", help="Records, shape (rows, features).")],
    key: SecretKey,
    output: Output,
) -> None:
    """Encrypt records into a request for the compute host."""
    from mibao.he import files

    client = _client_for(files.read_circuit(bundle).spec.circuit_id, key)
    files.write_bytes(output, client.encrypt(files.read_records(records)))
    typer.echo(f"{output}: {output.stat().st_size:,} bytes, for the compute host")


@app.command()
def evaluate(
    bundle: Bundle,
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="What the data owner sent; or records (.npy).")],
    keys: Annotated[Path, typer.Option("--keys", metavar="SERVER.KEYS", help="Evaluation keys; nothing secret.")],
    output: Output,
    account: Account = None,
) -> None:
    """Answer a request, as the compute host: nothing secret is read, nothing is decrypted.

    Where only the weights are encrypted, the host has the records: REQUEST is then their .npy file.
    """
    from mibao.he import CircuitSpec, files, request_in_clear

    server = files.read_server(bundle, keys, account=account)
    spec = server.spec
    if isinstance(spec, CircuitSpec) and not spec.data_encrypted and request.suffix == ".npy":
        answer = server.evaluate(request_in_clear(spec, files.read_records(request)))
    else:
        answer = server.evaluate(files.read_message(request))
    files.write_bytes(output, answer)
    typer.echo(f"{output}: {len(answer):,} bytes, for the key holder")


@app.command()
def decrypt(
    bundle: Bundle,
    answer: Annotated[Path, typer.Argument(metavar="ANSWER", help="What the compute host sent back.")],
    key: SecretKey,
    output: Output,
) -> None:
    """Decrypt an answer (.npy): what the model gives. Never share it: its noise speaks about the key."""
    import io

    import numpy as np

    from mibao.he import files

    client = _client_for(files.read_circuit(bundle).spec.circuit_id, key)
    answers = client.decrypt(files.read_message(answer))
    stream = io.BytesIO()
    np.save(stream, answers, allow_pickle=False)
    files.write_logits(output, stream.getvalue())
    typer.echo(f"{output}: answers of {len(answers)} rows; for the key holder's eyes, never share them")


app.command("release")(release)
app.command("predict")(predict)


def _write_public_key(path: Path, public_key: bytes) -> None:
    from mibao.he import files
    from mibao.he.public_key import fingerprint

    files.write_bytes(path, public_key)
    typer.echo(f"{path}: for the model's owner, to encrypt the weights with; it decrypts nothing")
    typer.echo(f"{path}: fingerprint {fingerprint(public_key)}; tell the model's owner, and not through the host")


def _start_count(client: Client, path: Path) -> None:
    from mibao.he.release_state import ReleaseFile

    if client.spec.release is not None:
        asked = client.spec.release.release
        policy = client.release_policy(answers_limit=asked.answers_limit, statistical_bits=asked.statistical_bits)
        ReleaseFile(path, key_id=client.key_id).create(policy)
        typer.echo(f"{path}: counts what this key releases; keep it beside the key")


def _client_for(circuit_id: RandomId, key: Path) -> Client | TreeClient:
    from mibao.he import files

    client = files.read_client_key(key)
    if client.spec.circuit_id != circuit_id:
        raise KeyMismatch("client key: made for another circuit")
    return client
