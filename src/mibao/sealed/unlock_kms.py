"""A key in AWS KMS as a recipient: the service wraps and unwraps, and logs each use with the file that it was for.

Source: AWS KMS API reference, Encrypt and Decrypt; docs/spec/sealed-model.md, section 3.3.
"""

from __future__ import annotations

from typing import Any, cast

from mibao.codec import canonical
from mibao.crypto import rng
from mibao.errors import InputError, IntegrityError, KeyMismatch, ProtocolError
from mibao.sealed.aws import aws_client, aws_code, calling_aws
from mibao.sealed.unlock import AWS_KMS, Binding, Stanza
from mibao.types import RandomId

SCHEME = "kms:"
WRONG = "recipients: the KMS key does not open this model"
MAX_BODY_BYTES = 8192
MAX_KEY_ID_CHARS = 2048
_ALGORITHM = "SYMMETRIC_DEFAULT"


class KmsKey:
    """A symmetric key in AWS KMS: a key id, an ARN, or an alias such as ``alias/models``.

    Credentials, region and endpoint are found as boto3 finds them. The caller's key is the one that opens: the
    service is never asked with a key that the file names.
    """

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        if not 1 <= len(key) <= MAX_KEY_ID_CHARS:
            raise InputError("KMS: expected a key id, an ARN, or alias/NAME")
        self._key = key

    def __repr__(self) -> str:
        return f"<KmsKey {self._key}>"

    @property
    def kind(self) -> str:
        """The type of its stanzas."""
        return AWS_KMS

    def wrap(self, file_key: bytes, binding: Binding) -> Stanza:
        """The stanza that opens with the key.

        Raises:
            InputError: the service refuses: no such key, not allowed, disabled; or it cannot be found.
            MissingExtra: ``boto3`` is not installed.
            ProtocolError: the service cannot be reached or does not answer.
        """
        key_id = rng.random_id()
        with calling_aws("KMS") as errors:
            try:
                done = aws_client("kms").encrypt(
                    KeyId=self._key,
                    Plaintext=file_key,
                    EncryptionContext=_context(binding, key_id),
                    EncryptionAlgorithm=_ALGORITHM,
                )
            except errors.ClientError as error:
                raise InputError(f"KMS: {self._key}: {aws_code(error)}") from error
        body = canonical.encode({"key": str(done["KeyId"]), "wrapped": bytes(done["CiphertextBlob"])})
        return Stanza(kind=AWS_KMS, key_id=key_id, body=body)

    def unwrap(self, stanza: Stanza, binding: Binding) -> bytes:
        """The file key.

        Raises:
            InputError: the service refuses: no such key, not allowed, disabled; or it cannot be found.
            IntegrityError: the stanza is not well formed.
            KeyMismatch: made for another key, or altered, or for another file: the service does not tell them apart.
            MissingExtra: ``boto3`` is not installed.
            ProtocolError: the service cannot be reached or does not answer.
        """
        wrapped = _wrapped(stanza.body)
        with calling_aws("KMS") as errors:
            try:
                done: dict[str, Any] = aws_client("kms").decrypt(
                    KeyId=self._key,
                    CiphertextBlob=wrapped,
                    EncryptionContext=_context(binding, stanza.key_id),
                    EncryptionAlgorithm=_ALGORITHM,
                )
            except errors.ClientError as error:
                code = aws_code(error)
                if code in ("IncorrectKeyException", "InvalidCiphertextException"):
                    raise KeyMismatch(WRONG) from error
                raise InputError(f"KMS: {self._key}: {code}") from error
        if not isinstance(done.get("Plaintext"), bytes):
            raise ProtocolError("KMS: decrypt: the answer holds no plaintext")
        return cast(bytes, done["Plaintext"])


def _context(binding: Binding, key_id: RandomId) -> dict[str, str]:
    """What the service authenticates and logs in clear: all of it is public."""
    return {
        "mibao:file": binding.file_id.value.hex(),
        "mibao:commitment": binding.commitment.hex(),
        "mibao:signer": binding.signer.value.hex(),
        "mibao:stanza": key_id.value.hex(),
    }


def _wrapped(body: bytes) -> bytes:
    try:
        value = canonical.decode(body, max_bytes=MAX_BODY_BYTES)
    except IntegrityError as error:
        raise IntegrityError("recipients: the KMS stanza is not well formed") from error
    if not isinstance(value, dict) or value.keys() != {"key", "wrapped"}:
        raise IntegrityError("recipients: the KMS stanza has other fields than it should")
    if not isinstance(value["key"], str) or not isinstance(value["wrapped"], bytes):
        raise IntegrityError("recipients: a field of the KMS stanza is of another type")
    return value["wrapped"]
