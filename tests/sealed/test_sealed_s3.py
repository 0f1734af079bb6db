"""Sealed models in S3, against moto's server on loopback."""

import pytest

import sealed_kit as kit
from aws_server import aws_server
from mibao import sealed
from mibao.errors import InputError, IntegrityError, ProtocolError
from mibao.sealed import aws
from mibao.sealed.source_s3 import S3Source
from mibao.types import Refusal

GOOD = kit.sealed_bytes()
OPEN = {"identity": kit.ALICE, "signer": kit.VENDOR.public}


@pytest.fixture(scope="module")
def bucket():
    with aws_server():
        client = aws.aws_client("s3")
        client.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        yield client


def test_a_model_in_s3_opens_and_a_changed_or_altered_one_does_not(bucket):
    bucket.put_object(Bucket="models", Key="m.mibao", Body=GOOD)
    with sealed.open_model("s3://models/m.mibao", **OPEN) as model:
        assert (model.rows("layer.weight", 0, 1) == kit.tensors()["layer.weight"][:1]).all()
        bucket.put_object(Bucket="models", Key="m.mibao", Body=GOOD[:-1] + bytes([GOOD[-1] ^ 1]))
        with pytest.raises(ProtocolError, match="the object changed while it was read"):
            model.load_numpy()
    with (
        sealed.open_model("s3://models/m.mibao", **OPEN) as model,
        pytest.raises(IntegrityError, match=r"^data: chunk 2 of tensor 'layer.weight' was altered"),
    ):
        model.load_numpy()


def test_only_the_bytes_needed_are_asked_for(bucket):
    asked: list[str] = []
    bucket.put_object(Bucket="models", Key="m.mibao", Body=GOOD)
    source = S3Source("s3://models/m.mibao")
    source._client.meta.events.register("before-send.s3.GetObject", lambda request, **_: asked.append(request))
    with sealed.open_model(source, **OPEN) as model:
        asked.clear()
        assert (model.rows("layer.weight", 0, 1) == kit.tensors()["layer.weight"][:1]).all()
    (request,) = asked
    first, last = map(int, request.headers["Range"].decode().removeprefix("bytes=").split("-"))
    assert last + 1 - first == kit.CHUNK_BYTES + 16
    source.close()


def test_a_service_that_cannot_be_reached_is_one_line(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(aws, "ATTEMPTS", 1)
    with pytest.raises(ProtocolError, match=r"^S3: no answer \(EndpointConnectionError\)$") as caught:
        S3Source("s3://models/m.mibao")
    assert sealed.refusal(caught.value).reason is Refusal.UNREACHABLE


@pytest.mark.parametrize("url", ["s3://models/none", "s3://models", "s3:///x"])
def test_an_object_that_is_not_there_is_refused(bucket, url):
    with pytest.raises(InputError) as caught:
        sealed.verify(url, signer=kit.VENDOR.public)
    assert sealed.refusal(caught.value).reason is Refusal.UNREACHABLE
