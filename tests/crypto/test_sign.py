import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.crypto import keys, sign
from mibao.crypto.keys import SignerSuite
from mibao.errors import InputError, IntegrityError
from vectors_io import vectors

SIGNERS = {suite: keys.generate_signer(suite, bytes(range(keys.SEED_BYTES[suite]))) for suite in SignerSuite}
HYBRID = SIGNERS[SignerSuite.ED25519_MLDSA65]
ED25519 = SIGNERS[SignerSuite.ED25519]


@settings(max_examples=30)
@given(suite=st.sampled_from(SignerSuite), message=st.binary(max_size=64), at=st.integers(0), bit=st.integers(0, 7))
def test_a_signature_verifies_and_no_flipped_bit_of_it_does(
    suite: SignerSuite, message: bytes, at: int, bit: int
) -> None:
    signer = SIGNERS[suite]
    signature = sign.sign(signer, message, purpose="test")
    sign.verify(signer.public, message, signature, purpose="test")
    changed = bytearray(signature)
    changed[at % len(changed)] ^= 1 << bit
    with pytest.raises(IntegrityError):
        sign.verify(signer.public, message, bytes(changed), purpose="test")


@pytest.mark.parametrize("suite", SignerSuite)
def test_another_message_purpose_or_signer_is_refused(suite: SignerSuite) -> None:
    signer = SIGNERS[suite]
    other = keys.generate_signer(suite, bytes(keys.SEED_BYTES[suite]))
    signature = sign.sign(signer, b"weights", purpose="model")
    for key, message, purpose in (
        (signer.public, b"weightz", "model"),
        (signer.public, b"weights", "ledger"),
        (other.public, b"weights", "model"),
    ):
        with pytest.raises(IntegrityError, match="not this signer's"):
            sign.verify(key, message, signature, purpose=purpose)


def test_neither_half_of_a_hybrid_is_enough() -> None:
    good = sign.sign(HYBRID, b"m", purpose="test")
    ed25519_half, mldsa_half = good[:64], good[64:]
    forged_mldsa, forged_ed25519 = bytes(len(mldsa_half)), bytes(64)
    for attempt in (ed25519_half + forged_mldsa, forged_ed25519 + mldsa_half):
        with pytest.raises(IntegrityError, match="not this signer's"):
            sign.verify(HYBRID.public, b"m", attempt, purpose="test")
    for half in (ed25519_half, mldsa_half):
        with pytest.raises(IntegrityError, match="expected 3373 bytes"):
            sign.verify(HYBRID.public, b"m", half, purpose="test")


def test_a_half_cut_out_of_a_hybrid_does_not_verify_under_that_half_of_the_key() -> None:
    ed25519_only = keys.SignerPublicKey(SignerSuite.ED25519, HYBRID.public.raw[:32])
    half = sign.sign(HYBRID, b"m", purpose="test")[:64]
    with pytest.raises(IntegrityError, match="not this signer's"):
        sign.verify(ed25519_only, b"m", half, purpose="test")


@pytest.mark.parametrize("case", vectors("crypto", "ed25519_rfc8032")["vectors"])
def test_rfc_8032_signatures(case: dict[str, str]) -> None:
    signer = keys.generate_signer(SignerSuite.ED25519, bytes.fromhex(case["seed"]))
    message, signature = bytes.fromhex(case["message"]), bytes.fromhex(case["signature"])
    assert sign.sign_bare(signer, message) == signature
    sign.verify_bare(signer.public, message, signature)


@pytest.mark.parametrize("case", vectors("crypto", "ed25519_rfc8032")["vectors"])
def test_an_ed25519_scalar_beyond_the_group_order_is_refused(case: dict[str, str]) -> None:
    order = (1 << 252) + 27742317777372353535851937790883648493
    signature = bytes.fromhex(case["signature"])
    malleable = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    public = keys.SignerPublicKey(SignerSuite.ED25519, bytes.fromhex(case["public"]))
    with pytest.raises(IntegrityError):
        sign.verify_bare(public, bytes.fromhex(case["message"]), malleable)


@pytest.mark.parametrize("case", vectors("crypto", "mldsa65")["vectors"])
def test_fips_204_signature_of_the_installed_library(case: dict[str, str]) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey

    public = MLDSA65PublicKey.from_public_bytes(bytes.fromhex(case["public"]))
    signature, message, context = (bytes.fromhex(case[name]) for name in ("signature", "message", "context"))
    public.verify(signature, message, context)
    with pytest.raises(InvalidSignature):
        public.verify(signature, message, context + b"x")


def test_a_hybrid_signs_nothing_bare() -> None:
    with pytest.raises(InputError, match="half of a hybrid key never signs alone"):
        sign.sign_bare(HYBRID, b"m")
    with pytest.raises(InputError, match="half of a hybrid key never signs alone"):
        sign.verify_bare(HYBRID.public, b"m", bytes(64))


def test_a_domain_separated_signature_is_no_bare_one() -> None:
    with pytest.raises(IntegrityError):
        sign.verify_bare(ED25519.public, b"m", sign.sign(ED25519, b"m", purpose="test"))
