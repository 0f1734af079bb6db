from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counts import counts
from mibao.deid import Vault
from mibao.deid.detection import all_rules
from mibao.deid.kinds import kinds
from mibao.deid.masking import mask, restore
from mibao.deid.matching_hyperscan import HyperscanEngine
from mibao.deid.operations import Operator
from mibao.deid.policies import PSEUDONYMS, REPLACE, Policy, Replace, parse_policy
from mibao.deid.streaming import Masker, Restorer
from mibao.types import EntityType

ENGINE = HyperscanEngine(all_rules())
KEY = bytes(range(32))
SOURCE = settings(
    max_examples=counts(short=60, long=5000), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
_PIECES = st.sampled_from(
    [kind.example.replace("⟦", "").replace("⟧", "") for kind in kinds()]
    + [
        "患者林晓雨，",
        "Dr. Chen",
        "<PERSON_0000000000>",
        "<PERSON_",
        "<",
        "0000000000>",
        "https://a.example/" + "b/" * 60,
    ]
)
TEXTS = st.lists(_PIECES | st.text(max_size=4), max_size=6).map("".join)


def _cut(text: str, data: st.DataObject) -> list[str]:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]


@SOURCE
@given(TEXTS, st.data())
def test_a_stream_is_masked_and_restored_as_the_whole_however_it_is_cut(text: str, data: st.DataObject) -> None:
    vault = Vault(scope_key=KEY)
    masker = Masker(Operator(PSEUDONYMS, scope_key=KEY, vault=vault), engine=ENGINE)
    masked = "".join(masker.feed(piece) for piece in _cut(text, data)) + masker.close()
    assert masked == mask(text, vault=Vault(scope_key=KEY), engine=ENGINE).text
    restorer = Restorer(vault)
    restored = "".join(restorer.feed(piece) for piece in _cut(masked, data)) + restorer.close()
    assert restored == restore(masked, vault=vault).text == text


@SOURCE
@given(st.lists(TEXTS, max_size=5))
def test_several_texts_at_once_are_masked_as_each_alone_but_for_names_seen_before(texts: list[str]) -> None:
    def alone(text: str) -> str:
        return Masker(Operator(REPLACE), engine=ENGINE).texts([text])[0][0]

    together = Masker(Operator(REPLACE), engine=ENGINE).texts(texts)
    assert [after for after, _ in together] == [alone(text) for text in texts]


def test_what_cannot_be_encrypted_leaves_its_type_and_is_counted() -> None:
    policy = parse_policy('name = "p"\n[types.CVV]\nhow = "encrypt"', source="p")
    masker = Masker(Operator(policy, scope_key=KEY), engine=ENGINE)
    assert masker.feed("CVV: 123, card 4111111111111111") + masker.close() == "CVV: <CVV>, card <CREDIT_CARD>"
    assert (masker.replaced, masker.changed) == (1, 2)
    assert masker.found == {EntityType.CVV: 1, EntityType.CREDIT_CARD: 1}


def test_findings_below_the_least_score_stay_and_each_is_explained() -> None:
    told = []
    policy = Policy(name="p", least_score=0.9, otherwise=Replace(text="-"))
    masker = Masker(
        Operator(policy), engine=ENGINE, explain=lambda found, changed: told.append((found.type.value, changed))
    )
    assert masker.feed("on 12 March 1990 a@b.co") + masker.close() == "on 12 March 1990 -"
    assert told == [("DATE_TIME", False), ("EMAIL_ADDRESS", True)]
