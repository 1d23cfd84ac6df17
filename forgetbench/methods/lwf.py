"""Learning without forgetting (Li & Hoiem 2016, arXiv:1606.09282): distil the model as it was on the new data.

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
    """Add strength T^2 KL(p_w0 || p_w) to the loss, the mean over the answer tokens of the step's own items.

    p is softmax(logits / T) over the whole vocabulary at the positions that predict the answer, the given answer
    before them. w0 are the weights that the stage starts from, so that each stage is taught by the one before it; their
    pass is one without dropout, which makes a step about a third longer.
    """

    name: str = "lwf"
    strength: float = 1.0
    """lambda; 0 is plain fine-tuning."""
    temperature: float = 2.0
    """T: above 1, unlikely tokens count more; T^2 keeps the gradient's size."""

    def copies(self) -> float:
        """The weights that teach."""
        return 1.0

    def problems(self) -> Mapping[str, str]:
        """Settings without a meaning."""
        found = {}
        if self.strength < 0:
            found["strength"] = f"{self.strength} is negative; give 0 or more."
        if self.temperature <= 0:
            found["temperature"] = f"{self.temperature} does not divide logits; give a number above 0."
        return found

    def against_sharding(self) -> str:
        """The teacher is not among the slices."""
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
