"""The demo's screen: one block a step as it finishes, then the table of what each protection cost."""

from __future__ import annotations

import re
from collections.abc import Callable

from rich.box import ROUNDED
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mibao.demo.outcome import (
    MAX_ACCURACY_GAP,
    MAX_EPSILON,
    REFUSALS,
    Computed,
    Cost,
    Deidentified,
    Outcome,
    Recorded,
    SealedModel,
    StepResult,
    Trained,
)
from mibao.types import Refusal

WIDTH = 100
_INDENT = 4
_PLACEHOLDER = r"<[A-Z_]+_[0-9A-Z]{8,}(_[0-9A-Z]+)?>"
_CHINESE, _NO_LINE_START = r"[\u2e80-\u9fff\uff00-\uffef]", r"[、。〉》」』】），．：；？！]*"
_BREAKABLE = re.compile(
    rf"<[0-9A-Z_]+>{_NO_LINE_START}\s*|{_CHINESE}{_NO_LINE_START}|(?:(?!{_CHINESE}|<[A-Z])\S)+{_NO_LINE_START}\s*|\s+|<"
)
_REFUSED_IN_WORDS = {
    Refusal.ALTERED: "one flipped byte",
    Refusal.WRONG_KEY: "another recipient's key",
    Refusal.WRONG_SIGNER: "another signer",
}


def console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, 100 columns at most."""
    screen = Console(stderr=stderr, highlight=False)
    screen.width = min(WIDTH, screen.width)
    return screen


def opening() -> RenderableType:
    """What the reader is about to see."""
    return Group(
        Text(),
        Text.assemble(("mibao 密保", "bold cyan"), "  private AI, end to end"),
        Text(
            "569 real records (Wisconsin breast cancer) at five invented hospitals, and an invented note.",
            "dim",
        ),
        Text("Nothing leaves this machine. Every figure below was measured just now.", "dim"),
    )


def step(number: int, result: StepResult, *, width: int = WIDTH) -> RenderableType:
    """One step's block, ``width`` columns wide."""
    match result:
        case Deidentified():
            body = _deidentified(result, width=width - _INDENT)
            return _block(number, "De-identify", "what a model service would get to see", body)
        case Trained():
            return _block(number, "Train together", "no record leaves its hospital", _trained(result))
        case SealedModel():
            return _block(number, "Seal", "only the recipient opens it, nobody alters it", _sealed(result))
        case Recorded():
            return _block(number, "Ledger", "every step left entries that anyone can check", _recorded(result))
        case (clear, encrypted):
            return _block(
                number, "Compute on ciphertexts", "CKKS, 128-bit, in another process", _computed(clear, encrypted)
            )


def closing(outcome: Outcome, *, kept: str | None, width: int = WIDTH) -> RenderableType:
    """The cost table, the verdict, and where to go on."""
    if outcome.ok:
        verdict = Text.assemble(("✓ every promise kept", "bold green"), f" in {outcome.seconds:.1f} s")
    else:
        verdict = Text("\n".join(f"✗ {failure}" for failure in outcome.failures()), "bold red")
    where = f"Artefacts are in {kept}." if kept else "Keep every artefact: mibao demo --keep DIR"
    return Group(
        Text(),
        _cost_table(outcome.costs, width=width),
        Text(),
        verdict,
        Text(f"{where}   For programs: mibao demo --json", "dim"),
    )


def _block(number: int, title: str, subtitle: str, body: list[RenderableType]) -> RenderableType:
    heading = Text.assemble((f" {number} ", "bold white on blue"), (f" {title}", "bold"), ("  " + subtitle, "dim"))
    return Group(Text(), heading, Padding(Group(*body), (0, 0, 0, _INDENT)))


def _line(mark: Text, text: Text) -> RenderableType:
    """A mark and a text whose later lines stand under its first."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column()
    grid.add_row(mark, text)
    return grid


def _kept(kept: bool, *parts: str | tuple[str, str]) -> RenderableType:
    mark = Text("✓", "green") if kept else Text("✗", "bold red")
    return _line(mark, Text.assemble(*parts))


def _note(text: str) -> RenderableType:
    return _line(Text(), Text(text, "dim"))


def _deidentified(result: Deidentified, *, width: int) -> list[RenderableType]:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    room = width - len("before  ")
    masked = Text(_wrapped(result.masked, room))
    masked.highlight_regex(_PLACEHOLDER, "yellow")
    table.add_row("before", Text(_wrapped(result.original, room)))
    table.add_row("", "")
    table.add_row("after", masked)
    return [
        table,
        Text(),
        _kept(
            result.restored,
            f"{result.findings} findings, {result.distinct} values, one pseudonym each (a tail: how it was written); ",
            "restored exactly" if result.restored else ("NOT restored exactly", "red"),
        ),
        _note("Found by pattern, checksum and cue word. Misses are possible: this is not anonymisation."),
    ]


def _wrapped(text: str, width: int) -> str:
    """``text`` in lines of ``width`` columns, broken at spaces, around placeholders and between Chinese characters."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for piece in _BREAKABLE.findall(paragraph):
            if line and cell_len(line + piece.rstrip()) > width:
                lines.append(line.rstrip())
                line = ""
            line += piece
        lines.append(line.rstrip())
    return "\n".join(lines)


