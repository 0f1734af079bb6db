import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mibao.deid.normalisation import canonical_form, fold
from mibao.types import EntityType

FIXED = settings(derandomize=True, deadline=None)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors/deid/written_forms.json").read_text(encoding="utf-8"))


@FIXED
@given(st.text(st.characters(codec=None)))
def test_folding_keeps_every_offset_and_every_ascii_character(text: str) -> None:
    folded = fold(text)
    assert len(folded) == len(text)
    assert all(after == before for before, after in zip(text, folded, strict=True) if before.isascii())
    assert fold(folded) == folded


@FIXED
@given(st.sampled_from([EntityType.CN_RESIDENT_ID, EntityType.MEDICAL_RECORD, EntityType.PLACEHOLDER]), st.text())
def test_a_canonical_number_is_its_own_canonical_form(entity: EntityType, written: str) -> None:
    once = canonical_form(entity, written)
    assert canonical_form(entity, once) == once


@pytest.mark.parametrize("group", VECTORS["groups"], ids=lambda group: f"{group['type']} {group['canonical']}")
def test_written_forms_of_one_value_share_their_canonical_form(group: dict[str, list[str]]) -> None:
    entity = EntityType(group["type"])
    assert {canonical_form(entity, written) for written in group["written"]} == {group["canonical"]}


def test_distinct_values_of_the_vectors_keep_distinct_canonical_forms() -> None:
    forms = [(group["type"], group["canonical"]) for group in VECTORS["groups"]]
    assert len(set(forms)) == len(forms)


def test_full_width_text_folds_to_plain_ascii() -> None:
    assert fold("＜１３８－００１３　８０００＞—‑") == "<138-0013 8000>--"
