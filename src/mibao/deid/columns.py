"""What the columns of a table hold, by their names and by what is found in a sample of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from mibao.deid.findings import Detector
from mibao.deid.matching import Engine
from mibao.deid.scanning import Scanner, whole_findings
from mibao.types import AnyType, EntityType

_MOST = 0.6  # of the values in a column, for it to be of their type
_WHOLE = 0.8  # of a value, for a finding to be all of it
_LONG = 120

# A column of this name holds this type, whatever its values look like.
_NAMES: Mapping[EntityType, str] = MappingProxyType(
    {
        EntityType.PERSON: r"(?:(?:full|first|last|given|family|middle|maiden|patient|customer|client|contact)"
        r"[ _-]?)?name|[fl]name|surname|(?:first|last)|姓名|名字|姓|患者|客户|联系人|户名",
        EntityType.PHONE_NUMBER: r"(?:.*[ _-])?(?:phone|tel|telephone|mobile|cell|fax)(?:[ _-]?(?:no|number|num))?|"
        r".*(?:电话|手机|传真|联系方式).*",
        EntityType.EMAIL_ADDRESS: r"(?:.*[ _-])?e-?mail(?:[ _-]?address)?|.*(?:邮箱|邮件).*",
        EntityType.US_SSN: r"ssn|social[ _-]?security(?:[ _-]?(?:no|number))?",
        EntityType.CN_RESIDENT_ID: r".*身份证.*|id[ _-]?card(?:[ _-]?(?:no|number))?|证件号码?",
        EntityType.BANK_CARD: r".*(?:银行卡|卡号).*",
        EntityType.CREDIT_CARD: r"(?:credit[ _-]?card|cc|card)[ _-]?(?:no|num|number)|credit[ _-]?card",
        EntityType.MEDICAL_RECORD: r"mrn|(?:medical[ _-]?record|patient|chart|encounter)[ _-]?(?:id|no|num|number)|"
        r".*(?:病历号|住院号|门诊号|病案号).*",
        EntityType.HEALTH_PLAN_NUMBER: r"(?:member|policy|insurance|subscriber|beneficiary)[ _-]?(?:id|no|num|number)|"
        r".*(?:医保号|社保号|保单号).*",
        EntityType.ADDRESS: r"(?:.*[ _-])?(?:address|street)(?:[ _-]?(?:line)?[ _-]?[0-9])?|.*(?:地址|住址).*",
        EntityType.US_ZIP_CODE: r"zip(?:[ _-]?code)?|postal[ _-]?code|postcode",
        EntityType.CN_POSTAL_CODE: r".*(?:邮编|邮政编码).*",
        EntityType.DATE_TIME: r"dob|date[ _-]?of[ _-]?birth|birth[ _-]?(?:date|day)|(?:.*[ _-])?date|"
        r"出生日期|生日|.*日期",
        EntityType.IP_ADDRESS: r"ip(?:[ _-]?address)?",
        EntityType.USERNAME: r"user[ _-]?name|login|handle|用户名|昵称",
        EntityType.PASSWORD: r"pass(?:word|wd)?|密码",
        EntityType.CN_PLATE: r".*车牌.*",
        EntityType.LOCATION: r"city|town|county|state|province|城市|省份|区县",
    }
)
_PATTERNS = tuple((entity, re.compile(pattern, re.IGNORECASE)) for entity, pattern in _NAMES.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What one column was taken to hold.

    ``entity`` is the type of its whole values; None: they are searched like any text. ``why`` says by what.
    """

    name: str
    entity: AnyType | None
    share: float
    why: str


def infer(name: str, values: Sequence[str], *, engine: Engine, detectors: Sequence[Detector] = ()) -> Column:
    """The type of a column from its name and a sample of its values, empty ones left out by the caller."""
    counts = Counter(_whole_types(values, engine, detectors))
    best, hits = counts.most_common(1)[0] if counts else (None, 0)
    share = hits / len(values) if values else 0.0
    named = next((entity for entity, pattern in _PATTERNS if pattern.fullmatch(name.strip())), None)
    if best is not None and share >= _MOST:
        return Column(name=name, entity=best, share=share, why="what stands in it")
    if named is not None and (not values or sum(map(len, values)) / len(values) <= _LONG):
        return Column(name=name, entity=named, share=counts[named] / len(values) if values else 0.0, why="its name")
    return Column(name=name, entity=None, share=share, why="searched as text")


def _whole_types(values: Sequence[str], engine: Engine, detectors: Sequence[Detector]) -> Iterator[AnyType]:
    """The type of each value that is one finding, or nearly so."""
    for value in values:
        scanner = Scanner(engine, detectors)
        found = list(whole_findings(scanner.whole(value)))
        if len(found) == 1 and found[0].end - found[0].start >= _WHOLE * len(value.strip()):
            yield found[0].type
