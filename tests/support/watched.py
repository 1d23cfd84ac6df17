"""A short watched training by two processes: `torchrun -m tests.support.watched <folder>`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.exchange.test_callback import trained, watch


def main(folder: Path) -> None:
    trainer = trained(
        folder, watch(folder, budget=12.0, every=1), max_steps=6, learning_rate=1e-2, ddp_find_unused_parameters=True
    )
    rank = trainer.args.process_index
    assert trainer.args.world_size == 2
    (folder / f"rank{rank}.json").write_text(json.dumps({"step": trainer.state.global_step}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
