"""Value types that several pillars share. Nothing here computes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, TypeAlias


@dataclass(frozen=True, slots=True)
class _FixedBytes:
    value: bytes
    size: ClassVar[int]

    def __post_init__(self) -> None:
        if not isinstance(self.value, bytes) or len(self.value) != self.size:
            got = f"{len(self.value)} bytes" if isinstance(self.value, bytes) else type(self.value).__name__
            raise ValueError(f"{type(self).__name__} takes {self.size} bytes, got {got}")

    def __str__(self) -> str:
        return self.value.hex()


@dataclass(frozen=True, slots=True)
class RandomId(_FixedBytes):
    """16 bytes that say nothing: drawn at random, or the fingerprint of a randomly drawn key."""

    size: ClassVar[int] = 16


@dataclass(frozen=True, slots=True)
class KeyedHash(_FixedBytes):
    """32 bytes of HMAC-SHA-256 under a secret key: equal for equal inputs, a guess cannot be tried without the key."""

    size: ClassVar[int] = 32


class Language(Enum):
    """Languages the package reads and writes."""

    ENGLISH = "en"
    CHINESE = "zh"


class EntityType(Enum):
    """Kinds of personal data, under Presidio's names where it has one. ``mibao deid types`` explains each."""

    PERSON = "PERSON"
    PHONE_NUMBER = "PHONE_NUMBER"
    EMAIL_ADDRESS = "EMAIL_ADDRESS"
    CN_RESIDENT_ID = "CN_RESIDENT_ID"
    MEDICAL_RECORD = "MEDICAL_RECORD"
    DATE_TIME = "DATE_TIME"
    LOCATION = "LOCATION"
    ORGANIZATION = "ORGANIZATION"
    TITLE = "TITLE"
    URL = "URL"
    IP_ADDRESS = "IP_ADDRESS"
    MAC_ADDRESS = "MAC_ADDRESS"
    COORDINATES = "COORDINATES"
    AGE = "AGE"
    ADDRESS = "ADDRESS"
    US_ZIP_CODE = "US_ZIP_CODE"
    UK_POSTCODE = "UK_POSTCODE"
    CN_POSTAL_CODE = "CN_POSTAL_CODE"
    CREDIT_CARD = "CREDIT_CARD"
    BANK_CARD = "BANK_CARD"
    BANK_ACCOUNT = "BANK_ACCOUNT"
    IBAN_CODE = "IBAN_CODE"
    SWIFT_CODE = "SWIFT_CODE"
    CRYPTO = "CRYPTO"
    CVV = "CVV"
    API_KEY = "API_KEY"
    JWT = "JWT"
    PRIVATE_KEY = "PRIVATE_KEY"
    PASSWORD = "PASSWORD"  # noqa: S105
    USERNAME = "USERNAME"
    CN_QQ = "CN_QQ"
    CN_WECHAT = "CN_WECHAT"
    HEALTH_PLAN_NUMBER = "HEALTH_PLAN_NUMBER"
    MEDICAL_LICENSE = "MEDICAL_LICENSE"
    US_NPI = "US_NPI"
    US_MBI = "US_MBI"
    UK_NHS = "UK_NHS"
    AU_MEDICARE = "AU_MEDICARE"
    VIN = "VIN"
    CN_PLATE = "CN_PLATE"
    US_LICENSE_PLATE = "US_LICENSE_PLATE"
    IMEI = "IMEI"
    DEVICE_SERIAL = "DEVICE_SERIAL"
    CN_USCC = "CN_USCC"
    CN_ORGANISATION_CODE = "CN_ORGANISATION_CODE"
    CN_PASSPORT = "CN_PASSPORT"
    CN_TRAVEL_PERMIT = "CN_TRAVEL_PERMIT"
    CN_OFFICER_ID = "CN_OFFICER_ID"
    CN_RESIDENCE_PERMIT = "CN_RESIDENCE_PERMIT"
    CN_DRIVER_LICENSE = "CN_DRIVER_LICENSE"
    CN_BIRTH_CERTIFICATE = "CN_BIRTH_CERTIFICATE"
    CN_EMPLOYEE_NUMBER = "CN_EMPLOYEE_NUMBER"
    US_SSN = "US_SSN"
    US_ITIN = "US_ITIN"
    US_EIN = "US_EIN"
    US_PASSPORT = "US_PASSPORT"
    US_DRIVER_LICENSE = "US_DRIVER_LICENSE"
    US_BANK_NUMBER = "US_BANK_NUMBER"
    US_BANK_ROUTING = "US_BANK_ROUTING"
    UK_NINO = "UK_NINO"
    UK_PASSPORT = "UK_PASSPORT"
    UK_DRIVER_LICENSE = "UK_DRIVER_LICENSE"
    UK_SORT_CODE = "UK_SORT_CODE"
    IE_PPS = "IE_PPS"
    ES_NIF = "ES_NIF"
    ES_NIE = "ES_NIE"
    IT_FISCAL_CODE = "IT_FISCAL_CODE"
    IT_VAT_CODE = "IT_VAT_CODE"
    FR_NIR = "FR_NIR"
    DE_TAX_ID = "DE_TAX_ID"
    PL_PESEL = "PL_PESEL"
    NL_BSN = "NL_BSN"
    BE_NATIONAL_NUMBER = "BE_NATIONAL_NUMBER"
    PT_NIF = "PT_NIF"
    SE_PERSONNUMMER = "SE_PERSONNUMMER"
    FI_PERSONAL_IDENTITY_CODE = "FI_PERSONAL_IDENTITY_CODE"
    DK_CPR = "DK_CPR"
    NO_FODSELSNUMMER = "NO_FODSELSNUMMER"
    CH_AHV = "CH_AHV"
    TR_IDENTITY_NUMBER = "TR_IDENTITY_NUMBER"
    CA_SIN = "CA_SIN"
    BR_CPF = "BR_CPF"
    BR_CNPJ = "BR_CNPJ"
    MX_CURP = "MX_CURP"
    CL_RUT = "CL_RUT"
    IN_AADHAAR = "IN_AADHAAR"
    IN_PAN = "IN_PAN"
    IN_VOTER = "IN_VOTER"
    SG_NRIC_FIN = "SG_NRIC_FIN"
    AU_TFN = "AU_TFN"
    AU_ABN = "AU_ABN"
    KR_RRN = "KR_RRN"
    JP_MY_NUMBER = "JP_MY_NUMBER"
    TH_TNIN = "TH_TNIN"
    HK_ID = "HK_ID"
    TW_ID = "TW_ID"
    ZA_ID = "ZA_ID"
    CUSTOM = "CUSTOM"  # of a kind that only the user knows
    PLACEHOLDER = "PLACEHOLDER"  # text that only looks like one of our own placeholders


