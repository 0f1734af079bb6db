"""What a gateway is told, in TOML.

::

    [server]
    host = "127.0.0.1"
    port = 8100

    [[upstreams]]
    name = "openai"
    url = "https://api.openai.com/v1"
    key_env = "OPENAI_API_KEY"              # or key_file, or:
    # key_sealed = "openai.mibao"           # mibao seal openai.txt --to gateway.pub --sign ops.key ...
    # sealed_to = "recipient.key"           # who opens it, as `mibao open --key`
    # sealed_by = "ops.pub"                 # who must have signed it

    [[models]]
    name = "fast"                           # what clients ask for
    upstream = "openai"
    model = "gpt-4o-mini"
    fallbacks = ["spare"]

    [privacy]
    policy = "pseudonyms"                   # or "surrogates", a ready policy, or one of [policies]
    attachments = "refuse"                  # or "pass"
    tools = ["*"]                           # whose arguments are restored
    report_header = false

    [privacy.routes]
    "/v1/embeddings" = "strict"

    [policies]
    strict = "strict.toml"

    [state]                                 # keys, quotas, ledger: docs/operating.md
    store = "gateway.db"
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from mibao.deid import Policy, parse_policy, ready_policy
from mibao.deid.policies import PSEUDONYMS, READY, Fake
from mibao.errors import InputError
from mibao.serving.exchange import APIS
from mibao.serving.faults import Dialect
from mibao.serving.upstreams import Upstream
from mibao.serving.worker_state import StateSettings

SURROGATES = Policy(name="surrogates", purpose="Made-up values of the same form, restored.", otherwise=Fake())
_KEY = re.compile(r"[!-~]{1,4096}")
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class _Part(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A part of the configuration."""


