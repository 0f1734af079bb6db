"""Evaluation keys are one account's: a host that is asked by another refuses them, before a library sees them."""

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from he_cases import BOTH, DATA, circuit, records_of, reframed, weights_of
from mibao import he
from mibao.errors import InputError, IntegrityError, KeyMismatch
from mibao.he import envelope, files
from mibao.he.envelope import Kind
from mibao.he.forest_circuit import server_of
from mibao.he.sandbox import SandboxedServer
from mibao.he.tree_messages import TreeClient

ASKING = [
    ("alice", "bob", "server keys: made for another account"),
    ("alice", None, "server keys: made for an account; name the account that asks"),
    (None, "bob", "server keys: made for no account"),
]


@pytest.fixture(scope="module")
def alice():
    compiled = circuit(BOTH)
    client, server = compiled.keygen(account="alice")
    return client, server.bundle_bytes(), server.keys_bytes()


@pytest.fixture(scope="module")
def trees():
    rng = np.random.default_rng(0)
    records = rng.uniform(size=(200, 1))
    model = DecisionTreeClassifier(max_depth=1).fit(records, records[:, 0] > 0.5)
    roles = he.Roles(data_owner="patient", model_owner="hospital", compute_host="hospital")
    return he.compile(model, calibration=records, roles=roles)


def test_keys_serve_the_account_they_were_made_for(alice):
    client, bundle, keys = alice
    weights, bias = weights_of()
    for server in (
        he.Server.from_bytes(bundle=bundle, keys=keys, account="alice"),
        files.server_from(bundle=bundle, keys=keys, account="alice"),
    ):
        answer = client.decrypt(server.evaluate(client.encrypt(records_of())))
        assert np.max(np.abs(answer - (records_of() @ weights + bias))) < 1e-3


@pytest.mark.parametrize(("owner", "asking", "message"), ASKING)
def test_keys_of_another_account_than_asks_are_refused(owner, asking, message):
    client, server = circuit(DATA).keygen(account=owner)
    with pytest.raises(KeyMismatch, match=f"^{message}$"):
        he.Server.from_bytes(bundle=server.bundle_bytes(), keys=client.server_keys(), account=asking)


def test_keys_are_refused_before_the_library_reads_them(alice):
    _, bundle, keys = alice
    hostile = reframed(keys, Kind.SERVER_KEYS, body=lambda body: b"\xff" * len(body))
    with pytest.raises(KeyMismatch, match="made for another account"):
        he.Server.from_bytes(bundle=bundle, keys=hostile, account="bob")


def test_a_worker_refuses_them_as_well(alice):
    client, bundle, keys = alice
    with SandboxedServer(bundle=bundle, keys=keys, account="alice") as host:
        assert client.decrypt(host.evaluate(client.encrypt(records_of()))).shape == (3, 2)
    for asking, message in (("bob", "another account"), (None, "name the account that asks")):
        with pytest.raises(KeyMismatch, match=message):
            SandboxedServer(bundle=bundle, keys=keys, account=asking)


def test_a_request_of_one_account_is_not_evaluated_under_the_keys_of_another():
    compiled = circuit(BOTH)
    (_, server), (bob, _) = compiled.keygen(account="alice"), compiled.keygen(account="bob")
    with pytest.raises(KeyMismatch, match="request: made under another key"):
        server.evaluate(bob.encrypt(records_of()))


def test_a_request_that_lies_about_its_key_gets_an_answer_that_says_nothing_to_who_sent_it():
    """Bob writes the name of Alice's key into his request: under her keys his ciphertexts become noise, even to him."""
    compiled = circuit(BOTH)
    (alice, server), (bob, _) = compiled.keygen(account="alice"), compiled.keygen(account="bob")
    forged = reframed(
        bob.encrypt(records_of(rows=200)), Kind.REQUEST, header=lambda held: {**held, "key": alice.key_id.value}
    )
    answer = server.evaluate(forged)
    renamed = reframed(answer, Kind.ANSWER, header=lambda held: {**held, "key": bob.key_id.value})
    plain = records_of(rows=200) @ weights_of()[0] + weights_of()[1]
    for reader, received in ((alice, answer), (bob, renamed)):
        assert np.median(np.abs(reader.decrypt(received) - plain)) > 10


def test_a_label_changed_without_the_digest_is_found(alice):
    _, bundle, keys = alice
    assert keys.count(b"alice") == 1
    with pytest.raises(IntegrityError, match="server keys: its digest does not match"):
        he.Server.from_bytes(bundle=bundle, keys=keys.replace(b"alice", b"clive"), account="clive")


def test_the_account_lives_as_long_as_the_key(alice):
    client, bundle, _ = alice
    again = he.Client.from_secret_bytes(client.reveal_secret_bytes())
    assert again.account == client.account == "alice"
    assert he.Server.from_bytes(bundle=bundle, keys=again.server_keys(), account="alice").spec.features == 4
    assert circuit().keygen()[0].account is None


def test_trees_bind_their_keys_to_an_account_too(trees):
    client, server = trees.keygen(account="alice")
    again = TreeClient.from_secret_bytes(client.reveal_secret_bytes())
    assert again.account == "alice"
    whole = {"bundle": server.bundle_bytes(), "keys": again.server_keys()}
    assert server_of(**whole, account="alice").spec.features == 1
    for asking in ("bob", None):
        with pytest.raises(KeyMismatch, match="server keys: made for an"):
            server_of(**whole, account=asking)


@pytest.mark.parametrize("account", ["", "a" * 65, "line\nbreak"])
def test_what_is_no_name_is_no_account(account, trees):
    for whole in (circuit(), trees):
        with pytest.raises(InputError, match="account: expected 1 to 64 printable characters"):
            whole.keygen(account=account)


@pytest.mark.parametrize("account", ["", "a" * 65, "line\nbreak", 3, b"alice"])
def test_a_malformed_account_in_a_file_is_refused(account, alice):
    client, bundle, keys = alice
    forged = reframed(keys, Kind.SERVER_KEYS, header=lambda held: {**held, "account": account})
    with pytest.raises(IntegrityError, match="server keys: field account is malformed"):
        he.Server.from_bytes(bundle=bundle, keys=forged, account="alice")
    secret = reframed(client.reveal_secret_bytes(), Kind.CLIENT_KEY, header=lambda held: {**held, "account": account})
    with pytest.raises(IntegrityError, match="client key: field account is malformed"):
        he.Client.from_secret_bytes(secret)


def test_keys_without_an_account_are_the_bytes_they_were():
    opened = envelope.decode(circuit().generate_client().server_keys(), Kind.SERVER_KEYS)
    assert set(opened.header) == {"circuit", "key", "relinearization_bytes"}
