"""Values as people write them: behind words or a colon, in brackets, in small letters, in JSON, in a dialogue."""

import re

import pytest

from mibao.deid import detect
from mibao.deid.detection import rules_engine
from mibao.deid.normalisation import canonical_form
from mibao.types import EntityType

_MARKED = re.compile("⟦[^⟧]*⟧")
FOUND = {
    "MAC_ADDRESS": ["设备MAC：⟦3D:F2:C9:A6:B3:4F⟧", "网卡:⟦3d-f2-c9-a6-b3-4f⟧"],
    "IP_ADDRESS": [
        "IPv6：⟦2001:db8::8a2e:370:7334⟧",
        "from ⟦2001:db8::8a2e:370:7334⟧.",
        "address:⟦fe80::1ff:fe23:4567:890a⟧",
    ],
    "COORDINATES": [
        "位于⟦北纬39.9087°，东经116.3975°⟧附近",
        "⟦东经116°23′17″，北纬39°54′27″⟧",
        "location: ⟦-33.85678, 151.21530⟧",
    ],
    "DATE_TIME": ["born ⟦12 may 1990⟧", "on ⟦feb. 3, 1960⟧ she"],
    "PHONE_NUMBER": [
        "座机改为⟦02163914622⟧",
        "固话系⟦02163914622⟧",
        "⟦021-63914622 转 305⟧",
        "⟦02163914622转分机305⟧",
        "⟦010-63914622（分机8021）⟧",
        "⟦(0086)138 0013 8000⟧",
        "⟦(86)10-85003808⟧",
        "⟦+86 28-64517469转3044⟧",
        "⟦(852) 9575 0336⟧",
        "⟦852-63922641⟧",
        "电话：⟦零二一-六三九一四六二二⟧",
        "the mobile on file (⟦07700 900171⟧)",
        "手机⟦壹叁捌零零壹叁捌零零零⟧",
        "phone (⟦0971-158-929⟧)",
    ],
    "EMAIL_ADDRESS": [
        "⟦lin.xiaoyu[at]mail[dot]com⟧",
        "⟦lin (at) mail.example.org⟧",
        "email: ⟦lin at mail dot com⟧",
        "邮箱：⟦lin @ mail.com⟧",
    ],
    "CREDIT_CARD": ["信用卡号：⟦5555 5555 5555 4444⟧"],
    "BANK_CARD": ["储蓄卡号：⟦5555 5555 5555 4444⟧"],
    "CRYPTO": ["⟦TJRabPrwbZy45sbavfcjinPJC18kjpRTv8⟧已收"],
    "API_KEY": ["令牌 ⟦110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsawx⟧", "⟦SK0123456789abcdef0123456789abcdef⟧"],
    "PRIVATE_KEY": [
        r'{"k": "⟦-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\nBCIEIA==\n-----END PRIVATE KEY-----⟧\n"}',
        "⟦-----BEGIN RSA PRIVATE KEY-----\n  MC4CAQAw\n  BCIEIA==\n  -----END RSA PRIVATE KEY-----⟧",
    ],
    "CN_WECHAT": [
        "加wx⟦lin_xiaoyu90⟧",
        "微信改成⟦lin_xiaoyu⟧谢谢",
        "VX为【⟦cat66919⟧】",
        "⟦wxid_l192mq2p0zk6r2⟧",
        "客服：微信号呢？\n我：⟦lin_xiaoyu⟧",
    ],
    "CN_QQ": ["原QQ系⟦9581203344⟧", "QQ号「⟦12345678⟧」", "QQ：⟦一二三四五六七八⟧", "QQ是多少？\n小王：⟦12345678⟧"],
    "MEDICAL_RECORD": [
        "the patient number was ⟦7826097⟧",
        'medical_record_no: "⟦MR-026402⟧"',
        "chart number on file (⟦446242⟧)",
        "medical record number=⟦198-99-9933⟧",
        "病历号改为⟦B944537150⟧",
        "agent: your MRN?\nme: ⟦00482913⟧",
    ],
    "HEALTH_PLAN_NUMBER": [
        "insurance ID is ⟦W294175625⟧",
        "insurance_no=⟦YB979528060⟧",
        "member ID: ⟦W203199570⟧",
        "医保号：⟦8400 2784 91⟧",
    ],
    "CN_OFFICER_ID": ["军官证改成⟦南字第12345678号⟧", "证号 ⟦南字第12345678号⟧"],
    "US_EIN": ["employer identification number was ⟦61-4596119⟧", "FEIN ⟦456315026⟧"],
    "US_DRIVER_LICENSE": ["driver license number ⟦D535-5879-7013⟧"],
    "IBAN_CODE": ["iban ⟦gb82 west 1234 5698 7654 32⟧"],
    "VIN": ["vin ⟦1hgcm82633a004352⟧"],
    "IMEI": ["IMEI ⟦490154-20-323751-8⟧"],
    "UK_NINO": ["nino ⟦ab 12 34 56 c⟧", "National Insurance number: ⟦AB123456C⟧", "NI number ⟦AB-12-34-56-C⟧"],
    "UK_POSTCODE": ["postcode: ⟦sw1a 1aa⟧", "postcode ⟦SW1A1AA⟧"],
    "IN_PAN": ["PAN ⟦abcpe1234f⟧"],
    "TW_ID": ["身分證 ⟦a123456789⟧"],
    "HK_ID": ["HKID ⟦a123456(3)⟧"],
    "KR_RRN": ["RRN ⟦9001011234568⟧"],
    "CN_PASSPORT": ["护照 ⟦G 1234 5678⟧"],
    "ADDRESS": [
        "⟦906 Maple Hollow Road #12, Portland, OR 97205-1120⟧",
        "⟦12 Kestrel Way, Austin, TX⟧ today",
        "⟦53 Fernside Ct. #12, Boise, ID 83702⟧",
        "⟦Flat 3, 61 High Street, Leeds LS2 8TD⟧.",
        "⟦P.O. Box 8732, Salem, OR 97301⟧",
        "⟦12 W 45th Street, Denver, Colorado 80203⟧",
        "⟦湖南省长沙市岳麓区解放东路890号29栋2054室⟧",
    ],
}

