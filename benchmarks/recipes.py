"""What a step costs by what trains, measured against the count of operations that docs/scaling.md rests on.

    python -m benchmarks.recipes [--quick]

A LLaVA of 100 million random weights, so large that matrix products are nearly all of a step, as in the models that
people train; fp32, one thread, bare PyTorch. Seconds are the processor's, which other work stretches less;
ratios are of training the language part, within rounds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from benchmarks.measure import Speed, Worker, serve, take_turns
from forgetbench.methods.lora import LoRA
from forgetbench.models.parts import audit, choose_trainable, part_of
from forgetbench.training.run import peak_memory_mb
from tools.scaling import Model, Recipe, training_flops

FIRST = "language"
WAYS: Mapping[str, tuple[str, ...]] = {
    "language": ("language",),
    "language, LoRA": ("language",),
    "language and projector": ("language", "projector"),
    "vision": ("vision",),
    "vision and projector": ("vision", "projector"),
    "projector": ("projector",),
}
PICTURE, PATCH, TEXT, ANSWER, BATCH = 224, 14, 80, 2, 2
PATCHES = (PICTURE // PATCH) ** 2


def main() -> None:
    """Measure and print; the ratios, named, are the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    quick = parser.parse_args().quick
    processes = {name: Worker([sys.executable, "-m", "benchmarks.recipes", "--serve", name]) for name in WAYS}
    speeds = take_turns(processes, rounds=1 if quick else 8)
    counted = counts()
    measured = {name: 1 / speed.over(speeds[FIRST]) for name, speed in speeds.items()}
    show(measured, counted, speeds)
    print("ratios: " + ", ".join(f"{name} {measured[name]:.2f} (counted {counted[name]:.2f})" for name in WAYS))


@cache
def llava() -> Any:
    """The model, on the meta device unless a context says otherwise; CLIP in the tower, Llama in the language part."""
    vision = transformers.CLIPVisionConfig(
        hidden_size=512, intermediate_size=2048, num_hidden_layers=8, num_attention_heads=8, image_size=PICTURE,
        patch_size=PATCH, projection_dim=512,
    )  # fmt: skip
    text = transformers.LlamaConfig(
        hidden_size=768, intermediate_size=2048, num_hidden_layers=10, num_attention_heads=12, num_key_value_heads=12,
        vocab_size=4096, tie_word_embeddings=True,
    )  # fmt: skip
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_id=1, vision_feature_layer=-1)
    torch.manual_seed(0)
    return transformers.LlavaForConditionalGeneration(config)


def step_of(name: str) -> Callable[[], None]:
    """One optimiser step of a way."""
    model = llava()
    if "LoRA" in name:
        LoRA("lora").attach(model, 1)
        for parameter, weight in model.named_parameters():
            weight.requires_grad_("lora_" in parameter and part_of(parameter) == "language")
    else:
        choose_trainable(model, WAYS[name])
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=1e-5, foreach=False, fused=True)
    ids = torch.randint(2, 4096, (BATCH, PATCHES + TEXT))
    ids[:, :PATCHES] = 1
    pixels = torch.randn(BATCH, 3, PICTURE, PICTURE)

    def step() -> None:
        logits = model(input_ids=ids, pixel_values=pixels, logits_to_keep=ANSWER + 1, use_cache=False).logits
        torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, -ANSWER:].flatten()).backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def answer(name: str) -> None:
    """Serve the rounds of one way."""
    torch.set_num_threads(1)
    step = step_of(name)
    step()

    def measured() -> dict[str, float]:
        started = time.process_time()
        step()
        return {"steps_per_s": 1 / (time.process_time() - started), "peak_memory_mb": peak_memory_mb()}

    serve(measured)


def counts() -> dict[str, float]:
    """Operations of an instance by what trains, of those of the language part."""
    with torch.device("meta"):
        model = llava()
    sizes = {count.part: count.total for count in audit(model).parts}
    embeddings = model.get_input_embeddings().weight.numel()
    size = Model(
        "benchmark", sizes["vision"], sizes["projector"], sizes["language"], embeddings, PATCHES + 1, PATCHES, TEXT
    )
    LoRA("lora").attach(model, 1)
    adapter = sum(count.total for count in audit(model).parts) - sum(sizes.values())
    flops_by_name = {
        name: training_flops(size, Recipe(name, frozenset(parts), 1, 1, adapter if "LoRA" in name else 0))
        for name, parts in WAYS.items()
    }
    return {name: flops / flops_by_name[FIRST] for name, flops in flops_by_name.items()}


def show(measured: Mapping[str, float], counted: Mapping[str, float], speeds: Mapping[str, Speed]) -> None:
    """Print a row for each way."""
    table = Table(title="Seconds of a step, of training the language part", title_justify="left")
    for name in ("what trains", "steps/s", "measured", "counted"):
        table.add_column(name, justify="left" if name == "what trains" else "right")
    for name, speed in speeds.items():
        table.add_row(name, f"{speed.steps_per_s:.2f}", f"{measured[name]:.2f}", f"{counted[name]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        answer(sys.argv[2])
    else:
        main()
