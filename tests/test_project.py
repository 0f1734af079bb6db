"""What the project promises about itself: its exported names, its light start, its links, its make targets."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from packaging.requirements import Requirement

import large_downloads
import mibao
from exported_names import PINNED, exported_names
from strict_skips import program

_ROOT = Path(__file__).resolve().parents[1]
_PAGES = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md"), *_ROOT.glob("examples/**/*.md")])
_HEAVY = {
    "torch", "seal", "sklearn", "scipy", "starlette", "granian", "uvicorn", "aiohttp", "dp_accounting", "pandas",
    "matplotlib",
}  # fmt: skip


def _imported_by(statement: str) -> set[str]:
    """The top-level modules that a fresh process holds after ``statement``."""
    script = f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\nprint('\\n' + ' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_each_package_exports_exactly_the_pinned_names() -> None:
    pinned = json.loads(PINNED.read_text(encoding="utf-8"))
    assert exported_names() == pinned, "changed on purpose? `make names` pins them anew; then say so in CHANGELOG.md"


def test_importing_mibao_imports_nothing_heavy() -> None:
    loaded = _imported_by("import mibao")
    assert "mibao" in loaded
    assert not loaded & (_HEAVY | {"numpy", "typer", "sqlalchemy", "cryptography"})


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["keygen", "--help"],
        ["ledger", "--help"],
        ["demo", "--help"],
        ["train", "--help"],
        ["apikey", "create", "--help"],
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    loaded = _imported_by(f"import mibao.cli; sys.argv = {['mibao', *arguments]}; mibao.cli.main()")
    assert "typer" in loaded
    assert not loaded & _HEAVY


def test_help_answers_in_a_plain_process_with_standard_input_closed() -> None:
    command = [str(Path(sys.executable).with_name("mibao")), "--help"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "keygen" in done.stdout


def _closure(name: str, extras: frozenset[str]) -> set[str]:
    """Every distribution that installing ``name[extras]`` brings here, by installed metadata."""
    found: set[str] = set()
    waiting = [(name, extras)]
    seen = set(waiting)
    while waiting:
        current, wanted = waiting.pop()
        found.add(current)
        for line in importlib.metadata.requires(current) or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in wanted | {""}):
                continue
            entry = (re.sub(r"[-_.]+", "-", requirement.name).lower(), frozenset(requirement.extras))
            if entry not in seen:
                seen.add(entry)
                waiting.append(entry)
    return found


_EXTRAS = frozenset(importlib.metadata.metadata("mibao").get_all("Provides-Extra") or [])
_WITH_PYTORCH = frozenset({"torch", "transformers", "all", "test"})


@pytest.mark.parametrize("extra", ["", *sorted(_EXTRAS)])
def test_only_the_extras_named_for_it_bring_pytorch(extra: str) -> None:
    brought = _closure("mibao", frozenset({extra}))
    assert "numpy" in brought
    assert ("torch" in brought) == (extra in _WITH_PYTORCH)
    assert not [name for name in brought if name.startswith(("torchvision", "tensorflow"))]
    if extra not in _WITH_PYTORCH:
        assert not [name for name in brought if name.startswith(("nvidia", "cuda", "triton"))]


def test_a_download_of_cuda_is_announced_with_the_way_around_it() -> None:
    text = large_downloads.notice(["torch", "nvidia-cublas", "triton"])
    assert "2 GB" in text
    assert f"pip install {large_downloads.pinned()} --index-url" in text


def test_nothing_is_announced_for_the_cpu_build_or_where_pytorch_is_installed() -> None:
    assert large_downloads.notice(["torch", "sympy", "networkx"]) == ""
    assert large_downloads.notice(large_downloads.would_install()) == ""


def test_make_test_announces_before_it_installs() -> None:
    makefile = (_ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile.partition("test-installed: ")[2].partition("\n\n")[0]
    assert recipe.index("tests/large_downloads.py") < recipe.index("$(INSTALL)")


@pytest.mark.parametrize("package", ["mibao.cli", "mibao.sealed"])
def test_importing_imports_no_pytorch(package: str) -> None:
    assert not _imported_by(f"import {package}") & {"torch", "transformers", "tokenizers", "peft", "accelerate"}


def test_the_demo_brings_no_web_server() -> None:
    assert not _closure("mibao", frozenset({"demo"})) & {"starlette", "granian", "uvicorn", "flask", "fastapi"}


def test_typing_information_ships() -> None:
    assert (Path(mibao.__file__).parent / "py.typed").is_file()


def test_the_version_stands_in_the_changelog() -> None:
    assert f"## {mibao.__version__}" in (_ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path = unquote(target.partition("#")[0])
        if path and not re.match(r"[a-z]+:", path):
            assert (page.parent / path).exists(), f"{page.name} links to {target}"


def test_the_two_commands_of_the_readme_are_make_targets() -> None:
    readme = (_ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (_ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def _make(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    make = program("make", apt="make")
    environment = {**os.environ, "PATH": path or os.environ["PATH"]}
    return subprocess.run(
        [make, "-C", str(_ROOT), "--no-print-directory", *arguments],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def _path_with(folder: Path, *programs: str) -> str:
    for name in programs:
        (folder / name).symlink_to(program(name, apt=name))
    return str(folder)


def test_make_alone_lists_every_documented_target() -> None:
    done = _make()
    assert done.returncode == 0
    for target in ("demo", "test", "test-long", "bench", "bench-PILLAR", "lint", "docs", "clean"):
        assert re.search(rf"make {target}\s", done.stdout), target


def test_make_names_what_is_missing_and_the_line_that_installs_it(tmp_path: Path) -> None:
    done = _make("check", path=_path_with(tmp_path, "sh", "python3"))
    assert done.returncode != 0
    assert "missing: git" in done.stdout
    assert "apt install git make python3-venv" in done.stdout


def test_make_refuses_an_old_python_by_name(tmp_path: Path) -> None:
    old = tmp_path / "python2.7"
    old.write_text(
        "#!/bin/sh\ncase $1 in -V) echo Python 2.7.18 >&2;; esac\ncase $2 in *version_info*) exit 1;; esac\n"
    )
    old.chmod(0o755)
    done = _make("check", f"PYTHON={old}")
    assert done.returncode != 0
    assert "Python 2.7.18" in done.stdout
