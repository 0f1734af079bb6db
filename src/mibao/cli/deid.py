"""`mibao detect`, `mask`, `unmask` and `mibao deid`: personal data found, changed, restored, and how well."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mibao.errors import InputError

if TYPE_CHECKING:
    from mibao.deid.custom import CustomTypes
    from mibao.deid.policies import Policy

EXIT_UNCHECKED = 3
SCOPE = "mibao mask"

app = typer.Typer(
    name="deid",
    help="What kinds of personal data are found, by which policies they are changed, and how well they are found.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Input = Annotated[str, typer.Argument(metavar="[FILE|-]", help="The text; - or nothing: standard input.")]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE", help="Write it there; an existing file is kept. Default: print it."),
]
VaultFile = Annotated[Path | None, typer.Option("--vault", metavar="V", help="Where placeholders are remembered.")]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE", help="The file of the secret key, 64 hexadecimal digits. Default: V.key."),
]
TypesFile = Annotated[
    Path | None,
    typer.Option("--types", metavar="FILE", help="Types of your own, in TOML: pattern, validator, context, words."),
]
RulesOnly = Annotated[
    bool, typer.Option("--rules-only", help="Leave out the models of names: faster, and names are mostly missed.")
]
Scope = Annotated[str, typer.Option(help="Whose data these are: two scopes share no pseudonym.")]


def mount(root: typer.Typer) -> None:
    """Put the commands where users look for them."""
    panel = "Personal data"
    root.command(rich_help_panel=panel)(detect)
    root.command(rich_help_panel=panel)(mask)
    root.command(rich_help_panel=panel)(unmask)
    root.add_typer(app, name="deid", rich_help_panel=panel)


def detect(
    source: Input = "-",
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help='JSON lines with a "text" in; for each, in order, one line of findings out.')
    ] = False,
    types_file: TypesFile = None,
    rules_only: RulesOnly = False,
    output: Output = None,
) -> None:
    """Say where personal data stands, of which type, how sure and why. Never what it is.

    Exit code 3: a record could not be checked; it is withheld and its line says why.
    """
    from mibao.cli import deid_files, deid_work
    from mibao.cli.deid_search import search_of

    search = search_of(deid_files.read_types(types_file), rules_only=rules_only)
    with deid_files.opened(source) as place, deid_files.written(output) as out:
        withheld = (deid_work.detect_jsonl if jsonl else deid_work.detect_text)(place, out, search)
    if withheld:
        raise typer.Exit(EXIT_UNCHECKED)


def mask(  # noqa: PLR0917 - typer's options
    source: Input = "-",
    policy: Annotated[
        str | None,
        typer.Option("--policy", metavar="P", help="A policy's file or name: mibao deid policies lists them."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say of each finding what, where, how sure and why.")
    ] = False,
    types_file: TypesFile = None,
    rules_only: RulesOnly = False,
    vault: VaultFile = None,
    key: KeyFile = None,
    scope: Scope = SCOPE,
    engine: Annotated[
        str, typer.Option("--engine", help="For a folder of .parquet files: local, or ray, on a Ray cluster.")
    ] = "local",
    output: Output = None,
) -> None:
    """Change the personal data in a text, JSON lines, a table (.csv, .parquet, .jsonl) or a folder of .parquet.

    Without a policy each finding becomes the name of its type; with a vault it becomes a placeholder that `unmask`
    restores exactly. Exit code 3: a record could not be checked; it is left out and listed.
    """
    from mibao.cli import deid_files, deid_work
    from mibao.cli.deid_search import search_of

    own = deid_files.read_types(types_file)
    chosen = _policy(policy, own, restorable=vault is not None)
    if source != "-" and Path(source).is_dir():
        from mibao.cli import deid_folder

        withheld = deid_folder.mask_folder(
            Path(source), output, chosen, types_file=types_file, rules_only=rules_only, key=key, vault=vault,
            scope=scope, engine=engine,
        )  # fmt: skip
        raise typer.Exit(EXIT_UNCHECKED if withheld else 0)
    search = search_of(own, rules_only=rules_only)
    with deid_files.keys_and_vault(vault, key, scope=scope, needed=chosen.needs_key) as held:
        if deid_files.is_table(source):
            from mibao.cli import deid_tables

            withheld = deid_tables.mask_table(Path(source), output, chosen, held, search, explain=explain)
        elif resource := deid_files.read_resource(source):
            from mibao.cli import deid_tables

            withheld = deid_tables.mask_resource(source, resource, output, chosen, held, search, explain=explain)
        else:
            with deid_files.opened(source) as place, deid_files.written(output) as out:
                withheld = deid_work.mask_text(place, out, chosen, held, search, explain=explain)
    if withheld:
        raise typer.Exit(EXIT_UNCHECKED)


def unmask(
    source: Input = "-",
    vault: VaultFile = None,
    key: KeyFile = None,
    scope: Scope = SCOPE,
    output: Output = None,
) -> None:
    """Put back what placeholders of a vault stand for. What is no placeholder of it stays.

    In JSON lines, CSV and FHIR resources values are put back cell by cell, so that quotes and line ends in them are
    written as the format wants them.
    """
    from mibao.cli import deid_files, deid_restore, deid_work

    if vault is None:
        raise InputError("unmask: expected --vault V, the vault that `mibao mask --vault V` wrote")
    if not vault.exists():
        raise InputError(f"{vault}: expected a vault, got nothing there")
    with (
        deid_files.keys_and_vault(vault, key, scope=scope, needed=True) as held,
        deid_files.opened(source) as place,
        deid_files.written(output) as out,
    ):
        if deid_restore.is_structured(source):
            deid_restore.unmask_cells(place, out, held, source)
        else:
            deid_work.unmask_text(place, out, held)


@app.command()
def types(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON lines, every column.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a table in Markdown.")] = False,
) -> None:
    """List every type that is found: example, jurisdiction, and the law it serves."""
    from mibao.cli import deid_screen

    if markdown:
        typer.echo(deid_screen.types_page(), nl=False)
    else:
        deid_screen.print_types(as_json=as_json)


@app.command()
def policies() -> None:
    """List the policies that come with mibao."""
    from mibao.cli import deid_screen

    deid_screen.print_policies()


@app.command()
def evaluate(
    gold: Annotated[
        Path, typer.Argument(metavar="GOLD", help='JSON lines: {"text", "spans": [{"start", "end", "type"}]}.')
    ],
    only: Annotated[
        str | None, typer.Option("--only", help="Only these types, separated by commas. Default: all in GOLD.")
    ] = None,
    types_file: TypesFile = None,
    rules_only: RulesOnly = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Measure precision, recall, F1 and F2 by type against a gold standard, exact and overlapping."""
    from mibao.cli import deid_files, deid_screen, deid_work
    from mibao.cli.deid_search import search_of

    search = search_of(deid_files.read_types(types_file), rules_only=rules_only)
    deid_screen.print_scores(deid_work.evaluate(gold, only, search), as_json=as_json)
    for note in search.notes:
        typer.echo(note, err=True)


