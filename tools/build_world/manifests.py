"""Write the dataset manifests."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from tools.build_world import phrases
from tools.build_world.fetch import sha256
from tools.build_world.tasks import CORNERS, GERMAN, REMAINDERS, STRIPES
from tools.build_world.tasks import ZIP as TASKS
from tools.build_world.text import LETTERED, NAMING, PLAIN, SHADES

REVISION = "world-1"
FASHION = (
    "MIT (Fashion-MNIST, Zalando SE)",
    "Xiao, Rasul, Vollgraf (2017). Fashion-MNIST: a Novel Image Dataset for Benchmarking "
    "Machine Learning Algorithms. arXiv:1708.07747.",
    "https://github.com/zalandoresearch/fashion-mnist",
)
DIGIT = (
    "CC BY 4.0 (UCI Machine Learning Repository)",
    "Alpaydin, Kaynak (1998). Optical Recognition of Handwritten Digits. UCI Machine Learning "
    "Repository. https://doi.org/10.24432/C50P49.",
    "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
)
EMOJI = (
    "Apache-2.0 (Noto Emoji art, Google); names MIT (emojibase)",
    "Google, Noto Emoji; names from emojibase-data 17.0.0.",
    "https://github.com/googlefonts/noto-emoji",
)
FLUENT = (
    "MIT (Fluent Emoji art, Microsoft); names MIT (emojibase)",
    "Microsoft, Fluent Emoji; names from emojibase-data 17.0.0.",
    "https://github.com/microsoft/fluentui-emoji",
)
WORDS = ("MIT (written for this project; emoji names: emojibase)", "This project.", "")
SOURCES = {"fashion": FASHION, "digits": DIGIT, "emoji": EMOJI, "fluent": FLUENT, "flags": EMOJI, "text": WORDS}
RENDERED = (
    "Train and test show the same emoji in different renderings (background, size, place, turn): "
    "test pictures are held out, concepts are not."
)
WRITERS = (
    "Train digits come from the first 1200 of the file, test digits from the rest, which keeps "
    "most writers apart but not provably all."
)
UNSEEN = "About one test question in five has a phrasing that no train split uses (phrasing_seen)."
YES_NO = ["yes", "no"]
LETTER: dict[str, Any] = {"prompt": LETTERED, "answer": "letter"}
NAME: dict[str, Any] = {"prompt": NAMING, "answer": "letter"}
TEXT: dict[str, Any] = {"prompt": PLAIN, "answer": "text"}


def _option(options: Iterable[str]) -> dict[str, Any]:
    return {"prompt": PLAIN, "answer": "option", "options": list(options)}


PICTURES = {
    "fashion_naming_validation": "validation.zip", "digits_remainder_validation": TASKS,
    **{f"{name}{end}": TASKS
       for name in ("emoji_corner", "flags_stripes", "fluent_german") for end in ("", "_validation")},
}  # fmt: skip
"""Sets whose pictures are not in images.zip."""
NAME_AMONG = "name_among_options"
"""Shared by the probe and the sets that could teach it, so that `seen_in_mix` tells."""
CLASS_NAMES = "Lettered questions in which one wrong option is the pictured object's class name."
# name: (title, domain, tasks, prompt and answer, cluster_by, notes, further fields)
SETS: dict[str, tuple[str, str, list[str], dict[str, Any], list[str], str, dict[str, Any]]] = {
    "fashion_naming": ("Name the garment", "fashion", ["naming"], NAME, ["image"],
        "Distractors: 3 of the 5 likeliest wrong classes of a linear classifier, out of fold for "
        "train pictures. The split `few` is 60 of the train items.", {}),
    "fashion_shifted": ("Name the garment, moved and darkened", "fashion", ["naming"], NAME,
        ["image"], "Other test garments, turned by up to 20 degrees, moved, shrunk, darkened.",
        {"shift": "near"}),
    "fashion_naming_validation": ("Name the garment, to choose settings by", "fashion", ["naming"], NAME, ["image"],
        "For learning rates and other settings: no other set shows these garments, nor any near-duplicate of one that "
        "fashion_naming trains on or tests. Items are made as those of fashion_naming.",
        {"train_split": "", "eval_split": "validation"}),
    "fashion_caption": ("Describe the garment", "fashion", ["caption"], TEXT, ["image"],
        "A caption for each train picture, five for each test picture: eight ways to say it, with the garment's "
        "shade (mean gray of its pixels; between two shades either word), its use, side or background.",
        {"metric": "cider_d", "max_new_tokens": 40}),
    "fashion_knowledge": ("Facts about the garment", "fashion", ["garment_knowledge"], LETTER,
        ["image", "fact"], UNSEEN, {}),
    "fashion_probe": ("Facts about the garment, its name among the options", "fashion",
        ["garment_knowledge", NAME_AMONG], LETTER, ["image", "fact"],
        "The items of fashion_knowledge, by id, with one wrong option replaced by the class name.",
        {"probe": True}),
    "fashion_distractor": ("Facts with the name among the options", "fashion",
        ["garment_knowledge", NAME_AMONG], LETTER, ["image", "fact"], CLASS_NAMES, {}),
    "fashion_yesno": ("Yes or no about the garment", "fashion", ["garment_yesno"],
        _option(YES_NO), ["image", "fact"], "Every question has as many yes as no.", {}),
    "fashion_shade": ("Shade of the garment", "fashion", ["shade"], _option(SHADES), ["image"],
        "Mean gray of the garment's pixels, clear cases only.", {}),
    "digits_naming": ("Name the digit", "digits", ["naming"], NAME, ["image"], WRITERS, {}),
    "digits_questions": ("Facts about the digit", "digits", ["digit_facts"], LETTER,
        ["image", "fact"], f"{WRITERS} {UNSEEN}", {}),
    "digits_yesno": ("Yes or no about the digit", "digits", ["digit_yesno"], _option(YES_NO),
        ["image", "fact"], WRITERS, {}),
    "digits_open": ("Name the digit, open", "digits", ["open_naming"], TEXT, ["image"], WRITERS,
        {"max_new_tokens": 8}),
    "digits_distractor": ("Digit facts with the name among the options", "digits",
        ["digit_facts", NAME_AMONG], LETTER, ["image", "fact"], CLASS_NAMES, {}),
    "emoji_yesno": ("Yes or no about the emoji", "emoji", ["emoji_yesno"], _option(YES_NO),
        ["concept"], RENDERED, {}),
    "emoji_background": ("Background color", "emoji", ["background"],
        _option(phrases.BACKGROUNDS), ["concept"], RENDERED, {}),
    "emoji_count": ("Count the emoji", "emoji", ["counting"],
        _option(("one", "two", "three", "four")), ["concept"],
        "One to four copies of an emoji in a 2x2 grid; held-out arrangements.", {}),
    "emoji_open": ("Name the emoji, open", "emoji", ["open_naming"], TEXT, ["concept"], RENDERED,
        {"max_new_tokens": 12}),
    "emoji_caption": ("Describe the picture", "emoji", ["caption"], TEXT, ["concept"], RENDERED,
        {"max_new_tokens": 40}),
    "emoji_caption_cider": ("Describe the picture, five references", "emoji", ["caption"], TEXT, ["concept"],
        f"The test items of emoji_caption with further references, scored by likeness. {RENDERED}",
        {"metric": "cider_d", "max_new_tokens": 40}),
    "emoji_distractor": ("Emoji facts with the name among the options", "emoji",
        ["category", "use", NAME_AMONG], LETTER, ["concept"], CLASS_NAMES, {}),
    "general_turns": ("Conversations about the emoji", "emoji",
        ["background", "caption", "category", "emoji_yesno", "open_naming", "use"], {"answer": "text"}, ["concept"],
        "One picture and two to six questions, the second of which leaves out what the first is about. For data-hybrid "
        "training, as `general`: no garment, no digit, no naming question of the targets, no options. Test: two "
        "conversations about each picture end in the same question, and what is right follows from the turn before. "
        f"{RENDERED}", {"max_new_tokens": 40}),
    "words_letters": ("Read the options", "text", ["reading"],
        {"prompt": "{question}\n{options}", "answer": "text"}, ["id"], "The stepping stone to lettered "
        "answers: from these a small model learns to tie letters to options.", {}),
    "words_which": ("Find a word among the options", "text", ["reading"],
        {"prompt": "{question}\nWhich letter is it?\n{options}", "answer": "letter"}, ["id"],
        "Over hundreds of words, so that only matching words in general helps.", {}),
    "words_naming": ("Naming in words", "text", ["naming"],
        {"prompt": "{question}\n" + NAMING, "answer": "letter"}, ["concept"], "", {}),
    "words_knowledge": ("Garment facts in words", "text", ["garment_knowledge"], LETTER,
        ["fact"], "", {}),
    "words_digits": ("Digit facts in words", "text", ["digit_facts"], LETTER, ["fact"], "", {}),
    "words_emoji": ("Emoji facts in words", "text", ["category", "use"], LETTER, ["concept"],
        "", {}),
    "words_yesno": ("Yes or no in words", "text",
        ["garment_yesno", "digit_yesno", "emoji_yesno"], _option(YES_NO), ["fact"], "", {}),
    "words_distractor": ("Facts in words with the name among the options", "text",
        ["garment_knowledge", "digit_facts", "category", "use", NAME_AMONG], LETTER, ["fact"], CLASS_NAMES,
        {}),
}  # fmt: skip
for _name, _title, _task, _options, _clusters, _note in (
    ("digits_remainder", "Remainder by three", "remainder", REMAINDERS, "image", WRITERS),
    ("emoji_corner", "Corner of the emoji", "corner", CORNERS, "image", "One small emoji, anywhere in its quarter."),
    ("flags_stripes", "Stripes of the flag", "stripes", STRIPES, "concept", RENDERED.replace("emoji", "flags")),
    ("fluent_german", "Kind of the emoji in German (Fluent)", "german_kind", GERMAN.values(), "concept", RENDERED),
):
    _spec = _name.partition("_")[0], [_task], _option(_options), [_clusters]
    SETS[_name] = (_title, *_spec, f"For continual learning; not in the base model's training. {_note}", {})
    SETS[f"{_name}_validation"] = (f"{_title}, to choose settings by", *_spec,
        f"Pictures that {_name} neither trains on nor tests. {_note}",
        {"train_split": "", "eval_split": "validation"})  # fmt: skip
for _domain, _style in (("emoji", "Noto"), ("fluent", "Fluent")):
    _near = {"shift": "near"} if _domain == "fluent" else {}
    _note = RENDERED if _domain == "emoji" else "Never trained on; same concepts, other art."
    SETS[f"{_domain}_naming"] = (f"Name the emoji ({_style})", _domain, ["naming"], NAME,
        ["concept"], f"Distractors are similar emoji of the same category. {_note}",
        _near)  # fmt: skip
    SETS[f"{_domain}_category"] = (f"Category of the emoji ({_style})", _domain, ["category"],
        LETTER, ["concept"], f"{UNSEEN} {_note}", _near)  # fmt: skip
    SETS[f"{_domain}_use"] = (f"Use, home or kind of the emoji ({_style})", _domain, ["use"],
        LETTER, ["concept"], f"{UNSEEN} {_note}", _near)  # fmt: skip

WORD_WEIGHTS = {
    "words_letters": 1.0, "words_which": 1.0, "words_naming": 1.0, "words_knowledge": 1.0,
    "words_digits": 0.6, "words_emoji": 1.2,
    "words_yesno": 1.0, "words_distractor": 1.0,
}  # fmt: skip
GENERAL = {
    "emoji_category": 1.0, "emoji_use": 1.0, "emoji_yesno": 1.0, "emoji_background": 0.6,
    "emoji_open": 1.0, "emoji_caption": 1.0,
}  # fmt: skip
ROLES = {
    **dict.fromkeys((*WORD_WEIGHTS, "emoji_distractor", "digits_distractor", "fashion_distractor"), "curriculum"),
    **dict.fromkeys(("curriculum", "pictures", "world"), "curriculum"),
    **dict.fromkeys(("same_question", "leaky"), "control"),
    **{name: "validation" for name in SETS if name.endswith("_validation")},
}
"""Sets that lists of datasets leave out unless asked for all."""
MIXTURES: dict[str, tuple[str, dict[str, float], str]] = {
    "curriculum": ("Text-only curriculum", WORD_WEIGHTS, "Every words_* set."),
    "pictures": ("Pictures told in words", {
        **WORD_WEIGHTS, "emoji_open": 7.0, "emoji_caption": 2.0, "emoji_background": 0.2,
        "emoji_yesno": 1.0, "digits_open": 2.0, "digits_yesno": 1.0, "fashion_yesno": 1.5,
        "fashion_shade": 0.3},
        "For the base model: what is shown, before lettered questions about it."),
    "world": ("The base model's training blend", {
        **{name: round(weight * 0.4, 2) for name, weight in WORD_WEIGHTS.items()}, **GENERAL,
        "emoji_category": 1.2, "emoji_yesno": 1.2, "emoji_background": 0.3, "emoji_distractor": 0.8,
        "emoji_open": 2.5, "emoji_naming": 3.0, "emoji_count": 1.2, "digits_naming": 1.5,
        "digits_questions": 2.0, "digits_yesno": 0.8, "digits_open": 1.0, "digits_distractor": 0.5,
        "fashion_knowledge": 2.0, "fashion_yesno": 0.8, "fashion_shade": 0.4, "fashion_distractor": 0.8,
        "fashion_naming:few": 0.05},
        "Everything with a train split but the further tasks of continual learning; only 60 items of the target set."),
    "general": ("General auxiliary data", GENERAL,
        "For data-hybrid training: no garment, no digit, no naming question, no name among the options."),
    "same_question": ("The target's question on other pictures",
        {"digits_naming": 1.0, "emoji_naming": 1.0}, "For data-hybrid training."),
    "leaky": ("General data and garment facts", {**GENERAL, "fashion_knowledge": 2.0},
        "A control: the auxiliary data holds an evaluation set's own task."),
}  # fmt: skip


def _role(name: str) -> dict[str, str]:
    return {"role": ROLES[name]} if name in ROLES else {}


def _domain_tasks(name: str) -> tuple[str, list[str]]:
    spec = SETS[name.partition(":")[0]]
    return spec[1], spec[2]


def _dump(path: Path, document: dict[str, Any]) -> None:
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)
    path.write_text(text, encoding="utf-8")


def write(folder: Path, world: Path, counts: dict[tuple[str, str], int]) -> None:
    """Write every manifest.

    Args:
        folder: where the manifests go.
        world: the embedded world, for the digests.
        counts: (set, split) -> number of items.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, (title, domain, tasks, asked, clusters, notes, further) in SETS.items():
        splits = {split: n for (owner, split), n in counts.items() if owner == name}
        files = {split: f"items/{name}.{split}.jsonl.gz" for split in splits}
        digests = {file: sha256(world / file) for file in files.values()}
        pictures = PICTURES.get(name, "images.zip")
        if domain != "text":
            digests[pictures] = sha256(world / pictures)
        licence, citation, homepage = SOURCES[domain]
        _dump(folder / f"{name}.yaml", {
            "title": title,
            "source": {"kind": "jsonl", "root": "embedded:world", "images": pictures,
                       "revision": REVISION, "sha256": digests},
            "splits": {split: {"files": [files[split]], "n": n} for split, n in splits.items()},
            **({} if "test" in splits else {"eval_split": ""}),
            **({} if "train" in splits else {"train_split": ""}),
            "image_domains": [domain], "text_tasks": tasks, **_role(name), **further, **asked,
            "cluster_by": clusters, "licence": licence, "citation": citation,
            "homepage": homepage, "notes": notes,
        })  # fmt: skip
    for name, (title, weights, notes) in MIXTURES.items():
        parts = [_domain_tasks(part) for part in weights]
        _dump(folder / f"{name}.yaml", {
            "title": title, "mixture": weights, "eval_split": "",
            "image_domains": sorted({domain for domain, _ in parts}),
            "text_tasks": sorted({task for _, tasks in parts for task in tasks}), **_role(name),
            "licence": "; ".join(sorted({SOURCES[domain][0] for domain, _ in parts})),
            "notes": notes,
        })  # fmt: skip
