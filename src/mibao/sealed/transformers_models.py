"""Sealed checkpoints as transformers' models, configurations and tokenizers, nothing of them on any disk.

transformers takes an open state dict and a configuration in place of a folder; the tokenizers library reads its JSON
from memory. So no file, temporary or in memory, stands between. What a sealed checkpoint cannot bring is code.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mibao.crypto.keys import SignerPublicKey
from mibao.errors import InputError, MissingExtra
from mibao.sealed import torch_tensors
from mibao.sealed.model import open_model
from mibao.sealed.opening import OpenedFile
from mibao.sealed.recipients import Identity
from mibao.sealed.side_files import read_json, read_side_file
from mibao.sealed.source_places import ModelPlace
from mibao.sealed.state_file import VersionState

if TYPE_CHECKING:
    import torch

NO_CODE = "trust_remote_code: a sealed model brings weights and text, never code; install the model's code yourself"
_IMPLEMENTATIONS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
_NOT_FOR_TOKENIZERS = frozenset(
    {"tokenizer_class", "auto_map", "tokenizer_file", "vocab_file", "merges_file", "added_tokens_decoder", "backend",
     "name_or_path", "is_local", "tokenizer_object"}
)  # fmt: skip


def from_sealed(
    cls: type,
    path: ModelPlace,
    *,
    identity: Identity,
    signer: SignerPublicKey,
    min_version: int | None = None,
    state: VersionState | None = None,
    config: Any = None,
    dtype: str | torch.dtype | None = None,
    device_map: Any = None,
    max_memory: dict[int | str, int | str] | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """What ``cls.from_pretrained`` would make of the checkpoint, ready to run, without a byte of it on any disk.

    Args:
        cls: ``AutoModelForCausalLM`` or another class of models; or ``AutoTokenizer``, ``AutoConfig`` or
            ``GenerationConfig`` for the files that were sealed beside the weights.
        config: A configuration in place of the sealed one.
        dtype: As in ``from_pretrained``; None keeps the checkpoint's. On the CPU the parameters are then views of the
            one buffer that was decrypted into.
        device_map: As in ``from_pretrained``; a map that puts weights on the disk is refused.
        max_memory: As in ``from_pretrained``.
        attn_implementation: As in ``from_pretrained``, but for kernels from a hub.
        trust_remote_code: Refused.

    Raises:
        InputError: not a sealed checkpoint, code asked for, a model that transformers does not know or that the
            weights do not fill, or an option refused.
        IntegrityError: names the part of the file that was altered; no model is made.
        KeyMismatch: not sealed to ``identity``, or not signed by ``signer``.
        MissingExtra: transformers is not installed.
    """
    if trust_remote_code:
        raise InputError(NO_CODE)
    transformers = import_transformers()
    with open_model(path, identity=identity, signer=signer, min_version=min_version, state=state) as model:
        opened = model.opened
        if issubclass(cls, transformers.AutoTokenizer | transformers.PreTrainedTokenizerFast):
            return _tokenizer(transformers, cls, opened)
        if issubclass(cls, transformers.GenerationConfig):
            return _generation_config(transformers, opened)
        config = _config(transformers, opened) if config is None else config
        if issubclass(cls, transformers.AutoConfig | transformers.PreTrainedConfig):
            return config
        made = _model_class(transformers, cls, config)
        options = {"device_map": device_map, "max_memory": max_memory}
        if attn_implementation is not None:
            options["attn_implementation"] = attn_implementation
        _check_options(options)
        weights = torch_tensors.tensors(opened, device="cpu")
        found = _filled(made, weights, config=config, dtype=dtype, **options)
        generation = _generation_config(transformers, opened) if found.can_generate() else None
        if generation is not None:
            found.generation_config = generation
        return found


def import_transformers() -> Any:
    """transformers, with PyTorch beneath. Raises ``MissingExtra`` if either is not installed."""
    try:
        importlib.import_module("torch")
        return importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtra("loading into transformers", extra="transformers") from error


def _filled(made: Any, weights: dict[str, torch.Tensor], **options: Any) -> Any:
    given = {name: value for name, value in options.items() if value is not None}
    try:
        found, info = made.from_pretrained(
            None, state_dict=weights, output_loading_info=True, local_files_only=True, **given
        )
    except (ValueError, RuntimeError, ImportError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(f"transformers does not load this model: {first}") from error
    absent = sorted(info["missing_keys"])
    if absent:
        raise InputError(f"model: has no {absent[0]!r}, one of {len(absent)} weights that {made.__name__} needs")
    return found


def _config(transformers: Any, opened: OpenedFile) -> Any:
    found = read_json(opened, "config.json")
    if found is None:
        raise InputError("model: no config.json was sealed with it; seal the checkpoint's folder, or pass a config")
    kind = found.get("model_type")
    if not isinstance(kind, str) or kind not in transformers.CONFIG_MAPPING:
        raise InputError(f"model type {kind!r}: transformers has no code of its own for it. {NO_CODE}")
    for name in ("auto_map", *_IMPLEMENTATIONS):  # which code runs is the caller's choice
        found.pop(name, None)
    strict = importlib.import_module("huggingface_hub.errors").StrictDataclassError
    try:
        return transformers.CONFIG_MAPPING[kind].from_dict(found)
    except (ValueError, TypeError, strict) as error:
        raise InputError(f"config.json: not a configuration of {kind!r}") from error


def _model_class(transformers: Any, cls: Any, config: Any) -> Any:
    if issubclass(cls, transformers.PreTrainedModel):
        return cls
    mapping = getattr(cls, "_model_mapping", None)
    if mapping is None:
        raise InputError(f"{cls.__name__}: expected a class of models, configurations or tokenizers of transformers")
    if type(config) not in mapping:
        raise InputError(f"{cls.__name__}: does not take a model of type {config.model_type!r}")
    found = mapping[type(config)]
    if not isinstance(found, list | tuple):
        return found
    named = {each.__name__: each for each in found}
    return next((named[name] for name in config.architectures or () if name in named), found[0])


def _check_options(options: dict[str, Any]) -> None:
    device_map = options["device_map"]
    if device_map == "disk" or (isinstance(device_map, dict) and "disk" in device_map.values()):
        raise InputError("device_map: weights on the disk would stand there in clear")
    if "/" in (options.get("attn_implementation") or ""):
        raise InputError(f"attn_implementation: a kernel from a hub is code that nobody here signed. {NO_CODE}")


def _generation_config(transformers: Any, opened: OpenedFile) -> Any:
    found = read_json(opened, "generation_config.json")
    return None if found is None else transformers.GenerationConfig.from_dict(found)


def _tokenizer(transformers: Any, cls: Any, opened: OpenedFile) -> Any:
    data = read_side_file(opened, "tokenizer.json")
    if data is None:
        raise InputError("model: no tokenizer.json was sealed with it; only tokenizers of that format are read")
    if not issubclass(cls, transformers.AutoTokenizer) and cls is not transformers.PreTrainedTokenizerFast:
        raise InputError(f"{cls.__name__}: expected AutoTokenizer or PreTrainedTokenizerFast")
    settings = (read_json(opened, "tokenizer_config.json") or {}) | (read_json(opened, "special_tokens_map.json") or {})
    template = read_side_file(opened, "chat_template.jinja")
    if template is not None:
        settings["chat_template"] = template.decode("utf-8", "strict")
    backend = importlib.import_module("tokenizers").Tokenizer.from_buffer(data)
    given = {name: _token(transformers, value) for name, value in settings.items() if name not in _NOT_FOR_TOKENIZERS}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **given)


def _token(transformers: Any, value: Any) -> Any:
    """A special token as the tokenizer takes it: JSON holds some as objects with flags."""
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
        return transformers.AddedToken(value["content"], **{flag: value[flag] for flag in flags if flag in value})
    if isinstance(value, list):
        return [_token(transformers, each) for each in value]
    return value
