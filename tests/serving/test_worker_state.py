"""Workers as a configuration describes them: they share one store, one ledger, one vault and one set of counts."""

import asyncio
import socket
import tomllib
from pathlib import Path

import msgspec
import pytest

from ledger_samples import signer
from mibao import ledger
from mibao.errors import InputError
from mibao.events import RequestServed
from mibao.serving import metrics
from mibao.serving.admission import Admission, Outcome
from mibao.serving.storage import Store
from mibao.serving.worker_state import StateSettings, WorkerState, first_key

KEY = bytes(range(32))
OUTCOME = Outcome(
    route="/v1/chat/completions", model="small", upstream="u", status=200, findings={"PERSON": 1}, prompt_tokens=1,
    completion_tokens=1, seconds=0.01, withheld=None,
)  # fmt: skip
TOML = """
origin = "example.com/gateway"
reserved_tokens = 100
[prices.small]
prompt_per_million = 0.5
completion_per_million = 1
[[issuers]]
issuer = "https://issuer.example"
audience = "mibao"
jwks_url = "https://issuer.example/jwks"
tenant_claim = "org"
spend_per_month = 10
"""


def settings(**changes: object) -> StateSettings:
    return msgspec.convert({**tomllib.loads(TOML), **changes}, StateSettings)


async def ask(state: WorkerState, key: str, times: int) -> None:
    assert isinstance(state.admission, Admission)
    for _ in range(times):
        caller = await state.admission.admit(
            authorization=f"Bearer {key}", client_certificate=None, route="/v1/chat/completions", model=None
        )
        await state.admission.settle(caller, OUTCOME)


def test_two_workers_share_keys_record_vault_and_counts(store_place: str, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    asked = settings(store=store_place, ledger=str(path))
    one, two = (WorkerState.open(asked, gateway_key=KEY, signer=signer()) for _ in range(2))
    text = first_key(one.store)
    assert text is not None
    assert first_key(two.store) is None

    async def run() -> None:
        await asyncio.gather(ask(one, text, 3), ask(two, text, 4))

    asyncio.run(run())
    one.vault.put(b"scope", {"<A>": "Jane"})
    assert two.vault.get(b"scope", ["<A>"]) == {"<A>": "Jane"}
    one.close()
    two.close()
    ledger.verify(path, signer=signer().public, origin="example.com/gateway")
    events = [entry.event for entry in ledger.stored_entries(path)]
    served = [event for event in events if isinstance(event, RequestServed)]
    assert len(served) == len({event.request for event in served}) == 7
    assert len({event.caller for event in served}) == 1
    with Store.open(store_place) as store:
        text = metrics.of_host(store, host=socket.gethostname(), now_ms=1)
    assert 'mibao_findings_total{entity="PERSON"} 7' in text


def test_a_ledger_without_its_key_is_refused(tmp_path: Path) -> None:
    asked = settings(store=str(tmp_path / "gateway.db"), ledger=str(tmp_path / "ledger.db"))
    with pytest.raises(InputError, match="expected its signer's key"):
        WorkerState.open(asked, gateway_key=KEY, signer=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"ledgr": "x"},
        {"reserved_tokens": 0},
        {"prices": {"m": {"prompt_per_million": -1, "completion_per_million": 1}}},
    ],
)
def test_a_setting_that_is_none_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        settings(**changes)
