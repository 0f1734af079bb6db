"""`mibao he compile`: a trained model, from a file that executes nothing, to a circuit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mibao.errors import InputError
from mibao.types import ComputeMode

Model = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        help="NAME.skops, XGBoost's NAME.json, or NAME.safetensors with NAME.json beside it; no pickle.",
    ),
]
Records = Annotated[
    Path,
    typer.Option(
        "--calibration", metavar="X.npy", help="Records like those to be asked about: .npy, .csv, or .parquet."
    ),
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
    release_answers: Annotated[
        int | None, typer.Option(help="Answers that a key may hand on to others; the ring grows for their noise.")
    ] = None,
    release_bits: Annotated[int, typer.Option(help="How little those may tell of the key, in bits.")] = 40,
    margin: Annotated[float, typer.Option(help="Room beyond the calibration's values, as a share of them.")] = 0.1,
) -> None:
    """Compile a trained model: BUNDLE holds its weights **in clear** and is its owner's.

    Prints what its polynomials cost, who could read what, sizes, keys, predicted time and error.
    """
    from mibao import he
    from mibao.he import files
    from mibao.he.forest_circuit import compile_forest
    from mibao.he.model_files import read_model

    files.check_new(output)
    roles = he.Roles(data_owner=data_owner, model_owner=model_owner, compute_host=compute_host)
    records = _records(calibration)
    asked = None
    if release_answers is not None:
        asked = he.Release(answers_limit=release_answers, statistical_bits=release_bits)
    found = read_model(model, calibration=records, margin=margin)
    lines: list[str] = []
    circuit: he.Circuit | he.ForestCircuit
    if isinstance(found, he.Network):
        translated = he.translate(found, calibration=records, margin=margin, degree=degree)
        circuit = he.compile_circuit(
            translated.network,
            mode=mode,
            roles=roles,
            rows=rows,
            max_error=max_error,
            release=asked,
        )
        lines = translated.explain()
    elif asked is not None:
        raise InputError("trees: their answers cannot be released, no bound of their noise is proven")
    else:
        circuit = compile_forest(found, calibration=records, roles=roles, mode=mode)
    files.write_circuit(output, circuit)
    for line in (*lines, *circuit.explain()):
        typer.echo(line)
    typer.echo(f"{output}: mode 0600, with the weights in clear; `mibao he public` writes it without them")


def _records(path: Path) -> Any:
    """Of a ``.npy`` file as they are, of a CSV or Parquet file with the names of its columns."""
    from mibao.he import files
    from mibao.he.tables import table_of_csv, table_of_parquet

    if path.suffix == ".parquet":
        return table_of_parquet(files.read_bytes(path), name=str(path))
    if path.suffix == ".csv":
        return table_of_csv(files.read_bytes(path), name=str(path))
    return files.read_records(path)
