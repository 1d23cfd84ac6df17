"""Token for token: what forgetbench trains on, against what LLaMA-Factory and TRL train on, for the same conversations.

    python -m benchmarks.fidelity [--write docs/results/fidelity.md]

200 conversations with pictures and odd texts, in three families' layouts. FORGETBENCH_LLAMAFACTORY names a
`llamafactory-cli`, FORGETBENCH_TRL_PYTHON an interpreter that has TRL with torchvision; either may be missing. It fails
if a difference has no known cause.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.baselines import llamafactory
from benchmarks.fidelity_causes import (
    CAUSES,
    COMPLETION,
    CONVERSATION,
    FACTORY,
    FACTORY_LAST,
    LAST,
    UNEXPLAINED,
    Case,
    Cause,
    cause_of,
)
from benchmarks.fidelity_compare import Difference, Encoding, differences
from benchmarks.fidelity_families import FAMILIES, Family
from benchmarks.fidelity_items import CONVERSATIONS, conversations, factory_row, trl_row
from forgetbench.config import ModelConfig, TrainOn
from forgetbench.data.collate import Encoder
from forgetbench.models.pretrained import load_processor

TRL = "FORGETBENCH_TRL_PYTHON"
ROOT = Path(__file__).parents[1]
TRL_SCRIPT = Path(__file__).with_name("baselines") / "trl_collate.py"
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Comparison:
    """All conversations of a family, under a chat template, against a baseline."""

    family: str
    template: str
    baseline: str
    refused: list[tuple[str, str]]
    """Conversations that the baseline refuses: id and reason."""
    n_tokens: int
    """Tokens of forgetbench's, in the conversations that are not refused."""
    n_trained: int
    """Tokens with a loss, including those after the end of a reply."""
    n_behind_end: int
    """Those of them that follow the end of a reply."""
    differences_by_conversation: list[list[tuple[Cause, Difference]]]
    """Differences of every conversation that is not refused."""

    @property
    def n_equal(self) -> int:
        """Conversations without a difference."""
        return sum(not conversation for conversation in self.differences_by_conversation)

    def caused_by(self, cause: Cause) -> list[Difference]:
        """The differences with this cause."""
        return [
            difference
            for conversation in self.differences_by_conversation
            for difference_cause, difference in conversation
            if difference_cause is cause
        ]


