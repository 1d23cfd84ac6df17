"""Read the configuration and processor of a model from a folder or from the Hub."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, AutoProcessor, ProcessorMixin
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from forgetbench.config import ModelConfig
from forgetbench.core.errors import UserError, is_file_error, reading, reason
from forgetbench.core.json_files import AGAIN, read_json
from forgetbench.core.limits import limited
from forgetbench.core.network import hub_unreachable_reason, not_found_message
from forgetbench.core.paths import EMBEDDED
from forgetbench.models.chat_template import MAX_CHARACTERS, ChatTemplate
from forgetbench.models.declared import check_sizes
from forgetbench.models.template_check import ANOTHER, check_template
from forgetbench.models.weight_files import CONFIG, TOKENIZER, check_settings, check_weights


def resolve_path(path: str) -> str:
    """Turn `embedded:<name>` into the folder inside the package; return other paths unchanged.

    Raises:
        UserError: the package has no such folder, or the path is not a valid file name.
    """
    if not path.startswith("embedded:"):
        with reading(f"model.path={path}", "give a folder, or the id of a model on the Hub"):
            Path(path).is_dir()  # raises for an invalid file name
        return path
    folder = EMBEDDED / path.removeprefix("embedded:")
    if not folder.is_dir():
        raise UserError(f"model.path={path}: the package ships no such model (looked in {folder}).")
    return str(folder)


def load_config(config: ModelConfig) -> Any:
    """The model's transformers configuration; no weights are read."""
    return from_pretrained(AutoConfig, config)


def load_processor(config: ModelConfig) -> Any:
    """Load the processor with the configured chat template, without a video processor.

    Raises:
        UserError: the path holds no processor with images, or the chat template renders conversations incorrectly.
    """
    family = load_config(config).model_type
    processor = from_pretrained(_processor_class(family), config)
    # A processor saved under an unknown class name is loaded as a bare tokenizer, without a warning.
    if not isinstance(processor, ProcessorMixin):
        raise UserError(
            f"model.path={config.path} gave a {type(processor).__name__}, not a processor with images; "
            "check its processor_config.json."
        )
    if config.chat_template is not None:
        processor.chat_template = _read_template(config.chat_template)
    _check_template(processor, config)
    return processor


def _read_template(path: str) -> str:
    relative = path.removeprefix("embedded:")
    file = Path(path) if relative == path else EMBEDDED / relative
    with reading(f"model.chat_template={path}", "give the path of a Jinja file (.jinja)"):
        if not file.is_file():  # reading a FIFO would block
            raise FileNotFoundError("there is no such file")
        with file.open(encoding="utf-8") as text:
            template = text.read(MAX_CHARACTERS + 1)
        if not template.strip():
            raise ValueError("it is empty")
        return template


def _check_template(processor: Any, config: ModelConfig) -> None:
    """Refuse a template that renders conversations incorrectly, before anything runs."""
    is_configured = config.chat_template is not None
    source = f"model.chat_template={config.chat_template}" if is_configured else f"The chat template of {config.path}"
    try:
        with limited():
            template = ChatTemplate(processor)
            check_template(template, source)
            system_turn_problem = template.system_turn_problem if config.system_prompt is not None else ""
    except ValueError as error:
        message = str(error) if str(error).startswith(source) else f"{source} {error}; {ANOTHER}"
        raise UserError(f"{message}.") from error
    if system_turn_problem:
        raise UserError(f"model.system_prompt: {system_turn_problem}.")


