"""Find the class names that a picture resembles most, by CLIP or SigLIP.

Shapes: B pictures, N names, D embedding, K nearest, P pixels of any layout.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import CONFIG_NAME
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

from forgetbench.core.errors import UserError
from forgetbench.core.network import hub_unreachable_reason, not_found_message
from forgetbench.models.tensors import tensors_digest

PADDING = {"clip": True, "siglip": "max_length"}
"""Model type -> padding of texts in its training; SigLIP attends to the padding."""
_TEXTS = 256
"""Names embedded at a time."""


@dataclass(frozen=True)
class Clip:
    """A model that embeds pictures and texts in the same space, in 32-bit floats, with its processors."""

    path: str
    model: Any
    image_processor: Any
    tokenizer: Any
    digest: str
    """sha256 over the weights and the settings of the image processor."""

    def tokens(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The model's inputs for texts, each [N, length]."""
        padding = PADDING[self.model.config.model_type]
        return dict(self.tokenizer(list(texts), padding=padding, truncation=True, return_tensors="pt"))

    def pixels(self, pictures: Sequence[Image.Image]) -> Tensor:
        """The model's inputs for pictures: [B, P...], on the CPU."""
        pixels_BP: Tensor = self.image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        return pixels_BP

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit embeddings of texts, [N, D]."""
        tokens = self.tokens(texts)
        parts = [
            self.model.get_text_features(
                **{name: values[start : start + _TEXTS].to(self.model.device) for name, values in tokens.items()}
            ).pooler_output
            for start in range(0, len(texts), _TEXTS)
        ]
        return torch.nn.functional.normalize(torch.cat(parts), dim=-1)

    @torch.inference_mode()
    def nearest(self, pixels_BP: Tensor, texts_ND: Tensor, k: int) -> Tensor:
        """Indices of the texts with the highest cosine similarity to each picture, best first: [B, K], on the CPU."""
        features_BD = self.model.get_image_features(pixel_values=pixels_BP.to(self.model.device)).pooler_output
        cosines_BN = torch.nn.functional.normalize(features_BD, dim=-1) @ texts_ND.T
        # Stable, so that equal texts stay in the same order on every machine.
        return cosines_BN.sort(dim=-1, descending=True, stable=True).indices[:, :k].cpu()


def load_clip(path: str) -> Clip:
    """Load a CLIP or SigLIP checkpoint, on the GPU if there is one.

    Args:
        path: Hub id or folder in the Hub's layout, with weights as safetensors.

    Raises:
        UserError: there is no such checkpoint, or it is a model of another type.
    """
    try:
        if (
            not Path(path).is_dir()
            and not try_to_load_from_cache(path, CONFIG_NAME)
            and (unreachable := hub_unreachable_reason())
        ):
            raise UserError(f"Cannot load --clip {path}: {not_found_message(path, unreachable)}")
        family = AutoConfig.from_pretrained(path, trust_remote_code=False).model_type
        if family not in PADDING:
            raise UserError(
                f"--clip {path} is a model of type '{family}'; it must be one of {', '.join(PADDING)}, "
                "such as openai/clip-vit-large-patch14."
            )
        model = AutoModel.from_pretrained(path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False)
        # The Pillow backend always: torchvision's resizes a little differently, and may not be installed.
        image_processor = AutoImageProcessor.from_pretrained(path, backend="pil", trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        if not Path(path).is_dir():
            reason = f"there is no such folder, and as a Hub id it cannot be had (downloaded? network up?): {reason}"
        raise UserError(f"Cannot load --clip {path}: {reason}") from error
    settings = json.loads(image_processor.to_json_string())
    digest = tensors_digest(model.state_dict(), settings)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return Clip(path, model.eval().to(device), image_processor, tokenizer, digest)
