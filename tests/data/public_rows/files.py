"""Rows of the public sets that are downloaded as files, in their publishers' layouts."""

from __future__ import annotations

from tests.data.public_rows.case import Case, Row

QUESTIONS = {
    "class": "What is the class of this image? Please answer with a single letter (A, B, C or D).",
    "object": "What is the object category in this image? Please answer with a single letter (A, B, C or D).",
    "car": "What is the make and model of the car in this image? Please answer with a single letter (A, B, C or D).",
}
NAMES = ("tench", "goldfish", "crane", "cock")
LINES = "A. tench\nB. goldfish\nC. crane\nD. cock"


def ready_made(image: str, question: str, options: tuple[str, ...] = NAMES, response: str = "B") -> Row:
    """An item of the study's bundle."""
    lines = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=True))
    return {"image": image, "prompt": f"<image>\n{question}\n{lines}", "response": response}


def naming(folder: str, question: str, files: dict[str, str]) -> Case:
    """A naming set of the bundle, its last item with an option twice."""
    twice = ("crane", "tench", "crane", "cock")
    picture = f"{folder}/red.png"
    rows = [ready_made(picture, QUESTIONS[question]), ready_made(picture, QUESTIONS[question], twice, "C")]
    return Case(
        rows={f"{folder}/{file}.json": rows for file in files.values()},
        n=dict.fromkeys(files, 2),
        prompt=f"\n{QUESTIONS[question]}\n{LINES}",
        answer="B",
        options=NAMES,
        clusters=(f"image={picture}",),
        class_name="goldfish",
    )


def built(question: str, *splits: str) -> Case:
    """A set that `forgetbench data build` makes."""
    row = {"id": "n01", "image": "red.png", "options": list(NAMES), "answer": "B", "class_name": "goldfish"}
    return Case(
        rows={f"{split}.jsonl": [row] for split in splits},
        n=dict.fromkeys(splits, 1),
        id="n01",
        prompt=f"{QUESTIONS[question]}\n{LINES}",
        answer="B",
        options=NAMES,
        clusters=("image=red.png",),
        class_name="goldfish",
    )


BOTH = {"train": "train/train", "test": "test/test"}
WIKI = "Which family is it in?\nA. Cyprinidae\nB. Gadidae\nC. Esocidae\nD. Salmonidae\nChoose A, B, C, or D."
FAMILIES = ("Cyprinidae", "Gadidae", "Esocidae", "Salmonidae")
VALIDATION = "images/ILSVRC2012_val_00000001.JPEG"


def letters(image: str, question: str, *options: str, answer: str) -> Row:
    """An item of the bundle's BSCCM or PitVis."""
    lines = [f"{letter}. {option}" for letter, option in zip("ABCDEF", options, strict=True)]
    ending = "\nPlease answer with a single letter (A, B, C, D, E or F)."
    text = "\n".join([f"<image>\n{question}", *lines, ending])
    return {"id": image.rpartition("/")[2][:-4], "image": image, "question": text, "answer": answer, "metadata": {}}


CELLS = ("monocyte", "unclassified_cell", "lymphocyte", "granulocyte", "debris_or_artifact", "lymphocyte")
TOOLS = ("no_secondary_instrument", "out_of_patient", "suction", "kerrisons", "cup forceps", "spatula")
CELL_QUESTION = "Which white blood cell type does this dark field (50° illumination) image represent?"
TOOL_QUESTION = "What is the major surgical instrument being used in this frame?"
SIX = "Please answer with a single letter (A, B, C, D, E or F)."

