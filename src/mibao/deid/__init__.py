"""Finding personal data in English and Chinese text, changing it by a policy, and restoring it exactly.

Misses are possible: nothing here is called anonymous.
"""

from mibao.deid.custom import CustomTypes, parse_types
from mibao.deid.detection import detect, language_of
from mibao.deid.findings import Detector, Finding
from mibao.deid.masking import Masked, Pseudonymiser, Restored, mask, restore
from mibao.deid.operations import Operator
from mibao.deid.policies import Policy, parse_policy, ready_policy
from mibao.deid.streaming import Masker, Restorer
from mibao.deid.vault import Vault

__all__ = [
    "CustomTypes",
    "Detector",
    "Finding",
    "Masked",
    "Masker",
    "Operator",
    "Policy",
    "Pseudonymiser",
    "Restored",
    "Restorer",
    "Vault",
    "detect",
    "language_of",
    "mask",
    "parse_policy",
    "parse_types",
    "ready_policy",
    "restore",
]
