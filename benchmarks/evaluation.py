"""Items per second of lettered-choice scoring against a bare loop of one unpadded forward pass per item.

python -m benchmarks.evaluation
"""

from __future__ import annotations

import time

import torch

from forgetbench.config import ModelConfig, Precision
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.collate import Encoder, batch_prompts
from forgetbench.data.sources import load_samples
from forgetbench.evaluation.engine import Engine
from forgetbench.models.load import load_model

ITEMS = 256


def main() -> None:
    """Measure both on the same items, encoded beforehand."""
    manifest = Catalogue().load("fashion_knowledge")
    samples = load_samples(manifest, manifest.eval_split, ITEMS)
    loaded = load_model(ModelConfig(path="embedded:tiny", attention="eager"))
    encoder = Encoder(loaded.processor)
    engine = Engine(loaded, encoder, batch_size=64, precision=Precision.fp32)
    batches = [batch_prompts([encoder.prompt(sample)], encoder.pad_id) for sample in samples]

    started = time.perf_counter()
    engine.choice(samples, lambda _: None)
    ours = ITEMS / (time.perf_counter() - started)
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in batches:
            loaded.model(**batch, logits_to_keep=1, use_cache=False)
    naive = ITEMS / (time.perf_counter() - started)
    print(f"scoring: forgetbench {ours:.0f} items/s, one item at a time {naive:.0f}; ratio {ours / naive:.2f}")


if __name__ == "__main__":
    main()