def _trained(result: Trained) -> list[RenderableType]:
    hospitals = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2))
    hospitals.add_column("hospital")
    for hospital in result.hospitals:
        hospitals.add_column(hospital.name, justify="right")
    hospitals.add_row("records", *(str(hospital.records) for hospital in result.hospitals))
    hospitals.add_row("malignant", *(f"{hospital.malignant:.0%}" for hospital in result.hospitals))
    models = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2))
    models.add_column(f"logistic regression, tried on {result.test_records} held-out records")
    for name in ("rounds", "accuracy", "epsilon"):
        models.add_column(name, justify="right")
    models.add_row("all records pooled, unprotected", "", f"{result.pooled_accuracy:.1%}", "∞")
    models.add_row(
        "federated, secure sums and differential privacy",
        str(result.rounds),
        f"{result.accuracy:.1%}",
        f"{result.epsilon:.2f}",
        style="bold",
    )
    models.add_row(
        "FedAvg with local steps, secure sums, no privacy",
        str(result.fedavg_rounds),
        f"{result.fedavg_accuracy:.1%}",
        "∞",
    )
    gone = " and ".join(f"{name} dropped out of round {number + 1}" for number, name in result.dropouts)
    gap = result.pooled_accuracy - result.accuracy
    return [
        hospitals,
        Text(),
        models,
        Text(),
        _kept(
            result.sum_exact,
            f"the server learned {result.sums} sums, no hospital's own upload; each is exact to the last bit",
        ),
        _note(
            f"One message a hospital and round; a committee of {result.committee} opened the sum of the masks alone."
        ),
        _kept(bool(gone), f"{gone}: its sum is exact too, its smaller noise accounted for"),
        _kept(
            gap <= MAX_ACCURACY_GAP, f"{abs(gap) * 100:.1f} points {'below' if gap >= 0 else 'above'} the pooled model"
        ),
        _kept(
            result.epsilon <= MAX_EPSILON,
            f"one record more or less: epsilon {result.epsilon:.2f} at delta {_power_of_ten(result.delta)}, "
            f"noise {result.noise_multiplier:g} times what it can change",
        ),
        _note(
            "Counts only the noise of hospitals that took part, and assumes that hospitals do not pool what they "
            "know of their own noise. Measuring on the held-out records is the demo's own, outside that promise."
        ),
    ]


def _sealed(result: SealedModel) -> list[RenderableType]:
    refused = ", ".join(_REFUSED_IN_WORDS[refusal] for refusal in result.refused) or "nothing"
    return [
        _kept(
            result.byte_identical,
            f"D(E(M)) = M, byte for byte   {result.recipient_suite}, signed {result.signer_suite}",
        ),
        _kept(set(result.refused) == set(REFUSALS), f"refused: {refused}"),
    ]


def _computed(clear: Computed, encrypted: Computed) -> list[RenderableType]:
    lines: list[RenderableType] = []
    for title, result in (("data encrypted, weights clear", clear), ("data and weights encrypted", encrypted)):
        lines.append(
            _kept(
                result.agreement == 1.0,
                (f"{title}: ", "bold"),
                f"{result.rows} rows, {result.agreement:.1%} same class, logit error ≤ {result.max_error:.1e}, "
                f"{result.seconds:.2f} s",
            )
        )
        lines += [_note(line) for line in result.who_could_read]
    return lines


def _recorded(result: Recorded) -> list[RenderableType]:
    found = "no entry" if result.found_index is None else f"entry {result.found_index}"
    return [
        _kept(result.verified, f"{result.entries} entries verify against the signed checkpoint"),
        _kept(
            result.found_index == result.tampered_index,
            f"entry {result.tampered_index} altered in a copy: verify names {found}",
        ),
    ]


def _cost_table(costs: tuple[Cost, ...], *, width: int) -> Table:
    arrow = " → " if width >= WIDTH else "\n→ "
    table = Table(
        title="What it cost", title_style="bold", title_justify="left", header_style="bold", box=ROUNDED, expand=True
    )
    table.add_column("protection")
    for name in ("accuracy", "seconds", "bytes"):
        table.add_column(f"{name}\nplain{arrow}protected", justify="right", no_wrap=True)
    table.add_column("epsilon", justify="right", no_wrap=True)
    for cost in costs:
        table.add_row(
            cost.protection,
            _change(cost.plain_accuracy, cost.protected_accuracy, _percent, arrow),
            _change(cost.plain_seconds, cost.protected_seconds, _seconds, arrow),
            _change(cost.plain_bytes, cost.protected_bytes, _size, arrow),
            "" if cost.epsilon is None else f"∞ → {cost.epsilon:.2f}",
        )
    return table


def _change(plain: float | None, protected: float | None, written: Callable[[float], str], arrow: str) -> str:
    if protected is None:
        return ""
    return ("–" if plain is None else written(plain)) + arrow + written(protected)


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _power_of_ten(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-")


def _seconds(seconds: float) -> str:
    if seconds == 0:
        return "0 s"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.2f} s"


def _size(count: float) -> str:
    size, unit = count, "B"
    for larger in ("kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
