"""Every Python example in the documentation runs, and every command it names exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_PAGES = sorted([_ROOT / "README.md", _ROOT / "README.zh.md", *_ROOT.glob("docs/*.md")])
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(?:^|[ `])mibao ([a-z][a-z-]*(?: [a-z][a-z-]*)?)(?=[ `\n])", re.MULTILINE)
_EXAMPLES = [
    (page.relative_to(_ROOT).as_posix(), number, block)
    for page in _PAGES
    for number, block in enumerate(_BLOCK.findall(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize(
    ("page", "number", "block"), _EXAMPLES, ids=[f"{page}-{number}" for page, number, _ in _EXAMPLES]
)
def test_a_python_example_runs_as_it_stands(page: str, number: int, block: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{page}, example {number}:\n{done.stderr}"


def test_the_readmes_have_examples_to_run() -> None:
    assert {page for page, _, _ in _EXAMPLES} >= {"README.md", "README.zh.md"}


def test_every_command_that_a_page_names_exists() -> None:
    from typer.main import get_command

    from mibao.cli.main import app

    root = get_command(app)
    known = {name: set(getattr(command, "commands", {})) for name, command in root.commands.items()}
    for page in _PAGES:
        for written in _COMMAND.findall("\n".join(_fenced(page))):
            noun, _, verb = written.partition(" ")
            assert noun in known, f"{page.name}: mibao {written}"
            if known[noun]:
                assert verb in known[noun], f"{page.name}: mibao {written}"


def _fenced(page: Path) -> list[str]:
    return re.findall(
        r"^```(?:sh|console|text)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