class ServerSettings(_Part, frozen=True, kw_only=True):
    """Where to listen."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8100
    workers: _Count = 1
    certificate: str | None = None
    certificate_key: str | None = None
    client_authority: str | None = None
    admin_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None


class LimitSettings(_Part, frozen=True, kw_only=True):
    """How much at once."""

    body_bytes: _Count = 10 * 1024 * 1024
    answer_bytes: _Count = 64 * 1024 * 1024
    read_s: _Seconds = 30.0
    detect_s: _Seconds = 20.0
    concurrent: _Count = 256


class UpstreamSettings(_Part, frozen=True, kw_only=True):
    """One model service."""

    name: str
    url: str
    key_env: str | None = None
    key_file: str | None = None
    key_sealed: str | None = None
    sealed_to: str | None = None
    sealed_by: str | None = None
    dialect: Literal["openai", "anthropic"] = "openai"
    forward_authorization: bool = False
    timeout_s: _Seconds = 600.0
    retries: Annotated[int, msgspec.Meta(ge=0, le=5)] = 1


class ModelSettings(_Part, frozen=True, kw_only=True):
    """A name that clients ask for."""

    name: str
    upstream: str
    model: str | None = None
    fallbacks: tuple[str, ...] = ()


class PrivacySettings(_Part, frozen=True, kw_only=True):
    """What is done to texts."""

    policy: str = "pseudonyms"
    detection: bool = True
    attachments: Literal["refuse", "pass"] = "refuse"
    tools: tuple[str, ...] = ("*",)
    report_header: bool = False
    routes: dict[str, str] = {}
    conversation_s: _Seconds = 3600.0


class Configuration(_Part, frozen=True, kw_only=True):
    """All of it."""

    upstreams: tuple[UpstreamSettings, ...]
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    models: tuple[ModelSettings, ...] = ()
    privacy: PrivacySettings = PrivacySettings()
    policies: dict[str, str] = {}
    allow: tuple[str, ...] = ()
    state: StateSettings = StateSettings()
    no_auth: bool = False


def parse(text: str, *, source: str) -> Configuration:
    """The configuration written in ``text``.

    Raises:
        InputError: it is no TOML, a name or value in it is none that there is, or it contradicts itself.
    """
    try:
        configuration = msgspec.toml.decode(text, type=Configuration)
    except msgspec.DecodeError as error:
        raise InputError(f"{source}: {error}") from error
    check(configuration, source=source)
    return configuration


def check(configuration: Configuration, *, source: str) -> None:
    """Raises InputError where ``configuration`` contradicts itself."""
    names = [upstream.name for upstream in configuration.upstreams]
    if not names or len(set(names)) != len(names):
        raise InputError(f"{source}: expected one upstream or more, each with a name of its own")
    for upstream in configuration.upstreams:
        parts = urlsplit(upstream.url)
        if sum(each is not None for each in (upstream.key_env, upstream.key_file, upstream.key_sealed)) > 1:
            raise InputError(f"{source}: upstream {upstream.name}: expected one of key_env, key_file and key_sealed")
        if len({each is None for each in (upstream.key_sealed, upstream.sealed_to, upstream.sealed_by)}) > 1:
            raise InputError(
                f"{source}: upstream {upstream.name}: expected key_sealed, sealed_to and sealed_by together"
            )
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.username
            or parts.query
            or parts.fragment
        ):
            raise InputError(f"{source}: upstream {upstream.name}: expected a URL such as https://host/v1")
    for path in configuration.allow:
        if not re.fullmatch(r"/v1/[a-z0-9_/-]{1,100}", path):
            raise InputError(f"{source}: allow: expected paths such as /v1/moderations")
    if unserved := set(configuration.privacy.routes) - set(APIS) - set(configuration.allow):
        served = ", ".join((*APIS, *configuration.allow))
        raise InputError(f"{source}: privacy.routes: expected some of {served}, got {', '.join(sorted(unserved))}")
    models = [model.name for model in configuration.models]
    if len(set(models)) != len(models):
        raise InputError(f"{source}: expected each model once")
    for model in configuration.models:
        if model.upstream not in names:
            raise InputError(f"{source}: model {model.name}: there is no upstream {model.upstream}")
        if missing := set(model.fallbacks) - set(models):
            raise InputError(f"{source}: model {model.name}: there is no model {min(missing)} to fall back to")


def located(configuration: Configuration, folder: Path) -> Configuration:
    """``configuration`` with every file in it looked for in ``folder``, where the configuration itself lies."""

    def at(file: str | None) -> str | None:
        return None if file is None else str(folder / file)

    def key(text: str | None) -> str | None:
        """A key by its file, unless it is one by name (``kms:...``) or written out."""
        return text if text is None or ":" in text or text.startswith("mibao1.") else at(text)

    server, state = configuration.server, configuration.state
    certificates = ("certificate", "certificate_key", "client_authority")
    return replace(
        configuration,
        server=replace(server, **{name: at(getattr(server, name)) for name in certificates}),
        upstreams=tuple(
            replace(
                each,
                key_file=at(each.key_file),
                key_sealed=at(each.key_sealed),
                sealed_to=key(each.sealed_to),
                sealed_by=key(each.sealed_by),
            )
            for each in configuration.upstreams
        ),
        policies={name: str(folder / file) for name, file in configuration.policies.items()},
        state=replace(
            state, store=state.store if "://" in state.store else str(folder / state.store), ledger=at(state.ledger)
        ),
    )


def upstreams(configuration: Configuration) -> dict[str, Upstream]:
    """Every upstream with its key.

    Raises:
        InputError: a key is not where it was said to be.
    """
    return {each.name: _upstream(each, no_auth=configuration.no_auth) for each in configuration.upstreams}


def policies(configuration: Configuration) -> dict[str, Policy]:
    """Every policy that is named.

    Raises:
        InputError: one cannot be read, or is named and does not exist.
    """
    found = {PSEUDONYMS.name: PSEUDONYMS, SURROGATES.name: SURROGATES}
    for name, file in configuration.policies.items():
        try:
            found[name] = parse_policy(Path(file).read_text(encoding="utf-8"), source=file)
        except OSError as error:
            raise InputError(f"policy {name}: cannot read {file}: {error.strerror}") from error
    for name in (configuration.privacy.policy, *configuration.privacy.routes.values()):
        if name not in found:
            if name not in READY:
                raise InputError(f"policy {name}: expected one of {', '.join((*found, *READY))}")
            found[name] = ready_policy(name)
    return found


def _upstream(settings: UpstreamSettings, *, no_auth: bool) -> Upstream:
    key = _key(settings)
    if key is not None and not _KEY.fullmatch(key):
        raise InputError(f"upstream {settings.name}: expected its key to be one word of printable ASCII")
    return Upstream(
        name=settings.name,
        url=settings.url,
        key=key,
        dialect=Dialect(settings.dialect),
        forward_authorization=settings.forward_authorization or (no_auth and key is None),
        timeout_s=settings.timeout_s,
        retries=settings.retries,
    )


def _key(settings: UpstreamSettings) -> str | None:
    """The key of an upstream, from where it lies."""
    if settings.key_env is not None:
        if not (key := os.environ.get(settings.key_env)):
            raise InputError(f"upstream {settings.name}: expected its key in ${settings.key_env}")
        return key
    if settings.key_sealed is not None:
        return _opened(settings)
    if settings.key_file is None:
        return None
    try:
        return Path(settings.key_file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"upstream {settings.name}: cannot read its key in {settings.key_file}") from error


def _opened(settings: UpstreamSettings) -> str:
    """The key in a sealed file. Raises what opening one raises."""
    from mibao import sealed  # noqa: PLC0415 - only where there is one

    who, signer = str(settings.sealed_to), sealed.signer(str(settings.sealed_by))
    try:
        identity = sealed.identity(who)
    except InputError:
        if (passphrase := os.environ.get("MIBAO_PASSPHRASE")) is None:
            raise
        identity = sealed.identity(who, passphrase=passphrase)
    content = sealed.open_bytes(Path(str(settings.key_sealed)), identity=identity, signer=signer)
    return content.decode("ascii", "replace").strip()
