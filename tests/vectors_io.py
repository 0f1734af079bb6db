"""Known answers, read from tests/vectors/<pillar>/<name>.json."""

import json
from pathlib import Path
from typing import Any

_VECTORS = Path(__file__).parent / "vectors"


def vectors(pillar: str, name: str) -> dict[str, Any]:
    return json.loads((_VECTORS / pillar / f"{name}.json").read_text())
