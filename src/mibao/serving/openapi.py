"""The OpenAPI description of the gateway's own, administrative interface: what :mod:`mibao.serving.admin` serves.

The data side describes itself in :mod:`mibao.serving.openapi_gateway`.
"""

from __future__ import annotations

from typing import Any

import mibao
from mibao.serving.api_keys import MAX_LIMIT, MAX_NAME, NAME_PATTERN

Json = dict[str, Any]
_NAME: Json = {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": NAME_PATTERN}
_LIMIT: Json = {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_LIMIT}
_COUNT: Json = {"type": "integer", "minimum": 0}


def document() -> Json:
    """The description, as OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mibao gateway, administration",
            "version": mibao.__version__,
            "description": "Keys, spend and metrics of a privacy gateway. No content of any request passes here.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer", "description": "A key of kind admin"}},
            "schemas": {"Key": _key(), "NewKey": _new_key(), "Error": _error(), "Usage": _usage()},
        },
    }


def _paths() -> Json:
    health = {"200": answer("It is", fields({"status": {"type": "string"}})), "503": _problem("It is not")}
    return {
        "/healthz": {"get": open_to_all("healthz", "Whether the process answers", {"200": health["200"]})},
        "/readyz": {"get": open_to_all("readyz", "Whether the store answers too", health)},
        "/openapi.json": {
            "get": open_to_all("openapi", "This document", {"200": answer("OpenAPI", {"type": "object"})})
        },
        "/metrics": {
            "get": _operation(
                "metrics",
                "Counts of this host's workers, for Prometheus",
                {"200": {"description": "Text", "content": {"text/plain": {"schema": {"type": "string"}}}}},
            )
        },
        "/keys": {"get": _list_keys(), "post": _create_key()},
        "/keys/{key_id}": {"delete": _revoke_key()},
        "/spend": {"get": _spend()},
    }


def _list_keys() -> Json:
    keys = fields({"keys": {"type": "array", "items": {"$ref": "#/components/schemas/Key"}}})
    return _operation("list_keys", "All keys, without their secrets", {"200": answer("Keys", keys)})


def _create_key() -> Json:
    made = {
        "allOf": [{"$ref": "#/components/schemas/Key"}, fields({"key": {"type": "string"}})],
    }
    answers = {
        "201": answer("Made; its text is shown this once", made),
        "400": _problem("Not the fields of a new key"),
        "413": _problem("Too large"),
        "415": _problem("Not JSON"),
    }
    schema = {"$ref": "#/components/schemas/NewKey"}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return _operation("create_key", "Make a key of kind client", answers) | {"requestBody": body}


def _revoke_key() -> Json:
    answers = {"204": {"description": "Revoked"}, "404": _problem("No such key that is not revoked yet")}
    parameter = {"name": "key_id", "in": "path", "required": True, "schema": _NAME}
    return _operation("revoke_key", "Close a key for good, everywhere within five seconds", answers) | {
        "parameters": [parameter]
    }


def _spend() -> Json:
    usage = {"type": "array", "items": {"$ref": "#/components/schemas/Usage"}}
    day: Json = {"type": "string", "format": "date"}
    answers = {
        "200": answer("Usage by key and model", fields({"from": day, "to": day, "usage": usage})),
        "400": _problem("Not a day"),
    }
    parameters = [{"name": name, "in": "query", "required": False, "schema": day} for name in ("from", "to")]
    return _operation("spend", "Requests, tokens and spend; of this month if no days are given", answers) | {
        "parameters": parameters
    }


def open_to_all(name: str, summary: str, answers: Json) -> Json:
    """An operation that asks for no key."""
    return {"operationId": name, "summary": summary, "security": [], "responses": answers}


def _operation(name: str, summary: str, answers: Json) -> Json:
    refused = {"401": _problem("No key of kind admin"), "503": _problem("The store does not answer")}
    return {"operationId": name, "summary": summary, "security": [{"admin": []}], "responses": answers | refused}


def answer(description: str, schema: Json) -> Json:
    """An answer in JSON."""
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _problem(description: str) -> Json:
    return answer(description, {"$ref": "#/components/schemas/Error"})


def fields(properties: Json, *, optional: tuple[str, ...] = ()) -> Json:
    """The schema of an object."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required}


def _error() -> Json:
    return fields({"error": fields({"code": {"type": "string"}, "message": {"type": "string"}})})


def _names() -> Json:
    return {"type": ["array", "null"], "items": _NAME}


def _key() -> Json:
    text, moment = {"type": "string"}, {"type": ["integer", "null"]}
    return fields(
        {
            "id": text,
            "kind": {"enum": ["client", "certificate", "admin"]},
            "tenant": text,
            "label": text,
            "state": {"enum": ["open", "revoked", "expired"]},
            "policy": {"type": ["string", "null"]},
            "routes": _names(),
            "models": _names(),
            "requests_per_minute": _LIMIT,
            "tokens_per_day": _LIMIT,
            "spend_per_month": {"type": ["number", "null"]},
            "created_ms": {"type": "integer"},
            "expires_ms": moment,
            "revoked_ms": moment,
        }
    )


def _new_key() -> Json:
    nullable_name = {"anyOf": [_NAME, {"type": "null"}]}
    properties = {
        "tenant": _NAME,
        "label": {"type": "string", "maxLength": MAX_NAME, "pattern": NAME_PATTERN},
        "policy": nullable_name,
        "routes": _names() | {"maxItems": 100},
        "models": _names() | {"maxItems": 1000},
        "requests_per_minute": _LIMIT,
        "tokens_per_day": _LIMIT,
        "spend_per_month": {"type": ["number", "null"], "minimum": 0, "maximum": MAX_LIMIT / 1e6},
        "expires_in_s": {"type": ["integer", "null"], "minimum": 1, "maximum": 100 * 365 * 86_400},
    }
    optional = tuple(name for name in properties if name != "tenant")
    return fields(properties, optional=optional) | {"additionalProperties": False}


def _usage() -> Json:
    names = {"key_id": {"type": "string"}, "model": {"type": "string"}}
    counts = dict.fromkeys(("requests", "prompt_tokens", "completion_tokens", "withheld"), _COUNT)
    return fields(names | counts | {"spend": {"type": "number", "minimum": 0}})
