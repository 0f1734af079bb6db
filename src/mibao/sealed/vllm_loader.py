"""Sealed models in vLLM: ``--load-format mibao``, registered by the entry point ``vllm.general_plugins``.

vLLM is given a folder with the configuration and tokenizer, which it reads itself, and the sealed file for the
weights::

    MIBAO_IDENTITY=mibao1... vllm serve llama-config/ --load-format mibao --model-loader-extra-config \
        '{"path": "llama.mibao", "signer": "mibao1...", "min_version": 3}'

The private key stands in the environment, not among the options: vLLM writes its options to its log. ``identity`` names
another one, as ``--key`` of the command line does: a key's file, ``env:NAME``, ``pkcs11:...``, ``kms:KEY``, or others'.

Source: vLLM's ``BaseModelLoader`` and ``register_model_loader``; https://github.com/vllm-project/vllm/issues/13042.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mibao.crypto.keys import SignerPublicKey, decode_signer
from mibao.errors import InputError
from mibao.sealed import torch_modules, torch_tensors
from mibao.sealed.model import open_model
from mibao.sealed.opening import OpenedFile
from mibao.sealed.state_file import VersionState
from mibao.sealed.unlock_named import identity

if TYPE_CHECKING:
    import torch

LOAD_FORMAT = "mibao"
IDENTITY = "env:MIBAO_IDENTITY"
_OPTIONS = frozenset({"path", "signer", "min_version", "state", "identity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderOptions:
    """What ``--model-loader-extra-config`` says: the file, who signed it, the lowest version, and where keys come from.

    ``state`` is the path of a :class:`VersionState`; ``identity`` names who opens and is never the key itself.
    """

    path: str
    signer: SignerPublicKey
    min_version: int | None
    state: str | None
    identity: str


def read_options(given: Any) -> LoaderOptions:
    """The options in ``given``. Raises ``InputError`` if one is unknown, absent or of another type."""
    if not isinstance(given, dict) or not {"path", "signer"} <= given.keys() <= _OPTIONS:
        raise InputError(f"model_loader_extra_config: expected path and signer, at most {', '.join(sorted(_OPTIONS))}")
    version, texts = given.get("min_version"), [value for name, value in given.items() if name != "min_version"]
    if (version is not None and type(version) is not int) or not all(isinstance(text, str) for text in texts):
        raise InputError("model_loader_extra_config: expected min_version as a number and all else as text")
    return LoaderOptions(
        path=given["path"],
        signer=decode_signer(given["signer"]),
        min_version=version,
        state=given.get("state"),
        identity=given.get("identity", IDENTITY),
    )


def load_weights(model: Any, options: LoaderOptions, *, quantized: bool = False) -> None:
    """Hand ``model.load_weights`` each tensor of the sealed file, decrypted once every chunk of it has been checked.

    If this raises, the parameters are wiped and the model refuses to run.

    Raises:
        InputError: not a sealed model, no such key, or parameters that were given nothing.
        IntegrityError: names the part of the file that was altered.
        KeyMismatch: not sealed to this key, or not signed by the pinned signer.
    """
    torch = torch_tensors.import_torch()
    with torch_modules.refusing_until_done(model), torch.no_grad():
        state = None if options.state is None else VersionState(options.state)
        try:
            with open_model(
                options.path,
                identity=identity(options.identity),
                signer=options.signer,
                min_version=options.min_version,
                state=state,
            ) as sealed:
                loaded = model.load_weights(_weights(sealed.opened))
            _check_all_loaded(model, None if quantized else loaded)
        except BaseException:
            for each in model.parameters():
                each.zero_()
            raise


def loader_class(base: type) -> type:
    """The loader, as a subclass of vLLM's ``BaseModelLoader``."""

    class SealedModelLoader(base):  # type: ignore[misc]  # vLLM is not there when types are checked
        """Weights out of a sealed model."""

        def __init__(self, load_config: Any) -> None:
            super().__init__(load_config)
            self.options = read_options(load_config.model_loader_extra_config)

        def download_model(self, model_config: Any) -> None:
            """Nothing: the sealed file is read where it lies."""

        def load_weights(self, model: Any, model_config: Any) -> None:
            """:func:`load_weights` as vLLM calls it."""
            load_weights(model, self.options, quantized=getattr(model_config, "quantization", None) is not None)

    return SealedModelLoader


def register() -> None:
    """Make ``--load-format mibao`` known: what vLLM calls in each of its processes."""
    loaders = importlib.import_module("vllm.model_executor.model_loader")
    loaders.register_model_loader(LOAD_FORMAT)(loader_class(loaders.BaseModelLoader))


def _weights(opened: OpenedFile) -> Iterator[tuple[str, torch.Tensor]]:
    for wanted in torch_tensors.wanted_tensors(opened, {}):
        yield wanted.spec.name, torch_tensors.load_wanted(opened, [wanted], device="cpu")[0]


def _check_all_loaded(model: Any, loaded: set[str] | None) -> None:
    if loaded is None:  # vLLM's own loader asks no more either: quantized models rename what they load
        return
    absent = sorted({name for name, _ in model.named_parameters()} - loaded)
    if absent:
        raise InputError(f"model: has no {absent[0]!r}, one of {len(absent)} weights that vLLM needs")
