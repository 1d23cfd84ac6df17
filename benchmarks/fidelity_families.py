"""Folders with the tokenizer and the processor of three families, to their published layout but small; no weights.

Each is read by forgetbench, LLaMA-Factory and TRL alike. The pre-processing of text, the special tokens, and how a
picture becomes tokens are the family's; the vocabulary is trained on the conversations' own texts, and a picture takes
a few tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import GemmaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast, Qwen2Tokenizer

from benchmarks.fidelity_causes import PUBLISHED, SAME
from benchmarks.fidelity_items import texts
from forgetbench.core.paths import EMBEDDED

VOCABULARY = 700
BLANK = "▁"
"""The blank in SentencePiece's vocabularies."""
WORDS = Regex(rf"{BLANK}?[^{BLANK}\n0-9]+|{BLANK}|[0-9]")
"""As SentencePiece learns: no piece goes over the end of a word, no piece has two digits."""
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Family:
    """One family of models."""

    name: str
    factory_template: str
    """LLaMA-Factory's name of its chat template."""
    build: Callable[[Path], None]
    """Writes its folder."""
    templates: dict[str, Path]
    """Chat templates in Jinja, by what they say."""

    def template(self, kind: str) -> Path:
        """The file of one chat template."""
        return self.templates[kind]


def llava(folder: Path) -> None:
    """LLaVA-1.5: Llama's pieces, a blank before every stretch of text between special tokens, bytes for the rest."""
    pieces, merges = sentencepiece(("<unk>", "<s>", "</s>"))
    tokenizer = Tokenizer(models.BPE(vocab=pieces, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(BLANK), normalizers.Replace(" ", BLANK)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", pieces["<s>"])]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(BLANK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
    )
    pixels = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 28},
        "crop_size": {"height": 28, "width": 28},
    }
    settings = {
        "patch_size": 14,
        "num_additional_image_tokens": 1,
        "vision_feature_select_strategy": "default",
        "image_token": "<image>",
    }
    publish(folder, transformers.LlavaConfig(), fast, "LlavaProcessor", pixels, settings)


def qwen2_vl(folder: Path) -> None:
    """Qwen2-VL, as Qwen2.5-VL: bytes, cut by a pattern before they are merged; blocks of 28x28 pixels are tokens."""
    split = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    pieces, merges = trained(texts(), split, pre_tokenizers.ByteLevel.alphabet())
    names = ("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end")
    vision = ("vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|{name}|>" for name in (*names, *vision))]
    tokenizer = Qwen2Tokenizer(
        {piece: place for place, piece in enumerate(pieces)},
        merges,
        eos_token="<|im_end|>",
        extra_special_tokens=special,
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ("<tool_call>", "</tool_call>")])
    pixels = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "min_pixels": 56 * 56,
        "max_pixels": 28 * 28 * 1280,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
    }
    publish(folder, transformers.Qwen2VLConfig(), tokenizer, "Qwen2VLProcessor", pixels, {})


def gemma3(folder: Path) -> None:
    """Gemma 3: no blank before the text, runs of line breaks as tokens, bytes for the rest."""
    pieces, merges = sentencepiece(("<pad>", "<eos>", "<bos>", "<unk>", "<mask>"))
    marks = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = GemmaTokenizer(pieces, merges, eos_token="<end_of_turn>", extra_special_tokens=marks)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>", "<eos>"]})
    runs = ["\n" * length for length in range(1, 32)]
    tags = [f"<{slash}{tag}>" for tag in ("b", "i", "table", "h1") for slash in ("", "/")]
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in (*runs, *tags)])
    pixels = {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 28, "width": 28}}
    publish(folder, transformers.Gemma3Config(), tokenizer, "Gemma3Processor", pixels, {"image_seq_length": 4})


FAMILIES = (
    Family(
        "LLaVA-1.5",
        "llava",
        llava,
        {SAME: EMBEDDED / "templates" / "llava_1_5.jinja", PUBLISHED: TEMPLATES / "llava_published.jinja"},
    ),
    Family("Qwen2-VL, Qwen2.5-VL", "qwen2_vl", qwen2_vl, {SAME: TEMPLATES / "qwen2_vl_llamafactory.jinja"}),
    Family(
        "Gemma 3",
        "gemma3",
        gemma3,
        {SAME: TEMPLATES / "gemma3_llamafactory.jinja", PUBLISHED: TEMPLATES / "gemma3_published.jinja"},
    ),
)


def sentencepiece(specials: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary as SentencePiece's, and its merges: special tokens, the 256 bytes, runs of blanks, learnt pieces.

    Emoji and Korean are left to the bytes, and so is every line break.
    """
    lines = [line for text in texts() for line in text.replace(" ", BLANK).splitlines()]
    known = ["".join(sign for sign in BLANK + line if sign < "\uac00") for line in lines]
    ascii_signs = [chr(code) for code in range(33, 127)]
    pieces, merges = trained(known, pre_tokenizers.Split(WORDS, "isolated"), [BLANK, *ascii_signs])
    runs = [BLANK * length for length in (2, 4, 8)]
    vocabulary = {piece: place for place, piece in enumerate((*specials, *BYTES, *runs, *pieces))}
    return vocabulary, [*((run[: len(run) // 2],) * 2 for run in runs), *merges]


def trained(
    lines: Iterable[str], split: PreTokenizer, alphabet: Sequence[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Learn pieces and merges by byte-pair encoding.

    Args:
        lines: what is learnt from.
        split: cuts text into what pieces stay within.
        alphabet: signs that are pieces in any case.

    Returns:
        Pieces in the order of their ids, and merges.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    tokenizer.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=list(alphabet), show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = model["vocab"]
    return sorted(vocabulary, key=vocabulary.__getitem__), [(left, right) for left, right in model["merges"]]


def publish(
    folder: Path,
    config: transformers.PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    processor: str,
    pixels: dict[str, object],
    settings: dict[str, object],
) -> None:
    """Write the files that a processor is read from."""
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    described = {"processor_class": processor, **pixels}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": processor, **settings}))
