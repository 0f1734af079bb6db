"""Shapes and types in the package's annotations are checked while its tests run."""

from jaxtyping import install_import_hook

install_import_hook("mibao", "beartype.beartype")
