"""A worker of the gateway without the gateway: admit and settle until killed; print each request once acknowledged.

Usage: gateway_worker.py STORE LEDGER KEY
"""

import asyncio
import sys
from pathlib import Path

from ledger_samples import signer
from mibao.errors import MibaoError
from mibao.serving.accounts import Accounts, Admitted
from mibao.serving.admission import Outcome, Refused
from mibao.serving.recording import Appender
from mibao.serving.storage import Store

ORIGIN = "mibao.test/gateway"
AT_ONCE = 8


async def work(place: str, path: Path, key: str) -> None:
    with Store.open(place) as store:
        accounts = Accounts(store, recording_key=bytes(32))
        Appender(store, path, signer=signer(), origin=ORIGIN).start()
        print("ready", flush=True)  # noqa: T201
        await asyncio.gather(*(_ask(accounts, key) for _ in range(AT_ONCE)))


async def _ask(accounts: Accounts, key: str) -> None:
    outcome = Outcome(
        route="/v1/chat/completions", model="m", upstream="u", status=200, findings={"PERSON": 1}, prompt_tokens=1,
        completion_tokens=1, seconds=0.0, withheld=None,
    )  # fmt: skip
    while True:
        try:
            caller = await accounts.admit(
                authorization=f"Bearer {key}", client_certificate=None, route="/v1/chat/completions", model=None
            )
            assert isinstance(caller, Admitted)
            print("admitted", caller.request, flush=True)  # noqa: T201
            await accounts.settle(caller, outcome)
        except Refused:
            await asyncio.sleep(0.01)
        except MibaoError:
            await asyncio.sleep(0.05)  # the database is being started again
        else:
            print("settled", caller.request, flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