class _NoVideo:
    """A placeholder for a processor's video processor; all its settings are None."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


_NO_VIDEO = _NoVideo()


class _WithoutVideo(ProcessorMixin):
    """Mixin, after the family's processor class, that leaves out the video processor, which needs torchvision."""

    video_processor = _NO_VIDEO
    _signature: tuple[str, ...]
    """The components, in the order of the family's `__init__`."""

    def __init__(self, *parts: Any, **kwargs: Any) -> None:
        parent: Any = super()
        parent.__init__(*(part for part in parts if part is not _NO_VIDEO), **kwargs)

    @classmethod
    def get_attributes(cls) -> list[str]:
        return [name for name in cls._signature if name != "video_processor"]

    @classmethod
    def from_args_and_dict(cls, args: Any, processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        parts = dict(zip(cls.get_attributes(), args, strict=True))
        all_parts = [parts.get(name, _NO_VIDEO) for name in cls._signature]
        return super().from_args_and_dict(all_parts, processor_dict, **kwargs)


def _processor_class(family: str) -> Any:
    """The class that loads a family's processor: AutoProcessor, or the family's class without its video processor."""
    name = PROCESSOR_MAPPING_NAMES.get(family)
    processor_class = getattr(transformers, name, None) if isinstance(name, str) else None
    if processor_class is None or "video_processor" not in processor_class.get_attributes():
        return AutoProcessor
    names = vars(sys.modules[processor_class.__module__])
    if "num2words" in names:
        # SmolVLM's processor requires this package, but uses it only for the number of a video's frames.
        names["num2words"] = names["num2words"] or _NO_VIDEO
    return type(
        processor_class.__name__,
        (processor_class, _WithoutVideo),
        {"_signature": tuple(processor_class.get_attributes())},
    )


def from_pretrained(cls: Any, config: ModelConfig, **kwargs: Any) -> Any:
    """Call `cls.from_pretrained` with the configured path.

    Raises:
        UserError: the path holds no such object, or the Hub cannot be reached.
    """
    path = resolve_path(config.path)
    try:
        _check_available(path, config)
        if Path(path).is_dir():
            check_settings(Path(path))
        if settings := base_file(config, CONFIG):
            check_sizes(settings)
        trusted = config.trust_remote_code
        with _without_report():
            return cls.from_pretrained(path, revision=config.revision, trust_remote_code=trusted, **kwargs)
    except BaseException as error:
        if not is_file_error(error):
            raise
        raise UserError(f"Cannot load model.path={config.path}: {_cause(error, Path(path))}") from error


_WRONG_TYPE_ERRORS = (TypeError, AttributeError, LookupError, AssertionError)


def _cause(error: BaseException, path: Path) -> str:
    """Explain a library's error about the files of a model."""
    if "torchvision" in str(error).lower():
        return f"{reason(error)} Its pictures need torchvision: pip install 'forgetbench[torchvision]'."
    if not path.is_dir() and path.is_absolute():
        return "there is no such folder."
    if not path.is_dir():
        return f"there is no such folder, and as a Hub id it cannot be had (downloaded? network up?): {reason(error)}"
    if (path / TOKENIZER).is_file():
        read_json(path / TOKENIZER)  # the file is large, so it is not checked before loading
    if type(error) is Exception:  # raised by the tokenizers library
        return f"{TOKENIZER}: {reason(error)}; {AGAIN}."
    if isinstance(error, _WRONG_TYPE_ERRORS):
        return f"one of its files holds something of another kind ({reason(error)}); {AGAIN} all of them."
    return reason(error)


class _NoReport(logging.Filter):
    """Removes transformers' report of missing tensors from the log; `load` reports them."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()


@contextmanager
def _without_report() -> Iterator[None]:
    """Suppress the report while we load a model; other models of the calling program are still reported."""
    logger, no_report = transformers.utils.logging.get_logger("transformers.modeling_utils"), _NoReport()
    logger.addFilter(no_report)
    try:
        yield
    finally:
        logger.removeFilter(no_report)


def _check_available(path: str, config: ModelConfig) -> None:
    """Refuse a path that is neither a folder nor in the cache, if the Hub cannot be reached."""
    if Path(path).is_dir() or try_to_load_from_cache(path, "config.json", revision=config.revision):
        return
    if unreachable_reason := hub_unreachable_reason():
        revision = f" --revision {config.revision}" if config.revision else ""
        raise UserError(
            f"Cannot load model.path={config.path}: {not_found_message(path, unreachable_reason, revision)}"
        )


def check_base_weights(model: ModelConfig) -> None:
    """Refuse weights on this machine that are truncated or missing, before they are loaded.

    Raises:
        UserError: names the file.
    """
    if settings := base_file(model, "config.json"):
        check_weights(settings.parent, may_lack=not Path(resolve_path(model.path)).is_dir())


def base_file(model: ModelConfig, name: str) -> Path | None:
    """A file of a model, in its folder or in the Hub's cache; None if it is not on this machine."""
    folder = Path(resolve_path(model.path))
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model.path, name, revision=model.revision)
    except (HFValidationError, OSError):  # no Hub id, or an invalid file name
        return None
    return Path(cached) if isinstance(cached, str) else None