def main() -> None:
    """Compare everything and print it; the last line says how many differences have no known cause."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="write the result, as Markdown, to this file")
    given = parser.parse_args()
    if llamafactory.program() is None:
        print(f"LLaMA-Factory is left out: {llamafactory.VARIABLE} names no llamafactory-cli.")
    if not os.environ.get(TRL):
        print(f"TRL is left out: {TRL} names no interpreter that has it.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Folder(Path(scratch))
        compared = list(folder.comparisons())
    text = "\n\n".join([*introduction(folder.versions), report(compared)])
    print(text)
    if given.write:
        named = "".join(f"{name}=... " for name in (llamafactory.VARIABLE, TRL) if name in os.environ)
        command = f"{named}python -m benchmarks.fidelity --write {given.write}"
        given.write.write_text(f"# Token for token\n\n    {command}\n\n{text}\n", "utf-8")
    unexplained = sum(len(comparison.caused_by(UNEXPLAINED)) for comparison in compared)
    print(f"differences without a known cause: {unexplained}")
    raise SystemExit(bool(unexplained))


class Folder:
    """Conversations and checkpoints on disk, for programs that share no memory with this one."""

    def __init__(self, root: Path) -> None:
        """Write pictures and rows."""
        self.root = root
        self.versions: dict[str, None] = {}
        """Of the programs compared with, in the order of their runs."""
        pictures = root / "pictures"
        pictures.mkdir()
        self.samples = conversations(pictures)
        for name, lay_out in (("factory", factory_row), ("trl", trl_row)):
            rows = json.dumps([lay_out(sample) for sample in self.samples])
            (root / f"{name}.json").write_text(rows, "utf-8")

    def comparisons(self) -> Iterator[Comparison]:
        """Every family under each of its templates against each baseline at hand."""
        for family in FAMILIES:
            checkpoint = self.root / family.factory_template
            family.build(checkpoint)
            factory = self.factory(family, checkpoint)
            for kind in family.templates:
                model = ModelConfig(path=str(checkpoint), chat_template=str(family.template(kind)))
                encoder = Encoder(load_processor(model))
                trl = self.trl(checkpoint, family.template(kind))
                for baseline, rows in (factory | trl).items():
                    yield self.compared(family, kind, baseline, encoder, rows)

    def compared(
        self, family: Family, kind: str, baseline: str, encoder: Encoder, rows: Sequence[dict[str, Any]]
    ) -> Comparison:
        """Compare forgetbench's encodings with a baseline's rows."""
        tokenizer = encoder.tokenizer
        special = frozenset(tokenizer.all_special_tokens)
        train_on = TrainOn.last if baseline in LAST else TrainOn.all
        refused, by_conversation, n_tokens, n_trained, n_to_end = [], [], 0, 0, 0
        for sample, row in zip(self.samples, rows, strict=True):
            if "refused" in row:
                refused.append((sample.id, row["refused"]))
                continue
            ours, to_end = (
                Encoding.of(ids.tolist(), labels.tolist(), tokenizer.convert_ids_to_tokens)
                for ids, labels in (encoder.example(sample, train_on, way).ids_and_labels for way in (True, False))
            )
            theirs = Encoding.of(row["ids"], row["labels"], tokenizer.convert_ids_to_tokens)
            case = Case(sample, baseline, kind, special, tokenizer.bos_token or "")
            by_conversation.append(
                [(cause_of(difference, case), difference) for difference in differences(ours, theirs, case.first)]
            )
            n_tokens += len(ours.tokens)
            n_trained += sum(ours.trained)
            n_to_end += sum(to_end.trained)
        return Comparison(
            family.name, kind, baseline, refused, n_tokens, n_trained, n_trained - n_to_end, by_conversation
        )

    def factory(self, family: Family, checkpoint: Path) -> dict[str, list[dict[str, Any]]]:
        """LLaMA-Factory's encodings of the conversations, both ways; empty if it is not installed."""
        cli = llamafactory.program()
        if cli is None:
            return {}
        module = ["-m", "benchmarks.baselines.llamafactory_encode", "--template", family.factory_template]
        rows = self.encoded([str(cli.with_name("python")), *module], checkpoint, "factory")
        return {FACTORY: [row["all"] for row in rows], FACTORY_LAST: [row["last"] for row in rows]}

    def trl(self, checkpoint: Path, template: Path) -> dict[str, list[dict[str, Any]]]:
        """TRL's encodings of them, both ways; empty if it is not installed."""
        python = os.environ.get(TRL)
        if not python:
            return {}
        rows = self.encoded([python, str(TRL_SCRIPT), "--template", str(template)], checkpoint, "trl")
        return {CONVERSATION: [row["conversation"] for row in rows], COMPLETION: [row["completion"] for row in rows]}

    def encoded(self, command: Sequence[str], checkpoint: Path, name: str) -> list[dict[str, Any]]:
        """Encodings that another program writes for the rows."""
        written = self.root / "encoded.json"
        options = ["--checkpoint", checkpoint, "--rows", self.root / f"{name}.json", "--write", written]
        done = subprocess.run(
            [*command, *map(str, options)], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        output = json.loads(written.read_text("utf-8"))
        self.versions[output["versions"]] = None
        rows: list[dict[str, Any]] = output["rows"]
        return rows


def introduction(versions: Iterable[str]) -> list[str]:
    """What is compared, in paragraphs."""
    return [
        f"Token ids and labels of {CONVERSATIONS} conversations with 1 to 8 questions, up to 3 pictures anywhere in "
        "them, a system turn or none, and odd texts, on tokenizers and processors built to three families' layouts. "
        f"Compared with: {'; '.join(versions) or 'nothing, since no other program is at hand'}.",
        "forgetbench trains every reply (`recipe.train_on=all`), or the last alone (`last`) against LLaMA-Factory's "
        "`mask_history` and TRL's completions, and, as the others do, what the template writes behind a reply's end "
        "(`recipe.train_after_end=true`; the column *behind the end* counts what its default leaves out). "
        "LLaMA-Factory has chat templates of its own; those in `benchmarks/templates`, and the package's of LLaVA-1.5, "
        "say the same in Jinja, or what the publisher's says. For TRL they mark what is a reply "
        "(`assistant_only_loss`), so that the losses compare; "
        "otherwise TRL trains every token, pictures included.",
    ]


def report(compared: Sequence[Comparison]) -> str:
    """All comparisons as one table, what the others refuse, and every cause with an example and who is right."""
    lines = [
        "| family | chat template | compared with | refused by it | tokens | with a loss | behind the end | equal "
        "| differences, by cause |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    causes = [cause for cause in (*CAUSES, UNEXPLAINED) if any(comparison.caused_by(cause) for comparison in compared)]
    for comparison in compared:
        cause_counts = [
            f"{number}: {len(comparison.caused_by(cause))}"
            for number, cause in enumerate(causes, 1)
            if comparison.caused_by(cause)
        ]
        counts = (
            len(comparison.refused),
            comparison.n_tokens,
            comparison.n_trained,
            comparison.n_behind_end,
            comparison.n_equal,
        )
        cells = (
            comparison.family,
            comparison.template,
            comparison.baseline,
            *map(str, counts),
            ", ".join(cause_counts) or "none",
        )
        lines.append(f"| {' | '.join(cells)} |")
    refused = {reason: comparison.baseline for comparison in compared for _, reason in comparison.refused}
    if refused:
        lines += ["", "Refused, since a text spells a picture's mark or token, which forgetbench takes for text:", ""]
    lines += [f"- {baseline.partition(',')[0]}: `{reason}`" for reason, baseline in refused.items()]
    for number, cause in enumerate(causes, 1):
        examples = [(comparison, difference) for comparison in compared for difference in comparison.caused_by(cause)]
        comparison, shown = min(examples, key=lambda pair: len(" ".join(pair[1].shown)))
        lines += [
            "",
            f"{number}. **{cause.title}**. Right: {cause.right}. {cause.why}",
            f"   {comparison.family}, {comparison.template} template, against {comparison.baseline}, ours first:",
            "",
            *(f"       {side}" for side in shown.shown),
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
