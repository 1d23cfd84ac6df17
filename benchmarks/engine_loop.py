"""The engine's loop alone, against forward passes of batches that were collated beforehand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from benchmarks.baselines.export import eval_samples
from benchmarks.loops import as_asked, ask, bare_forward, collated, fastest
from forgetbench.config import ModelConfig
from forgetbench.core.records import Decoding
from forgetbench.data.collate import Encoder
from forgetbench.evaluation.batches import BatchedSet
from forgetbench.evaluation.engine import Engine
from forgetbench.evaluation.settings import Settings
from forgetbench.models.load import LoadedModel, load_model
from forgetbench.models.pretrained import resolve_path

ROUNDS, PASSES, BATCH = 5, 5, 64
TINY = ModelConfig(path="embedded:tiny", attention="eager")


@dataclass(frozen=True)
class LoopRow:
    """A line of the report, and its ratios."""

    line: str
    ratios: dict[str, float]


def loop_rows(names: Sequence[str], n_items: int) -> list[LoopRow]:
    """Lettered choice and greedy text on the embedded model, fp32 and bf16."""
    rows = []
    for precision in ("fp32", "bf16"):
        loaded = load_model(TINY)
        ours, reused, text, bare = _speeds(loaded, names, n_items, precision)
        rows.append(
            LoopRow(
                f"Loop alone, {precision}, items/s: bare forward passes {bare:.0f}; choice {ours:.0f}, with picture "
                f"features kept over {PASSES} passes {reused:.0f}; greedy {text:.0f}.",
                {
                    f"choice loop/bare {precision}": ours / bare,
                    f"choice loop, features kept/bare {precision}": reused / bare,
                },
            )
        )
    return rows


def tower_row() -> LoopRow:
    """A model whose vision tower is a large share of the cost, frozen: features kept against encoded every time."""
    loaded = _large_tower()
    with tempfile.TemporaryDirectory() as folder:
        encoder = Encoder(loaded.processor)
        dataset = _set("fashion_knowledge", 100, encoder, Path(folder))
        settings = Settings(Decoding.choice, "fp32", BATCH)
        batches = collated(dataset, encoder)
        pixels = [batch["pixel_values"] for batch in batches]
        with torch.inference_mode():
            whole = fastest([lambda: [bare_forward(loaded.model, batch) for batch in batches]], ROUNDS)[0]
            tower = fastest(
                [lambda: [loaded.model.model.get_image_features(pixel_batch) for pixel_batch in pixels]], ROUNDS
            )[0]
            encoding_s = fastest(
                [lambda: [ask(Engine(loaded, encoder, 0), dataset, settings) for _ in range(PASSES)]], ROUNDS
            )[0]

            def keeping() -> None:
                engine = Engine(loaded, encoder)
                for _ in range(PASSES):
                    ask(engine, dataset, settings)

            keeping_s = fastest([keeping], ROUNDS)[0]
    return LoopRow(
        f"Frozen tower of {100 * tower / whole:.0f} % of a forward pass, {PASSES} checkpoints: "
        f"{encoding_s:.1f} s encoding every picture every time, {keeping_s:.1f} s keeping features.",
        {f"features kept, tower {100 * tower / whole:.0f} % of the cost": encoding_s / keeping_s},
    )


def _speeds(loaded: LoadedModel, names: Sequence[str], n_items: int, precision: str) -> tuple[float, ...]:
    """Items per second: choice encoding every picture; choice and greedy text keeping features; bare."""
    with tempfile.TemporaryDirectory() as folder:
        encoder = Encoder(loaded.processor)
        sets = [_set(name, n_items, encoder, Path(folder) / name) for name in names]
        choice = Settings(Decoding.choice, precision, BATCH)
        text = Settings(Decoding.greedy, precision, BATCH, max_new_tokens=4)
        batches = [batch for dataset in sets for batch in collated(dataset, encoder)]
        engines = {"every": Engine(loaded, encoder, 0), "kept": Engine(loaded, encoder)}

        def bare() -> None:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                for batch in batches:
                    bare_forward(loaded.model, batch)

        def asking(engine: str, settings: Settings) -> Callable[[], None]:
            def way() -> None:
                engines["kept"].set_picture_state("")
                for dataset in sets:
                    ask(engines[engine], dataset, settings)

            return way

        def over_checkpoints() -> None:
            engine = Engine(loaded, encoder)
            for _ in range(PASSES):
                for dataset in sets:
                    ask(engine, dataset, choice)

        ways = [(asking("every", choice), 1), (over_checkpoints, PASSES), (asking("kept", text), 1), (bare, 1)]
        seconds = fastest([way for way, _ in ways], ROUNDS)
    n = sum(len(dataset.samples) for dataset in sets)
    return tuple(n * passes / duration for (_, passes), duration in zip(ways, seconds, strict=True))


def _set(name: str, n_items: int, encoder: Encoder, folder: Path) -> BatchedSet:
    return as_asked(eval_samples(name, n_items), encoder, folder, BATCH)


def _large_tower() -> LoadedModel:
    """The embedded model's processor and language model with a vision tower of three times the width, untrained."""
    config = AutoConfig.from_pretrained(resolve_path(TINY.path))
    config.vision_config.hidden_size, config.vision_config.intermediate_size = 384, 1536
    config.vision_config.num_attention_heads = 6
    model = AutoModelForImageTextToText.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    loaded = load_model(TINY)
    return LoadedModel(
        model, loaded.processor, "large tower", "", loaded.inputs_digest, loaded.reuses_prefix, loaded.keeps_logits
    )
