"""Clients of AWS services: found as boto3 finds them, over TLS only, with time limits and errors of one line."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from mibao.errors import InputError, MissingExtra, ProtocolError

TIMEOUT_S = 30.0
ATTEMPTS = 3
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def aws_client(service: str, *, timeout_s: float = TIMEOUT_S, **more: Any) -> Any:
    """A client of ``service``, safe to share between threads.

    Raises:
        InputError: an endpoint without TLS is configured that is not on this machine.
        MissingExtra: ``boto3`` is not installed.
    """
    config = _module("botocore.config").Config(
        connect_timeout=timeout_s,
        read_timeout=timeout_s,
        retries={"mode": "standard", "max_attempts": ATTEMPTS},
        **more,
    )
    client = _module("boto3").session.Session().client(service, config=config)
    endpoint = urlsplit(client.meta.endpoint_url)
    if endpoint.scheme != "https" and endpoint.hostname not in _LOOPBACK:
        raise InputError(f"AWS: the endpoint on {endpoint.hostname} is not https://")
    return client


def aws_code(error: Any) -> str:
    """What the service called its refusal."""
    return str(error.response.get("Error", {}).get("Code", "refused"))


@contextmanager
def calling_aws(service: str) -> Iterator[Any]:
    """``botocore.exceptions``, and around the block every failure of the way there as one line.

    Raises:
        InputError: no credentials, no region.
        MissingExtra: ``boto3`` is not installed.
        ProtocolError: the service cannot be reached or does not answer.
    """
    errors = _module("botocore.exceptions")
    configured = (errors.NoCredentialsError, errors.PartialCredentialsError, errors.NoRegionError)
    try:
        yield errors
    except (*configured, errors.ProfileNotFound, errors.ParamValidationError) as error:
        raise InputError(f"{service}: {type(error).__name__}: see how boto3 is configured") from error
    except (errors.BotoCoreError, errors.HTTPClientError) as error:
        raise ProtocolError(f"{service}: no answer ({type(error).__name__})") from error


@cache
def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtra("AWS", extra="cloud") from error
