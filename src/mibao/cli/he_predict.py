"""`mibao he predict`: every party's part on one machine, to try a circuit before anybody relies on it."""

from __future__ import annotations

import io
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mibao.he import Circuit, ForestCircuit

_PROTECTS_NOBODY = (
    "All parties' parts were done here, by one user on one machine: this shows what a circuit answers and how long it "
    "takes, and protects nobody."
)


def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The owner's circuit, with weights in clear.")],
    records: Annotated[Path, typer.Argument(metavar="IN.npy", help="Records, shape (rows, features).")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.npy", help="Where the answers go.")],
) -> None:
    """Try a circuit: key, request, evaluation and decryption in one go. **It protects nobody.**

    Keys and messages live in a temporary folder, as files like those that the parties would exchange, and are gone
    when the command ends.
    """
    import numpy as np

    from mibao.he import files

    circuit = files.read_circuit(bundle)
    files.check_new(output)
    with TemporaryDirectory(prefix="mibao-he-") as folder:
        answers = _asked(circuit, files.read_records(records), Path(folder))
    stream = io.BytesIO()
    np.save(stream, answers, allow_pickle=False)
    files.write_logits(output, stream.getvalue())
    typer.echo(f"{output}: answers of {len(answers)} rows; for your eyes, never share them")
    typer.echo(_PROTECTS_NOBODY)


def _asked(circuit: Circuit | ForestCircuit, records: Any, folder: Path) -> Any:
    """The answers, by the files that the parties would have; sizes and times are printed on the way."""
    from time import process_time

    from mibao.he import files, request_in_clear
    from mibao.he.spec import CircuitSpec

    client, server = circuit.keygen()
    secret = folder / files.CLIENT_KEY_NAME
    files.write_client_key(secret, client)
    bundle, keys = files.write_server(folder, server)
    holder, spec = files.read_client_key(secret), circuit.spec
    in_clear = isinstance(spec, CircuitSpec) and not spec.data_encrypted
    request = request_in_clear(spec, records) if isinstance(spec, CircuitSpec) and in_clear else holder.encrypt(records)
    files.write_bytes(folder / "request", request)
    host = files.read_server(bundle, keys)
    started = process_time()
    files.write_bytes(folder / "answer", host.evaluate(files.read_bytes(folder / "request")))
    taken_ms = 1000 * (process_time() - started)
    for name in (bundle.name, keys.name, "request", "answer"):
        typer.echo(f"{name}: {(folder / name).stat().st_size:,} bytes")
    typer.echo(f"evaluated in {taken_ms:.1f} ms of CPU time")
    return holder.decrypt(files.read_bytes(folder / "answer"))
