"""What the gateway answers where it passes nothing on, in the form that each API's clients read."""

from __future__ import annotations

from enum import Enum
from typing import Any

from mibao.errors import MibaoError


class Dialect(Enum):
    """Whose errors, events and headers a route speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


_ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Withheld(MibaoError):
    """A request or an answer that is not passed on. The message holds nothing of either.

    Args:
        message: One line for the client.
        status: The HTTP status.
        code: A word for programs, one of the list in ``docs/gateway.md``.
        retry_after_s: When to ask again, where waiting helps.
    """

    def __init__(self, message: str, *, status: int, code: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


def body(dialect: Dialect, *, status: int, code: str, message: str) -> dict[str, Any]:
    """The error as ``dialect`` has it."""
    if dialect is Dialect.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": message, "code": code}}
    kind = _OPENAI_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}
