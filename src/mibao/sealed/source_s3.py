"""A sealed model in S3, read by ranges of one version of one object."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from mibao.errors import InputError, ProtocolError
from mibao.sealed.aws import TIMEOUT_S, aws_client, aws_code, calling_aws

_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15})")


class S3Source:
    """One object at ``s3://BUCKET/KEY``; credentials, region and endpoint as boto3 finds them.

    Raises:
        InputError: not such an address, no such object, or not allowed.
        MissingExtra: ``boto3`` is not installed.
        ProtocolError: the service cannot be reached or answers something else.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or len(parts.path) < 2 or parts.query or parts.fragment:
            raise InputError("source: expected s3://BUCKET/KEY")
        self._where = {"Bucket": parts.netloc, "Key": parts.path[1:]}
        with calling_aws("S3"):
            self._client = aws_client("s3", timeout_s=timeout_s)
        self._etag: str | None = None
        self.size = 0
        self.size = self._fetch(0, memoryview(bytearray(1)))

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill ``out`` from ``offset`` on.

        Raises:
            InputError: the service refuses.
            ProtocolError: the service is gone, hangs, ignores ranges, cuts off, or the object changed.
        """
        if out.nbytes and self._fetch(offset, out.cast("B")) != self.size:
            raise ProtocolError("S3: read: the object changed while it was read")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _fetch(self, offset: int, out: memoryview) -> int:
        match = {} if self._etag is None else {"IfMatch": self._etag}
        asked = f"bytes={offset}-{offset + out.nbytes - 1}"
        with calling_aws("S3") as errors:
            try:
                answer: dict[str, Any] = self._client.get_object(**self._where, Range=asked, **match)
            except errors.ClientError as error:
                if aws_code(error) == "PreconditionFailed":
                    raise ProtocolError("S3: read: the object changed while it was read") from error
                raise InputError(f"S3: read: {aws_code(error)}") from error
            found = _RANGE.fullmatch(answer.get("ContentRange", ""))
            if found is None or (int(found[1]), int(found[2])) != (offset, offset + out.nbytes - 1):
                raise ProtocolError("S3: read: the service answers another range than it was asked for")
            data = answer["Body"].read(out.nbytes + 1)
        if len(data) != out.nbytes:
            raise ProtocolError("S3: read: the service cut the answer off")
        out[:] = data
        self._etag = self._etag or answer.get("ETag")
        return int(found[3])
