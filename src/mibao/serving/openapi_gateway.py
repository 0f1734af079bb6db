"""The OpenAPI description of the gateway's data side: what it asks of a request, and what it may answer itself.

What a model service takes and gives besides is its own affair: the gateway passes on fields that it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable

import mibao
from mibao.serving.exchange import MODELS, Api
from mibao.serving.faults import Dialect
from mibao.serving.models import ADDRESS, NAME
from mibao.serving.openapi import Json, answer, fields, open_to_all
from mibao.serving.upstreams import LONG_NUMBER

_REFUSALS = {
    "400": "Not a request that can be looked into",
    "401": "No key, or one that is not valid",
    "403": "A key that may not do this",
    "404": "No such path or model",
    "408": "The request did not arrive in time",
    "413": "Too large",
    "415": "Not JSON, or packed in an unknown way",
    "429": "Too often, or too much",
    "500": "A fault in the gateway: nothing was passed on",
    "502": "The upstream cannot be reached or read",
    "503": "Too many at once, or nothing can be decided or looked at",
    "504": "The upstream does not answer in time",
}


def document(apis: Iterable[Api]) -> Json:
    """The description of a gateway that passes ``apis`` on, as OpenAPI 3.1."""
    up = answer("It is", fields({"status": {"type": "string"}}))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "mibao gateway",
            "version": mibao.__version__,
            "description": "Personal data is replaced in what is asked of a model, and put back into its answers.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/healthz": {"get": open_to_all("healthz", "Whether the process answers", {"200": up})},
            "/readyz": {"get": open_to_all("readyz", "Whether it may be asked", {"200": up, "503": up})},
            "/openapi.json": {
                "get": open_to_all("openapi", "This document", {"200": answer("OpenAPI", {"type": "object"})})
            },
            MODELS.path: {"get": _operation(MODELS)},
            **{api.path: {"post": _operation(api) | {"requestBody": _body(api)}} for api in apis},
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A key of kind client, or a JWT"},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "schemas": {"OpenAIError": _openai_error(), "AnthropicError": _anthropic_error()},
        },
    }


def _operation(api: Api) -> Json:
    error = "AnthropicError" if api.dialect is Dialect.ANTHROPIC else "OpenAIError"
    told = answer("The model service's answer, restored", {"type": "object"})
    if api.stream is not None:
        told["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    refusals = {
        status: answer(about, {"$ref": f"#/components/schemas/{error}"})
        for status, about in {**_REFUSALS, "4XX": "The model service refused"}.items()
    }
    return {
        "operationId": api.path.removeprefix("/v1/").replace("/", "_"),
        "summary": "The models that may be asked for" if api is MODELS else f"As the model service's own {api.path}",
        "security": [{"bearer": []}, {"x-api-key": []}, {}],
        "responses": {"200": told, **refusals},
    }


def _body(api: Api) -> Json:
    texts = {"type": ["string", "array"], "items": {"type": ["string", "object"]}}
    properties: Json = {
        "model": {
            "type": "string",
            "pattern": f"^{NAME}$",
            "not": {"pattern": f"{LONG_NUMBER.pattern}|{ADDRESS.pattern}"},
        },
        "stream": {"type": "boolean"} if api.stream is not None else {"const": False},
        "messages": {"type": "array", "items": {"type": "object"}},
        "input": texts,
        "prompt": texts,
        "tools": {"type": "array", "items": {"type": "object"}},
    }
    schema = fields(properties, optional=tuple(name for name in properties if name != "model"))
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _openai_error() -> Json:
    text = {"type": "string"}
    return fields({"error": fields({"message": text, "type": text, "code": text, "param": {"type": "null"}})})


def _anthropic_error() -> Json:
    text = {"type": "string"}
    return fields(
        {"type": {"const": "error"}, "error": fields({"type": text, "message": text, "code": text})},
    )