@app.command()
def risk(  # noqa: PLR0917 - typer's options
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="A .csv, .tsv or .parquet file.")],
    quasi: Annotated[
        str, typer.Option("--quasi", metavar="A,B", help="Columns that somebody may know of a person from elsewhere.")
    ],
    sensitive: Annotated[
        str | None, typer.Option("--sensitive", metavar="C", help="A column that nobody is to learn of a person.")
    ] = None,
    population: Annotated[
        Path | None,
        typer.Option("--population", metavar="FILE", help="A table of everybody that the rows were taken from."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a report with plots there, one page.")
    ] = None,
    chinese: Annotated[bool, typer.Option("--zh", help="The report in Chinese. 报告用中文。")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """Measure k-anonymity, l-diversity, t-closeness and the risk of re-identification of a table."""
    from mibao.cli import deid_anonymise, deid_screen, deid_tables

    names = quasi.split(",")
    found, sizes = deid_tables.measure(table, names, sensitive, population)
    if page is not None:
        deid_anonymise.write_page(page, found, sizes, names, chinese=chinese)
    deid_screen.print_risk(found, as_json=as_json)


@app.command()
def anonymise(  # noqa: PLR0917 - typer's options
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="A .csv, .tsv or .parquet file.")],
    quasi: Annotated[
        str, typer.Option("--quasi", metavar="A,B", help="Columns that somebody may know of a person from elsewhere.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where the table goes.")],
    k: Annotated[int, typer.Option("--k", min=2, help="So many rows at least agree in these columns.")] = 5,
    sensitive: Annotated[
        str | None, typer.Option("--sensitive", metavar="C", help="A column that nobody is to learn of a person.")
    ] = None,
    diverse: Annotated[int, typer.Option("--l", min=1, help="So many values of it among such rows.")] = 1,
    close: Annotated[float, typer.Option("--t", min=0, max=1, help="How far their values may be from all.")] = 1.0,
    most_suppressed: Annotated[
        float, typer.Option("--suppress", min=0, max=0.99, help="Share of rows that may be left out at most.")
    ] = 0.05,
    hierarchy: Annotated[
        list[str] | None,
        typer.Option("--hierarchy", metavar="C=FILE", help="How the values of a column become less exact, as CSV."),
    ] = None,
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="A,B", help="Columns to keep though personal data stands in them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as one JSON object.")] = False,
) -> None:
    """Make a table k-anonymous, l-diverse and t-close: values less exact, few rows left out, and what that lost.

    Columns that hold personal data and are neither quasi-identifiers nor sensitive are refused: mask them first.
    """
    from mibao.cli import deid_anonymise
    from mibao.deid.generalising import Demand

    deid_anonymise.anonymise(
        table, output, quasi.split(","), Demand(k=k, l=diverse, t=close, most_suppressed=most_suppressed),
        sensitive=sensitive, hierarchies=hierarchy or [], keep=(keep or "").split(","), as_json=as_json,
    )  # fmt: skip


@app.command()
def serve(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where to listen.")] = 5002,
    host: Annotated[
        str, typer.Option("--host", help="At which address; by default only for this machine.")
    ] = "127.0.0.1",
    types_file: TypesFile = None,
    key: KeyFile = None,
    scope: Scope = SCOPE,
) -> None:
    """Answer Presidio's HTTP calls: /analyze, /anonymize, /deanonymize, /supportedentities, /health."""
    from mibao.cli import deid_serve

    deid_serve.serve(host, port, types_file, key, scope=scope)


def _policy(name: str | None, own: CustomTypes | None, *, restorable: bool) -> Policy:
    from mibao.cli.deid_files import read_policy
    from mibao.deid.policies import PSEUDONYMS, REPLACE, Keep, Pseudonym

    by_default = PSEUDONYMS if restorable else REPLACE
    policy = by_default if name is None else read_policy(name, own.names if own else ())
    if own is not None:
        policy = own.applied_to(policy)
    lossy = sorted(
        entity for entity, operation in policy.operations().items() if not isinstance(operation, Keep | Pseudonym)
    )
    if restorable and lossy:
        raise InputError(
            f"policy {policy.name} changes {', '.join(lossy[:3])} in a way that no vault restores: "
            "leave out --vault, or take a policy of pseudonyms such as gdpr-pseudonymise"
        )
    return policy
