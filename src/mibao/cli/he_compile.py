"""`mibao he compile`: a trained model, from a file that executes nothing, to a circuit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mibao.errors import InputError
from mibao.types import ComputeMode

if TYPE_CHECKING:
    from mibao.he import Network

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="NAME.skops, or NAME.safetensors with NAME.json beside it; no pickle.")
]
Records = Annotated[
    Path,
    typer.Option("--calibration", metavar="X.npy", help="Records like those to be asked about: .npy, or .csv."),
]
Owner = Annotated[str | None, typer.Option(metavar="NAME", help="Who takes this role; every role is named.")]


def compile_model(
    model: Model,
    *,
    calibration: Records,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="BUNDLE", help="Where the circuit goes.")],
    mode: Annotated[ComputeMode, typer.Option(help="What is encrypted.")] = ComputeMode.ENCRYPTED_DATA,
    data_owner: Owner = None,
    model_owner: Owner = None,
    compute_host: Owner = None,
    rows: Annotated[int, typer.Option(help="Rows that a request usually carries; any number may be sent.")] = 1,
    max_error: Annotated[float, typer.Option(help="Largest error that encryption may add to an answer.")] = 1e-3,
    degree: Annotated[int | None, typer.Option(help="Of each activation's polynomial; chosen if not given.")] = None,
    margin: Annotated[float, typer.Option(help="Room beyond the calibration's values, as a share of them.")] = 0.1,
) -> None:
    """Compile a trained model: BUNDLE holds its weights **in clear** and is its owner's.

    Prints what its polynomials cost, who could read what, sizes, keys, predicted time and error.
    """
    from mibao import he
    from mibao.he import files

    files.check_new(output)
    roles = he.Roles(data_owner=data_owner, model_owner=model_owner, compute_host=compute_host)
    records = _records(calibration)
    network = _network(model, records, margin=margin)
    translated = he.translate(network, calibration=records, margin=margin, degree=degree)
    circuit = he.compile_circuit(translated.network, mode=mode, roles=roles, rows=rows, max_error=max_error)
    files.write_circuit(output, circuit)
    for line in (*translated.explain(), *circuit.explain()):
        typer.echo(line)
    typer.echo(f"{output}: mode 0600, with the weights in clear; what others get comes from keygen")


def _network(model: Path, records: Any, *, margin: float) -> Network:
    from mibao.he import Network
    from mibao.he.model_files import read_model

    found = read_model(model, calibration=records, margin=margin)
    if not isinstance(found, Network):
        raise InputError(f"{model}: trees are compiled from Python, with mibao.he.trees; files of them are not yet")
    return found


def _records(path: Path) -> Any:
    """Of a ``.npy`` file as they are, of a CSV file with the names of its columns."""
    from mibao.he import files
    from mibao.he.tables import table_of_csv

    if path.suffix == ".csv":
        return table_of_csv(files.read_bytes(path), name=str(path))
    return files.read_records(path)
