import numpy as np
import pytest

from he_cases import BOTH, DATA, ROLES, WEIGHTS, circuit, network_of
from mibao import he
from mibao.errors import InputError
from mibao.he.network import Dense


def test_each_role_has_its_line_of_what_it_could_read_and_who_holds_the_key():
    assert he.who_could_read(DATA, ROLES[DATA]) == [
        "data owner (patient) could read: records, answers; is not sent the weights, but answers tell about them; "
        "holds the secret key",
        "model owner (hospital) could read: weights; never records or answers; has no key",
        "compute host (hospital) could read: weights; never records or answers; has no key",
    ]
    assert he.who_could_read(WEIGHTS, ROLES[WEIGHTS]) == [
        "data owner (bank) could read: records; never weights or answers; has no key",
        "model owner (vendor) could read: weights, answers; is not sent the records, but answers tell about them; "
        "holds the secret key",
        "compute host (bank) could read: records; never weights or answers; has no key",
    ]
    assert he.who_could_read(BOTH, ROLES[BOTH]) == [
        "data owner (lab) could read: records, weights, answers; holds the secret key",
        "model owner (lab) could read: records, weights, answers; holds the secret key",
        "compute host (cloud) could read: ciphertexts only; never records or weights or answers; has no key",
    ]


def test_a_host_that_is_neither_owner_reads_clear_weights_and_the_line_says_so():
    roles = he.Roles(data_owner="patient", model_owner="hospital", compute_host="cloud")
    assert "compute host (cloud) could read: weights; never records or answers; has no key" in he.who_could_read(
        DATA, roles
    )


@pytest.mark.parametrize("missing", ["data_owner", "model_owner", "compute_host"])
@pytest.mark.parametrize("undeclared", [None, ""])
def test_an_undeclared_role_is_refused(missing, undeclared):
    named = {"data_owner": "a", "model_owner": "b", "compute_host": "c", missing: undeclared}
    with pytest.raises(InputError, match=f"{missing} is not declared"):
        he.Roles(**named)


@pytest.mark.parametrize("name", ["a" * 65, "line\nbreak"])
def test_a_name_that_would_spoil_a_line_is_refused(name):
    with pytest.raises(InputError, match="at most 64 printable characters"):
        he.Roles(data_owner=name, model_owner="b", compute_host="c")


@pytest.mark.parametrize(
    ("mode", "parties", "message"),
    [
        (DATA, ("a", "b", "a"), "the compute host owns what is to be hidden from it"),
        (WEIGHTS, ("a", "b", "b"), "the compute host owns what is to be hidden from it"),
        (BOTH, ("a", "a", "a"), "the compute host owns what is to be hidden from it"),
        (BOTH, ("a", "b", "a"), "the compute host owns what is to be hidden from it"),
        (BOTH, ("a", "b", "b"), "the compute host owns what is to be hidden from it"),
    ],
)
def test_a_casting_that_protects_nothing_is_refused(mode, parties, message):
    roles = he.Roles(data_owner=parties[0], model_owner=parties[1], compute_host=parties[2])
    with pytest.raises(InputError, match=message):
        he.compile_circuit(network_of(Dense(weights=np.ones((2, 4)), bias=np.ones(2))), mode=mode, roles=roles)


@pytest.mark.parametrize("mode", [DATA, WEIGHTS, BOTH])
def test_explain_states_mode_parties_layout_parameters_sizes_and_error(mode):
    compiled = circuit(mode)
    lines = compiled.explain()
    client, server = compiled.keygen()
    rows = compiled.spec.request.rows
    text = "\n".join(lines)
    assert lines[0].startswith(f"mode: {mode.value}")
    assert lines[1:4] == he.who_could_read(mode, ROLES[mode])
    assert "it could return any answer" in text
    assert f"under {compiled.spec.predicted_error:.1e}" in text
    if compiled.spec.data_encrypted:
        request = client.encrypt(np.ones((rows, 4)))
        stated = int(text.split("request ")[1].split(", answer")[0].replace(",", ""))
        assert 0 < len(request) - stated < 200
        answer = int(text.split(", answer ")[1].split("\n")[0].split(", encrypted")[0].replace(",", ""))
        assert 0 < len(server.evaluate(request)) - answer < 200
