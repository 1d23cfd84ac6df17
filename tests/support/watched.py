"""Short watched trainings by two processes: `torchrun -m tests.support.watched <folder>`.

The model is whole in each (DDP), or sliced (FSDP2). Each process writes where its trainings ended.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import distributed
from torch.distributed.fsdp import FSDPModule
from transformers import Trainer

from tests.exchange.test_callback import forget_step_4, left_by, trained, watch

DDP: dict[str, Any] = {"ddp_find_unused_parameters": True}
LAYERS = ["LlamaDecoderLayer"]
BUDGET: dict[str, Any] = {"max_steps": 6, "learning_rate": 1e-2}


class Sliced(Trainer):
    """The Trainer with FSDP2 on CPUs, where accelerate leaves it off; all that comes then is theirs."""

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        self.accelerator.state.distributed_type = DistributedType.FSDP
        self.accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
        self.is_fsdp_enabled = True


def sliced(**settings: Any) -> dict[str, Any]:
    """Settings of a training whose model is sliced."""
    # Among the layers that LLaVA names by itself are those of CLIP's text side, which it does not have.
    return {"make": Sliced, "fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": LAYERS, **settings}}


def main(folder: Path) -> None:
    ends = {}
    for name, sharing in {"ddp": DDP, "fsdp": sliced()}.items():
        trainer = trained(folder / name, watch(folder / name, budget=12.0, every=1), **BUDGET, **sharing)
        assert trainer.args.world_size == 2
        assert isinstance(trainer.model, FSDPModule) == (name == "fsdp")
        ends[name] = trainer.state.global_step
    # With FULL_STATE_DICT transformers 5.23 alone cannot save a whole model on CPUs: its processes part.
    full = sliced(state_dict_type="SHARDED_STATE_DICT")
    for name, settings in {"full": full, "adapter": {"adapter": True, **sliced(activation_checkpointing=True)}}.items():
        plain = left_by(trained(folder / f"{name}, alone", **settings))
        assert left_by(trained(folder / name, watch(folder / name), **settings)) == plain
    if trainer.args.process_index == 0:
        shutil.copytree(folder / "full", folder / "resumed")
        forget_step_4(folder / "resumed")
    distributed.barrier()
    trained(folder / "resumed", watch(folder / "resumed"), resume=True, **full)
    (folder / f"rank{trainer.args.process_index}.json").write_text(json.dumps(ends))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
