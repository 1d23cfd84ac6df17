"""Check a processor against the model, with a test picture and its tokens, before anything runs."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image

from forgetbench.core.errors import UserError, reading
from forgetbench.core.json_files import AGAIN
from forgetbench.core.limits import limited
from forgetbench.core.records import ImageRef, Speaker, Turn
from forgetbench.models.chat_template import QUESTION, ChatTemplate
from forgetbench.models.hidden import config_image_token

_SIDE = 64
_FIX = f"{AGAIN} its preprocessor_config.json, processor_config.json and tokenizer"


def check_tokens(processor: Any, settings: Any, source: str) -> None:
    """Refuse token ids beyond the embeddings, which would stop a GPU with an unclear error.

    Args:
        processor: any ProcessorMixin with a tokenizer.
        settings: the model's configuration.
        source: name of the model in messages.

    Raises:
        UserError: the tokenizer or the picture token belongs to another model.
    """
    rows, token = int(settings.get_text_config().vocab_size), config_image_token(settings)
    if (last := max(processor.tokenizer.get_vocab().values(), default=0)) >= rows:
        raise UserError(
            f"{source}: its tokenizer counts tokens up to {last:,} and its embeddings have {rows:,} rows; is it the "
            "tokenizer of another model? Copy the whole folder again, or resize the embeddings and save them."
        )
    if not -1 <= token < rows:
        raise UserError(
            f"{source}: its config.json gives pictures the token {token}, and its embeddings have {rows:,} rows; "
            f"{AGAIN}."
        )


def check_pictures(processor: Any, settings: Any, source: str) -> None:
    """Refuse a processor that cannot process a picture, or whose output the model does not recognise as a picture.

    The check may change the padding settings of the processor's tokenizer.

    Args:
        processor: has no chat template or a checked one.
        settings: the model's configuration.
        source: name of the model in messages.

    Raises:
        UserError: says what is wrong.
    """
    picture = Image.linear_gradient("L").resize((_SIDE, _SIDE)).convert("RGB")
    with reading(f"{source}: its processor", _FIX), limited():
        text = ChatTemplate(processor).render([Turn(Speaker.user, (ImageRef("", "gradient", b""), QUESTION))])
        inputs = processor(text=[text], images=[[picture]], return_tensors="pt")
        values = [value for value in inputs.values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
        token = config_image_token(settings)
        is_shown = token == -1 or bool(inputs["input_ids"].eq(token).any())
    if not values or not all(bool(torch.isfinite(value).all()) and value.numel() for value in values):
        raise UserError(f"{source}: its processor makes no finite numbers of a picture; {_FIX}.")
    if not is_shown:
        raise UserError(
            f"{source}: its processor writes no token {token} for a picture, which its config.json says "
            f"stands for one; {_FIX}."
        )