_CUSTOM_NAME = re.compile(r"[A-Z][A-Z0-9_]{1,31}")


@dataclass(frozen=True, slots=True)
class CustomType:
    """A kind of personal data that only its user knows, by the name that stands in placeholders and policies.

    Raises:
        ValueError: the name is not 2 to 32 capitals, digits and ``_`` from a capital on, or a type has it already.
    """

    value: str

    def __post_init__(self) -> None:
        if not _CUSTOM_NAME.fullmatch(self.value) or self.value in EntityType.__members__:
            raise ValueError("expected a name of 2 to 32 characters out of A-Z 0-9 _ that no other type has")


AnyType: TypeAlias = EntityType | CustomType


def type_named(name: str) -> AnyType:
    """The type of that name, a custom one where no other has it. Raises as :class:`CustomType`."""
    return EntityType(name) if name in EntityType.__members__ else CustomType(name)


class ComputeMode(Enum):
    """Which side of an encrypted computation is encrypted."""

    ENCRYPTED_DATA = "encrypted-data"
    ENCRYPTED_WEIGHTS = "encrypted-weights"
    ENCRYPTED_BOTH = "encrypted-both"


class Mechanism(Enum):
    """Noise mechanisms that the accountant knows."""

    DISTRIBUTED_DISCRETE_GAUSSIAN = "distributed-discrete-gaussian"
    GAUSSIAN = "gaussian"  # one draw for a whole sum
    NONE = "none"


class Strategy(Enum):
    """Federated strategies, as they stand in a ledger entry."""

    FEDSGD = "fedsgd"
    FEDAVG = "fedavg"
    FEDPROX = "fedprox"
    FEDAVGM = "fedavgm"
    FEDADAM = "fedadam"
    FEDYOGI = "fedyogi"
    SCAFFOLD = "scaffold"
    FEDBUFF = "fedbuff"


class MaskingScheme(Enum):
    """How the addends of a secure sum are hidden."""

    PAIRWISE = "pairwise"
    RLWE = "rlwe"
    ENCRYPTED = "encrypted"


class Refusal(Enum):
    """Why a sealed object was not opened."""

    ALTERED = "altered"
    WRONG_KEY = "wrong-key"
    WRONG_SIGNER = "wrong-signer"
    OLDER_VERSION = "older-version"
    EQUIVOCATION = "equivocation"  # one version, signed twice
    UNKNOWN_VERSION = "unknown-version"  # the reader asked for a model opened before
    NOT_SEALED = "not-sealed"
    UNREACHABLE = "unreachable"  # the storage, a key, or the reader's memory of versions could not be had
    WRONG_USE = "wrong-use"  # the caller asked for what there is not
