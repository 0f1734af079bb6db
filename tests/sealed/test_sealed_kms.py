"""A key in AWS KMS, against moto's server on loopback."""

from dataclasses import replace

import pytest

import sealed_kit as kit
from aws_server import aws_server
from mibao import sealed
from mibao.errors import InputError, IntegrityError, KeyMismatch, MissingExtra, ProtocolError
from mibao.sealed import aws
from mibao.sealed.file_keys import FileKeys
from mibao.sealed.unlock import Binding
from mibao.sealed.unlock_kms import KmsKey
from mibao.types import RandomId

FILE_KEY = b"K" * 32
KEYS = FileKeys(FILE_KEY, RandomId(b"I" * 16))
BINDING = Binding(file_id=KEYS.file_id, commitment=KEYS.commitment, signer=kit.VENDOR.key_id)
OPEN = {"signer": kit.VENDOR.public}


@pytest.fixture(scope="module")
def service():
    with aws_server() as address:
        yield address


@pytest.fixture(scope="module")
def key(service):
    client = aws.aws_client("kms")
    key_id = client.create_key()["KeyMetadata"]["KeyId"]
    client.create_alias(AliasName="alias/models", TargetKeyId=key_id)
    return KmsKey(key_id)


def test_a_model_is_sealed_to_a_kms_key_and_opened_by_it(key, tmp_path):
    (tmp_path / "w.bin").write_bytes(b"weights")
    path = tmp_path / "w.mibao"
    sealed.seal(tmp_path / "w.bin", path, recipients=[key], signer=kit.VENDOR, model_id="m")
    assert sealed.open_bytes(path, identity=key, **OPEN) == b"weights"
    assert sealed.open_bytes(path, identity=KmsKey("alias/models"), **OPEN) == b"weights"
    assert not sealed.inspect(path).post_quantum, "the file key crosses the network under TLS"
    sealed.rewrap(path, identity=key, add=[kit.ALICE.public], remove=[sealed.inspect(path).recipients[0][1]])
    assert sealed.open_bytes(path, identity=kit.ALICE, **OPEN) == b"weights"
    with pytest.raises(KeyMismatch, match="not sealed to this key"):
        sealed.open_bytes(path, identity=key, **OPEN)


@pytest.mark.parametrize(
    "other",
    [
        replace(BINDING, file_id=RandomId(b"J" * 16)),
        replace(BINDING, commitment=b"c" * 32),
        replace(BINDING, signer=RandomId(b"s" * 16)),
    ],
    ids=["file", "commitment", "signer"],
)
def test_a_changed_encryption_context_is_refused(key, other):
    stanza = key.wrap(FILE_KEY, BINDING)
    assert key.unwrap(stanza, BINDING) == FILE_KEY
    with pytest.raises(KeyMismatch, match=r"^recipients: the KMS key does not open this model$"):
        key.unwrap(stanza, other)


def test_a_stanza_under_another_id_is_refused(key):
    with pytest.raises(KeyMismatch):
        key.unwrap(replace(key.wrap(FILE_KEY, BINDING), key_id=RandomId(b"z" * 16)), BINDING)


def test_another_key_does_not_open(key):
    other = KmsKey(aws.aws_client("kms").create_key()["KeyMetadata"]["KeyId"])
    stanza = key.wrap(FILE_KEY, BINDING)
    wrapped = stanza.body.replace(b"gwrapped", b"gWRAPPED")
    with pytest.raises(IntegrityError, match="the KMS stanza has other fields"):
        key.unwrap(replace(stanza, body=wrapped), BINDING)
    with pytest.raises((KeyMismatch, InputError), match=r"does not open this model|AccessDeniedException"):
        other.unwrap(stanza, BINDING)  # AWS says IncorrectKeyException here, moto denies access


def test_an_altered_ciphertext_is_refused(key):
    stanza = key.wrap(FILE_KEY, BINDING)
    with pytest.raises(KeyMismatch):
        key.unwrap(replace(stanza, body=stanza.body[:-1] + bytes([stanza.body[-1] ^ 1])), BINDING)


@pytest.mark.parametrize("body", [b"", b"\xa0", b"x" * 9000], ids=["empty", "no fields", "long"])
def test_another_types_body_under_aws_kms_is_refused(key, body):
    with pytest.raises(IntegrityError, match=r"^recipients: the KMS stanza"):
        key.unwrap(replace(key.wrap(FILE_KEY, BINDING), body=body), BINDING)


def test_a_key_that_is_not_there_is_named(service):
    with pytest.raises(InputError, match=r"^KMS: alias/none: NotFoundException"):
        KmsKey("alias/none").wrap(FILE_KEY, BINDING)


def test_a_service_that_cannot_be_reached_is_one_line(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(aws, "ATTEMPTS", 1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "eu-central-1")
    with pytest.raises(ProtocolError, match=r"^KMS: no answer"):
        KmsKey("alias/models").wrap(FILE_KEY, BINDING)


def test_an_endpoint_without_tls_never_sees_the_file_key(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://kms.example")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "eu-central-1")
    with pytest.raises(InputError, match=r"^AWS: the endpoint on kms.example is not https://$"):
        KmsKey("alias/models").wrap(FILE_KEY, BINDING)


def test_without_boto3_the_extra_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(aws.importlib, "import_module", missing)
    aws._module.cache_clear()
    with pytest.raises(MissingExtra, match=r"pip install '\.\[cloud\]'"):
        KmsKey("alias/models").wrap(FILE_KEY, BINDING)