NOT_FOUND = [
    "WeChat is popular",
    "wx widgets are drawn",
    "MRN on 2024-01-02 was pending",
    "坐标系原点偏移8285.546米。座机无人接听",
    "at 12:30:45:00",
    "we met at cafe dot",
    "a token to be renewed",
    "row 642172: 862332339447 6.01121",
    "发改字第12345678号",
    "QQ?\n12345 people",
    "meeting 12 may be moved",
    "the address is @ home.",
]


def marked(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text without its brackets, and the places between them."""
    spans = [
        (found.start() - 2 * count, found.end() - 2 * count - 2) for count, found in enumerate(_MARKED.finditer(text))
    ]
    return re.sub("[⟦⟧]", "", text), spans


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_a_value_is_found_whole_however_it_is_written(kind: str, text: str) -> None:
    plain, spans = marked(text)
    found = detect(plain, engine=rules_engine())
    assert [(each.type.value, each.start, each.end) for each in found] == [(kind, *span) for span in spans]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_only_looks_like_one_is_left(text: str) -> None:
    assert [each for each in detect(text, engine=rules_engine()) if each.type is not EntityType.DATE_TIME] == []


@pytest.mark.parametrize(
    "written", ["021-63914622转305", "021 63914622 转 305", "02163914622转分机305", "021-63914622（分机305）"]
)
def test_an_extension_in_any_form_is_the_same_number(written: str) -> None:
    assert canonical_form(EntityType.PHONE_NUMBER, written) == "02163914622x305"


def test_words_of_thanks_and_serial_numbers_are_no_names() -> None:
    assert detect("麻烦登记一下，谢谢") == ()
    text = "麻烦把QQ改成29271546谢谢"
    assert [each.type for each in detect(text + "\n\n" + text)] == [EntityType.CN_QQ] * 2
    assert detect("PO-389642 was shipped") == ()


def test_a_name_with_a_hyphen_is_one_name() -> None:
    for text in ("According to ⟦Wei-Ling Tan⟧, the test failed", "Please forward this to ⟦Faith Hill-Brown⟧."):
        plain, spans = marked(text)
        assert [(each.start, each.end) for each in detect(plain)] == spans
