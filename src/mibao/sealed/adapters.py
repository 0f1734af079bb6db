"""Sealed PEFT adapters (LoRA and its kin) onto a model that is there already, nothing of them on any disk."""

from __future__ import annotations

import importlib
from typing import Any

from mibao.crypto.keys import SignerPublicKey
from mibao.errors import InputError, MissingExtra
from mibao.sealed import torch_tensors
from mibao.sealed.model import open_model
from mibao.sealed.recipients import Identity
from mibao.sealed.side_files import read_json
from mibao.sealed.source_places import ModelPlace
from mibao.sealed.state_file import VersionState


def adapter_from_sealed(
    model: Any,
    path: ModelPlace,
    *,
    identity: Identity,
    signer: SignerPublicKey,
    min_version: int | None = None,
    state: VersionState | None = None,
    adapter_name: str = "default",
    is_trainable: bool = False,
) -> Any:
    """``model`` with the adapter whose folder, as PEFT's ``save_pretrained`` writes it, was sealed.

    All of the adapter is checked and decrypted before ``model`` is touched; if it does not fit, ``model`` is given
    back as it was.

    Raises:
        InputError: not a sealed adapter, one of another model, or one that would import code.
        IntegrityError: names the part of the file that was altered.
        KeyMismatch: not sealed to ``identity``, or not signed by ``signer``.
        MissingExtra: peft is not installed.
    """
    try:
        peft = importlib.import_module("peft")
    except ImportError as error:
        raise MissingExtra("loading an adapter", extra="transformers") from error
    with open_model(path, identity=identity, signer=signer, min_version=min_version, state=state) as sealed:
        settings = read_json(sealed.opened, "adapter_config.json")
        if settings is None:
            raise InputError("model: no adapter_config.json was sealed with it; seal the adapter's folder")
        weights = torch_tensors.tensors(sealed.opened, device="cpu")
    config = _config(peft, settings)
    config.inference_mode = not is_trainable
    try:
        adapted = peft.get_peft_model(model, config, adapter_name=adapter_name)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"adapter: does not fit this model ({_first_line(error)})") from error
    try:
        _fill(peft, adapted, weights, config, adapter_name)
    except BaseException:
        adapted.unload()
        raise
    return adapted if is_trainable else adapted.eval()


def _config(peft: Any, settings: dict[str, Any]) -> Any:
    if settings.get("megatron_config"):
        raise InputError("adapter_config.json: megatron_config names code to import; an adapter brings none")
    settings.pop("auto_mapping", None)  # the class and module of the base model, which is here already
    try:
        return peft.PeftConfig.from_peft_type(**settings)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("adapter_config.json: not one that this version of peft knows") from error


def _fill(peft: Any, adapted: Any, weights: dict[str, Any], config: Any, adapter_name: str) -> None:
    try:
        result = peft.set_peft_model_state_dict(adapted, weights, adapter_name=adapter_name)
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"adapter: does not fit this model ({_first_line(error)})") from error
    prefix = importlib.import_module("peft.mapping").PEFT_TYPE_TO_PREFIX_MAPPING.get(config.peft_type, "")
    absent = [name for name in result.missing_keys if prefix in name and adapter_name in name]
    unknown = list(result.unexpected_keys)
    if absent or unknown:
        raise InputError(f"adapter: {len(absent)} of the weights that it needs are not there, {len(unknown)} too many")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
