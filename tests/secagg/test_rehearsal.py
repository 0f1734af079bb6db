import itertools

import pytest

from mibao.errors import InputError
from mibao.secagg import rehearsal
from mibao.secagg.masking import Trust
from mibao.secagg.rehearsal import Plan, Scheme
from secagg.rounds import Stream

SMALL = {"members": 5, "corrupt": 1, "packing": 2}


@pytest.mark.parametrize("trust", list(Trust))
@pytest.mark.parametrize("scheme", list(Scheme))
def test_a_rehearsed_round_is_exact_and_accounts_for_every_message(scheme: Scheme, trust: Trust) -> None:
    plan = Plan(scheme=scheme, clients=6, length=50, dropped=2, trust=trust, **SMALL)
    report = rehearsal.rehearse(plan, randomness=Stream(1), clock=itertools.count().__next__)
    assert report.exact
    assert report.released.survivors == plan.alive == (1, 2, 4, 5)
    assert rehearsal.totals(report)["client"][0] == report.released.upload_bytes
    sent = {line.what: line.times for line in report.lines if line.who == "client"}
    confirms = trust is Trust.MALICIOUS_SERVER
    assert sum(sent.values()) == (4 if scheme is not Scheme.PAIRWISE else 6 + 6 + 4 + 4 + 4 * confirms)
    assert all(line.seconds == line.times for line in report.lines)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"clients": 1}, "2 clients or more"),
        ({"length": 0}, "2 clients or more"),
        ({"dropped": 5}, "2 clients left"),
        ({"input_bits": 33}, "1 to 32 bits, got 33"),
    ],
)
def test_plans_that_cannot_be_are_refused(change: dict[str, int], error: str) -> None:
    with pytest.raises(InputError, match=error):
        Plan(**{"scheme": Scheme.RLWE, "clients": 6, "length": 50, **change})