FILES = {
    "imagenet_vqa": built("class", "train", "test"),
    "imagenetv2_vqa": built("class", "test"),
    "flowers102_vqa": built("class", "train", "test"),
    "caltech101_vqa": built("object", "train", "test"),
    "stanford_cars_vqa": built("car", "train", "test"),
    "vlmf_imagenet": naming("imagenet-vqa-json", "class", {"train": "train/train", "test": "val/val"}),
    "vlmf_imagenetv2": naming("imagenetv2-vqa-json", "class", {"test": "test/test"}),
    "vlmf_flowers102": naming("flowers102-vqa-json", "class", BOTH),
    "vlmf_caltech101": naming("caltech101-vqa-json", "object", BOTH),
    "vlmf_stanford_cars": naming("stanfordcars-vqa-json", "car", BOTH),
    "vlmf_imagewikiqa": Case(
        {"imagewikiqa-vqa-json/test/test.json": [{"image": VALIDATION, "prompt": f"<image>\n{WIKI}", "response": "A"}]},
        {"test": 1},
        f"\n{WIKI}",
        "A",
        options=FAMILIES,
        clusters=("question=<image>\nWhich family is it in?", f"image={VALIDATION}"),
    ),
    "vlmf_ocrvqa": Case(
        {
            f"OCR-VQA/{file}.json": [
                {
                    "image_path": "images/test/test_000000.jpg",
                    "question": "<image>\nWho wrote it?",
                    "answer": "K. Ito",
                }
            ]
            for file in ("train", "val", "test")
        },
        {"train": 1, "validation": 1, "test": 1},
        "\nWho wrote it?",
        ("K. Ito",),
        clusters=("image=images/test/test_000000.jpg",),
    ),
    "bsccm": Case(
        {
            f"BSCCM_vqa/{split}_vqa_dataset.json": [
                letters(f"BSCCM_vqa/{split}/images/bsccm_cell_000123_DF_50.jpg", CELL_QUESTION, *CELLS, answer="D")
            ]
            for split in ("train", "test")
        },
        {"train": 1, "test": 1},
        f"\n{CELL_QUESTION}\nA. monocyte\nB. unclassified_cell\nC. lymphocyte\nD. granulocyte\nE. debris_or_artifact"
        f"\n\n{SIX}",
        "D",
        id="bsccm_cell_000123_DF_50",
        options=CELLS[:5],
        clusters=("cell=000123",),
    ),
    "pitvis": Case(
        {
            f"surgical_vqa/{split}_vqa_dataset.json": [
                letters(f"surgical_vqa/{split}/images/video_01_frame_000030.jpg", TOOL_QUESTION, *TOOLS, answer="C")
            ]
            for split in ("train", "test")
        },
        {"train": 1, "test": 1},
        "\n".join(
            ["", TOOL_QUESTION, *(f"{letter}. {tool}" for letter, tool in zip("ABCDEF", TOOLS, strict=True)), "", SIX]
        ),
        "C",
        id="video_01_frame_000030",
        options=TOOLS,
        clusters=("video=01",),
    ),
    "imagewikiqa": Case(
        {
            "imagewikiqa.jsonl": [
                {"image": VALIDATION, "text": WIKI, "label": "A", "wiki": "A family of fish.", "classname": "tench"}
            ]
        },
        {"test": 1},
        WIKI,
        "A",
        options=FAMILIES,
        clusters=("question=Which family is it in?", "class_name=tench"),
        class_name="tench",
    ),
    "llava_665k": Case(
        {
            "llava_v1_5_mix665k.json": [
                {
                    "id": "000000033471",
                    "image": "coco/train2017/000000033471.jpg",
                    "conversations": [
                        {"from": "human", "value": "<image>\nWhat color is the bus?"},
                        {"from": "gpt", "value": "White and red."},
                        {"from": "human", "value": "Where is it?"},
                        {"from": "gpt", "value": "On a street."},
                    ],
                },
                {
                    "id": "wgByO4Y_0",
                    "model": "",
                    "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hello."}],
                },
            ]
        },
        {"train": 2},
        "user: <image>\nWhat color is the bus?\nassistant: White and red.\nuser: Where is it?",
        ("On a street.",),
        id="000000033471",
        clusters=("image=coco/train2017/000000033471.jpg",),
    ),
}
