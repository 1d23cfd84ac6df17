"""Learning without forgetting (Li & Hoiem 2016, arXiv:1606.09282): distil the earlier model on the new data.

Shapes: B items, A answer tokens, N answer tokens of all items, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forgetbench.methods.base import Batch, Method, TrainingContext

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class LwF(Method):
    """Add strength T^2 KL(p_w0 || p_w) to the loss, the mean over the answer tokens of the step's items.

    p is softmax(logits / T) over the whole vocabulary, at the positions that predict the answer, given the answer's
    earlier tokens. w0 are the stage's starting weights, so each stage is taught by the previous stage. The teacher's
    pass has no dropout; it makes a step about a third longer.
    """

    name: str = "lwf"
    strength: float = 1.0
    """lambda; 0 is plain fine-tuning."""
    temperature: float = 2.0
    """T: above 1, unlikely tokens count more; T^2 keeps the gradient's size."""

    def copies(self) -> float:
        """The teacher's weights."""
        return 1.0

    def problems(self) -> Mapping[str, str]:
        """Values out of range."""
        problems = {}
        if self.strength < 0:
            problems["strength"] = f"{self.strength} is negative; give 0 or more."
        if self.temperature <= 0:
            problems["temperature"] = f"{self.temperature} does not divide logits; give a number above 0."
        return problems

    def against_sharding(self) -> str:
        """The teacher's weights are not sharded."""
        return "its teacher is a pass with other weights, which slices do not take"

    def begin_stage(self, context: TrainingContext) -> None:
        """Keep w0: one tensor per weight."""
        self._start = {name: weight.detach().clone() for name, weight in context.trainable.items()}

    def penalty(self, context: TrainingContext, batch: Batch, outputs: Any) -> Tensor:
        """This micro-batch's share of the mean."""
        passes = context.passes
        answered_BA = batch.labels >= 0
        teacher_NV = passes.answer_logits(batch, passes.reference(batch, self._start))[answered_BA]
        student_NV = passes.answer_logits(batch, outputs)[answered_BA]
        return self.strength * distillation(teacher_NV, student_NV, self.temperature) / batch.answers


def distillation(teacher_NV: Tensor, student_NV: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), summed over N."""
    from torch.nn import functional

    teacher_NV, student_NV = (
        functional.log_softmax(logits_NV / temperature, dim=-1) for logits_NV in (teacher_NV, student_NV)
    )
    divergence: Tensor = functional.kl_div(student_NV, teacher_NV, reduction="sum", log_target=True)
    return temperature**2 * divergence
