"""Items that get their own expert: decided from the prompt alone, and the same however they are asked."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from forgetbench.config import MatrixConfig, ModelConfig, RepresentationConfig
from forgetbench.core.records import AnswerKind, ImageRef, Prediction, Sample
from forgetbench.data.batching import batch_prompts
from forgetbench.data.collate import Encoder
from forgetbench.data.manifest import Manifest
from forgetbench.evaluation.inference import ModelRunner
from forgetbench.evaluation.sets import EvaluationSet
from forgetbench.methods.mr_lora import MRLoRA
from forgetbench.methods.task_router import TaskRouter, task_router
from forgetbench.models.checkpoint import BASE, save_checkpoint
from forgetbench.models.load import LoadedModel, load_model
from tests.support.asking import asked, choice, greedy
from tests.support.families import FAMILIES

# transformers' PaliGemma processor hands tensors to numpy the old way.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

QUESTIONS = ("What is in this picture?", "Is the colour red? Answer yes or no. " * 2)
"""One for each of two tasks; a third is not known."""


def item(i: int, options: Sequence[str]) -> Sample:
    """Pictures of one colour, questions in turn, of two lengths."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), tuple(random.Random(i).randbytes(3))).save(stream, "PNG")
    images = (ImageRef("memory", f"{i}.png", stream.getvalue()),)
    return Sample.question(str(i), QUESTIONS[i % 2], options[0], AnswerKind.option, images, options=tuple(options))


WHOLE = [item(i, ("dark red", "light blue", "The answer is red.")) for i in range(5)]
LAST = [item(i, ("yes", "no")) for i in range(5)]


def routed(path: Path) -> tuple[LoadedModel, TaskRouter]:
    """Three experts that all answer differently, of which the first two are known: one for each question."""
    loaded = load_model(ModelConfig(path=str(path)))
    torch.manual_seed(0)
    MRLoRA(rank=2).attach(loaded.model, 3)
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if ".lora_B." in name:
                weight.normal_(std=0.3)
    encoder, router = Encoder(loaded.processor), task_router(loaded.model)
    assert router is not None
    inputs = [batch_prompts([encoder.prompt(item(i, ("yes", "no")))], encoder.pad_id) for i in range(10)]
    with torch.no_grad():
        states = [
            router.states(loaded.model, lambda batch=batch: loaded.model(**batch), batch["attention_mask"])
            for batch in inputs
        ]
    router.fit([torch.cat(states[0::2]), torch.cat(states[1::2])])
    return loaded, router


def scores(predictions: Sequence[Prediction]) -> torch.Tensor:
    return torch.tensor([prediction.option_logprobs for prediction in predictions])


@pytest.fixture(scope="module", params=["qwen2_5_vl", "paligemma"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name: str = request.param
    return FAMILIES[name](tmp_path_factory.mktemp("models") / name)


def test_every_item_is_asked_through_its_own_expert_however_it_is_asked(path: Path) -> None:
    loaded, router = routed(path)
    unshared = replace(loaded, reuses_prefix=False)
    experts = torch.arange(5) % 2
    by_expert = []
    for expert in range(2):
        router.known.copy_(torch.arange(3) == expert)
        by_expert.append([scores(asked(loaded, items, choice(1))) for items in (WHOLE, LAST)])
        by_expert[-1].append([prediction.text for prediction in asked(loaded, WHOLE, greedy(1))])
    router.known.copy_(torch.tensor([1.0, 1, 0]))
    for kind, items in enumerate((WHOLE, LAST)):
        both = torch.stack([by_expert[0][kind], by_expert[1][kind]])
        expected = both[experts, torch.arange(5)]
        assert (both[0] - both[1]).abs().amin() > 1e-4
        for model, size in ((loaded, 1), (loaded, 4), (unshared, 4)):
            assert (scores(asked(model, items, choice(size))) - expected).abs().max() < 1e-4
    for size in (1, 4):
        texts = [prediction.text for prediction in asked(loaded, WHOLE, greedy(size))]
        assert texts == [by_expert[expert][2][i] for i, expert in enumerate(experts)]


@torch.no_grad()
def test_what_the_router_looks_at_does_not_depend_on_padding(path: Path) -> None:
    loaded, router = routed(path)
    encoder = Encoder(loaded.processor)
    prompts, states = [encoder.prompt(sample) for sample in LAST[:2]], []
    for chosen in (prompts, prompts[:1], prompts[1:]):
        inputs = batch_prompts(chosen, encoder.pad_id)
        states.append(router.states(loaded.model, partial(loaded.model, **inputs), inputs["attention_mask"]))
    assert prompts[0].length != prompts[1].length
    assert (states[0] - torch.cat(states[1:])).abs().max() < 1e-4


def test_while_no_task_is_known_the_answers_are_the_base_s_to_the_bit(path: Path) -> None:
    loaded, router = routed(path)
    router.known.zero_()
    base = load_model(ModelConfig(path=str(path)))
    for settings in (choice(4), greedy(4)):
        assert asked(loaded, WHOLE, settings) == asked(base, WHOLE, settings)


def test_hidden_states_are_measured_with_each_item_s_expert(tmp_path: Path) -> None:
    loaded, _ = routed(FAMILIES["llava"](tmp_path / "llava"))
    trained = {name: value.detach().clone() for name, value in loaded.model.named_parameters() if ".lora_B." in name}
    learnt = {name: value.detach().clone() for name, value in loaded.model.named_parameters() if "task_router" in name}
    with torch.no_grad():
        for name, value in loaded.model.named_parameters():
            if name in trained or name in learnt:
                value.zero_()
    config = MatrixConfig(datasets=["toy"], batch_size=4, representation=RepresentationConfig())
    runner = ModelRunner(loaded, Encoder(loaded.processor), config, tmp_path / "cache")
    first = {name: value for name, value in trained.items() if name.endswith(".0")}

    def drift(samples: Sequence[Sample], *deltas: dict[str, torch.Tensor]) -> float:
        samples = list(samples)
        dataset = EvaluationSet(Manifest(name="toy", image_domains=["toy"], text_tasks=["t"]), samples, lambda: samples)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        delta = {name: value for changes in deltas for name, value in changes.items()}
        runner.use_checkpoint(save_checkpoint(folder, 1, delta, {"method": {}}) if deltas else BASE)
        return float(runner.layers(dataset, range(len(samples)))[-1].visual_drift_l1 or 0)

    assert drift(LAST) == 0
    assert drift(LAST, first) == 0
    assert drift(LAST[0::2], first, learnt) > 0.01
    assert drift(LAST[1::2], first, learnt) == 0
    assert drift(LAST[1::2], trained, learnt) > 0.01
    # What experts do depends on the input, so that there is no distance of weights.
    assert [row.part for row in runner.distances()] == ["vision", "projector"]
