"""What each package of mibao exports, from its ``__all__``: run this file to write ``exported_names.json``."""

import importlib
import json
import pkgutil
from pathlib import Path

PINNED = Path(__file__).with_name("exported_names.json")


def exported_names() -> dict[str, list[str]]:
    """The exported names of ``mibao`` and of each package under it, sorted."""
    root = importlib.import_module("mibao")
    packages = [info.name for info in pkgutil.walk_packages(root.__path__, "mibao.") if info.ispkg]
    modules = {name: importlib.import_module(name) for name in ["mibao", *packages]}
    return {name: sorted(getattr(module, "__all__", ())) for name, module in sorted(modules.items())}


def main() -> None:
    """Pin the names as they are now."""
    PINNED.write_text(json.dumps(exported_names(), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
