"""Finding personal data in English and Chinese text, replacing it by pseudonyms, and restoring it exactly.

Misses are possible: nothing here is called anonymous.
"""

from mibao.deid.detection import detect, language_of
from mibao.deid.findings import Finding
from mibao.deid.masking import Masked, Pseudonymiser, Restored, mask, restore
from mibao.deid.vault import Vault

__all__ = ["Finding", "Masked", "Pseudonymiser", "Restored", "Vault", "detect", "language_of", "mask", "restore"]
