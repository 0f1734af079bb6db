"""FHIR resources in JSON: which of their elements hold what, so that a name without a cue beside it is found as well.

Source: HL7 FHIR R4, data types HumanName, Address, ContactPoint, Identifier and Attachment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from mibao.deid.columns import Column
from mibao.deid.tables import in_strings
from mibao.errors import InputError
from mibao.types import EntityType

_ELEMENTS: Mapping[str, EntityType] = {
    "family": EntityType.PERSON, "given": EntityType.PERSON, "birthDate": EntityType.DATE_TIME,
    "deceasedDateTime": EntityType.DATE_TIME, "line": EntityType.ADDRESS, "city": EntityType.LOCATION,
    "district": EntityType.LOCATION, "postalCode": EntityType.US_ZIP_CODE,
}  # fmt: skip
_IDENTIFIER, _NAME_TEXT = "identifier value", "name text"
COLUMNS: Mapping[str, Column] = {
    name: Column(name=name, entity=entity, share=0.0, why="its name in FHIR")
    for name, entity in {**_ELEMENTS, _IDENTIFIER: EntityType.MEDICAL_RECORD, _NAME_TEXT: EntityType.PERSON}.items()
}


def parse_resource(data: bytes) -> dict[str, Any] | None:
    """The resource in a file of JSON; None where the file is none.

    Raises:
        InputError: a file lies in the resource, which cannot be read.
    """
    try:
        resource = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(resource, dict) or not isinstance(resource.get("resourceType"), str):
        return None
    _check_attachments(resource)
    return resource


def masked_resource(resource: dict[str, Any], change: Callable[[str, str], str]) -> Any:
    """``resource`` with every string in it changed; ``change`` gets a name of :data:`COLUMNS` or the element's own."""
    return _changed(resource, change)


def _changed(value: Any, change: Callable[[str, str], str], *, name: str = "", above: str = "") -> Any:
    if isinstance(value, dict):
        return {
            key: each if key == "resourceType" else _changed(each, change, name=key, above=name)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_changed(each, change, name=name, above=above) for each in value]
    if above == "identifier" and name == "value":
        name = _IDENTIFIER
    elif above == "name" and name == "text":
        name = _NAME_TEXT
    return in_strings(value, change, name=name)


def _check_attachments(value: Any) -> None:
    if isinstance(value, dict):
        if "data" in value and ("contentType" in value or value.get("resourceType") == "Binary"):
            raise InputError("FHIR: an attachment lies in it, and text is not taken from attachments")
        for each in value.values():
            _check_attachments(each)
    elif isinstance(value, list):
        for each in value:
            _check_attachments(each)
