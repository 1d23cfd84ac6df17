"""Read what a model's folder or Hub id holds besides weights: configuration and processor."""

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
from forgetbench.models.chat_template import MOST_LETTERS, ChatTemplate
from forgetbench.models.declared import check_sizes
from forgetbench.models.template_check import ANOTHER, check_template
from forgetbench.models.weight_files import CONFIG, TOKENIZER, check_settings, check_weights


def resolve_path(path: str) -> str:
    """Turn `embedded:<name>` into the folder inside the package; leave other paths alone.

    Raises:
        UserError: the package has no such folder, or no disk takes the name.
    """
    if not path.startswith("embedded:"):
        with reading(f"model.path={path}", "give a folder, or the id of a model on the Hub"):
            Path(path).is_dir()  # raises for a name that no disk takes
        return path
    folder = EMBEDDED / path.removeprefix("embedded:")
    if not folder.is_dir():
        raise UserError(f"model.path={path}: the package ships no such model (looked in {folder}).")
    return str(folder)


def load_config(config: ModelConfig) -> Any:
    """The model's own configuration (no weights are read)."""
    return from_pretrained(AutoConfig, config)


def load_processor(config: ModelConfig) -> Any:
    """Load the processor, without its video half where the family has one, under the chosen chat template.

    Raises:
        UserError: the path holds no processor with images, or the chat template misprints a conversation.
    """
    family = load_config(config).model_type
    processor = from_pretrained(_processor_class(family), config)
    # A processor saved under an unknown class name comes back as a bare tokenizer, without a word.
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
    own = path.removeprefix("embedded:")
    file = Path(path) if own == path else EMBEDDED / own
    with reading(f"model.chat_template={path}", "give the path of a Jinja file (.jinja)"):
        if not file.is_file():  # a FIFO never ends
            raise FileNotFoundError("there is no such file")
        with file.open(encoding="utf-8") as text:
            found = text.read(MOST_LETTERS + 1)
        if not found.strip():
            raise ValueError("it is empty")
        return found


def _check_template(processor: Any, config: ModelConfig) -> None:
    """Refuse a template that would misprint a conversation, before anything runs."""
    given = config.chat_template is not None
    source = f"model.chat_template={config.chat_template}" if given else f"The chat template of {config.path}"
    try:
        with limited():
            template = ChatTemplate(processor)
            check_template(template, source)
            against_system_turns = template.against_system_turns if config.system_prompt is not None else ""
    except ValueError as error:
        said = str(error) if str(error).startswith(source) else f"{source} {error}; {ANOTHER}"
        raise UserError(f"{said}.") from error
    if against_system_turns:
        raise UserError(f"model.system_prompt: {against_system_turns}.")


class _NoVideo:
    """Stands where a processor expects its video processor; every setting of it is absent."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


_NO_VIDEO = _NoVideo()


class _ImagesOnly(ProcessorMixin):
    """A family's processor without its video half, which needs torchvision; mixed in after the family's own class."""

    video_processor = _NO_VIDEO
    _signature: tuple[str, ...]
    """The parts in the order in which the family's own `__init__` takes them."""

    def __init__(self, *parts: Any, **kwargs: Any) -> None:
        parent: Any = super()
        parent.__init__(*(part for part in parts if part is not _NO_VIDEO), **kwargs)

    @classmethod
    def get_attributes(cls) -> list[str]:
        return [name for name in cls._signature if name != "video_processor"]

    @classmethod
    def from_args_and_dict(cls, args: Any, processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        parts = dict(zip(cls.get_attributes(), args, strict=True))
        whole = [parts.get(name, _NO_VIDEO) for name in cls._signature]
        return super().from_args_and_dict(whole, processor_dict, **kwargs)


def _processor_class(family: str) -> Any:
    """What loads a family's processor: its own class without videos where it has them, AutoProcessor elsewhere."""
    name = PROCESSOR_MAPPING_NAMES.get(family)
    known = getattr(transformers, name, None) if isinstance(name, str) else None
    if known is None or "video_processor" not in known.get_attributes():
        return AutoProcessor
    names = vars(sys.modules[known.__module__])
    if "num2words" in names:
        # SmolVLM's refuses to be made without this package, which writes the number of a video's frames.
        names["num2words"] = names["num2words"] or _NO_VIDEO
    return type(known.__name__, (known, _ImagesOnly), {"_signature": tuple(known.get_attributes())})


def from_pretrained(cls: Any, config: ModelConfig, **kwargs: Any) -> Any:
    """What `cls` loads from the configured path.

    Raises:
        UserError: the path holds nothing of the kind, or it is on the Hub and out of reach.
    """
    path = resolve_path(config.path)
    try:
        _check_at_hand(path, config)
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


_OF_ANOTHER_KIND = (TypeError, AttributeError, LookupError, AssertionError)


def _cause(error: BaseException, path: Path) -> str:
    """What a library's error on the files of a model means."""
    if "torchvision" in str(error).lower():
        return f"{reason(error)} Its pictures need torchvision: pip install 'forgetbench[torchvision]'."
    if not path.is_dir() and path.is_absolute():
        return "there is no such folder."
    if not path.is_dir():
        return f"there is no such folder, and as a Hub id it cannot be had (downloaded? network up?): {reason(error)}"
    if (path / TOKENIZER).is_file():
        read_json(path / TOKENIZER)  # large, so that nobody else looks at it before it is loaded
    if type(error) is Exception:  # as the tokenizers library raises
        return f"{TOKENIZER}: {reason(error)}; {AGAIN}."
    if isinstance(error, _OF_ANOTHER_KIND):
        return f"one of its files holds something of another kind ({reason(error)}); {AGAIN} all of them."
    return reason(error)


class _NoReport(logging.Filter):
    """Takes out transformers' list of missing tensors, in colours and by their own names; `load` tells of them."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()


@contextmanager
def _without_report() -> Iterator[None]:
    """Withhold the list while a model of ours is read; a program that called us gets the others."""
    logger, no_report = transformers.utils.logging.get_logger("transformers.modeling_utils"), _NoReport()
    logger.addFilter(no_report)
    try:
        yield
    finally:
        logger.removeFilter(no_report)


def _check_at_hand(path: str, config: ModelConfig) -> None:
    """Refuse at once what is neither a folder nor downloaded, where the Hub cannot be asked."""
    if Path(path).is_dir() or try_to_load_from_cache(path, "config.json", revision=config.revision):
        return
    if unreachable_reason := hub_unreachable_reason():
        revision = f" --revision {config.revision}" if config.revision else ""
        raise UserError(
            f"Cannot load model.path={config.path}: {not_found_message(path, unreachable_reason, revision)}"
        )


def check_base_weights(model: ModelConfig) -> None:
    """Refuse weights on this machine that are cut short or not there, before anything is made of them.

    Raises:
        UserError: names the file.
    """
    if settings := base_file(model, "config.json"):
        check_weights(settings.parent, may_lack=not Path(resolve_path(model.path)).is_dir())


def base_file(model: ModelConfig, name: str) -> Path | None:
    """A file beside a model's weights, in its folder or in the Hub's cache; None if it is not on this machine."""
    folder = Path(resolve_path(model.path))
    if folder.is_dir():
        return folder / name if (folder / name).is_file() else None
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model.path, name, revision=model.revision)
    except (HFValidationError, OSError):  # no id, or a name that no disk takes
        return None
    return Path(cached) if isinstance(cached, str) else None
