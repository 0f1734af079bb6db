"""From a trained model to a circuit, in one call."""

from __future__ import annotations

from typing import Any

from mibao.errors import InputError
from mibao.he.approximation import DEFAULT_TOLERANCE, Approximation, approximate
from mibao.he.circuit import DEFAULT_MAX_ERROR, Circuit, compile_circuit
from mibao.he.forest_circuit import ForestCircuit, compile_forest
from mibao.he.forests import Forest
from mibao.he.models import DEFAULT_MARGIN, forest_from, network_of, records_of
from mibao.he.models_trees import holds_trees
from mibao.he.network import Network
from mibao.he.release_terms import Release
from mibao.he.roles import Roles
from mibao.he.trees import DEFAULT_AGREEMENT
from mibao.types import ComputeMode, RandomId


def translate(
    model: Any,
    *,
    calibration: Any,
    margin: float = DEFAULT_MARGIN,
    input_range: tuple[float | int, float | int] | None = None,
    degree: int | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> Approximation:
    """A trained model as a network that ciphertexts can compute, and what its polynomials cost.

    Args:
        model: A fitted scikit-learn estimator or pipeline, a ``torch.nn.Module``, or a network.
        calibration: Records like those that will be asked about: an array or a DataFrame.
        margin: How far beyond the calibration's values those of a client, and those inside the model, may lie, as a
            share of their range.
        input_range: Smallest and largest value of every feature, where they are known, such as (0, 255).
        degree: Of every activation's polynomial; by default the first of 3, 7, 15 and 31 that keeps ``tolerance``.
        tolerance: Largest change of an answer by polynomials, as a share of the answers' range.

    Raises:
        InputError: a model that cannot be computed on ciphertexts, or figures outside their ranges.
    """
    network = model
    if not isinstance(model, Network):
        network = network_of(model, calibration=calibration, margin=margin, input_range=input_range)
    records = records_of(calibration)
    return approximate(network, records.reshape(len(records), -1), margin=margin, degree=degree, tolerance=tolerance)


def compile_model(
    model: Any,
    *,
    calibration: Any,
    roles: Roles | None = None,
    mode: ComputeMode = ComputeMode.ENCRYPTED_DATA,
    rows: int = 1,
    max_error: float = DEFAULT_MAX_ERROR,
    margin: float = DEFAULT_MARGIN,
    input_range: tuple[float | int, float | int] | None = None,
    degree: int | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    agreement: float = DEFAULT_AGREEMENT,
    release: Release | None = None,
    circuit_id: RandomId | None = None,
) -> Circuit | ForestCircuit:
    """A trained model as a circuit; this is :func:`mibao.he.compile`.

    Args:
        model: A fitted scikit-learn or XGBoost estimator or pipeline, a ``torch.nn.Module``, a network, or a forest.
        calibration: Records like those that will be asked about: an array or a DataFrame.
        roles: The three parties by name, all declared.
        mode: What is encrypted.
        rows: How many rows a request usually carries: the layout is chosen for them. Any number may be sent.
        max_error: Largest error that encryption may add to an answer, before the head.
        margin: See :func:`translate`, as for ``input_range``, ``degree`` and ``tolerance``.
        agreement: Of trees only, which take none of the above but ``roles``: share of the calibration records whose
            class their comparisons must keep.
        release: Room for answers that are handed on; see :meth:`mibao.he.Client.decrypt_for_release`. Not for trees.
        circuit_id: Binds keys, requests and answers to this circuit; drawn afresh unless given.

    Raises:
        InputError: a role is not declared, the model cannot be computed on ciphertexts, or no parameters keep
            ``max_error``.
    """
    if roles is None:
        raise InputError("roles: not declared; name data_owner, model_owner and compute_host with he.Roles")
    if isinstance(model, Forest) or (not isinstance(model, Network) and holds_trees(model)):
        if release is not None:
            raise InputError("trees: their answers cannot be released, no bound of their noise is proven; hand on none")
        forest = model if isinstance(model, Forest) else forest_from(model, calibration=calibration, margin=margin)
        return compile_forest(
            forest, calibration=calibration, roles=roles, mode=mode, agreement=agreement, circuit_id=circuit_id
        )
    translated = translate(
        model,
        calibration=calibration,
        margin=margin,
        input_range=input_range,
        degree=degree,
        tolerance=tolerance,
    )
    return compile_circuit(
        translated.network,
        mode=mode,
        roles=roles,
        rows=rows,
        max_error=max_error,
        release=release,
        circuit_id=circuit_id,
    )
