"""Rows of the public sets on the Hub, in the columns and types of their cards."""

from __future__ import annotations

from tests.data.public_rows.case import BLUE, RED, Case, Row

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
CAPTION = "Provide a one-sentence caption for the provided image."
MASKED = "Given a set of images and a question, please provide the answer to the question."


def mmmu(number: int, **changed: object) -> Row:
    """A question of MMMU; seven columns of pictures, most of them empty."""
    pictures = {f"image_{place}": RED if place == 1 else None for place in range(1, 8)}
    return {
        "id": f"validation_Art_{number}",
        "question": "Who painted <image 1>?",
        "options": "['Goya', \"Chardin's pupil\", 'Goya']",
        "explanation": "",
        **pictures,
        "img_type": "['Paintings']",
        "answer": "B",
        "topic_difficulty": "Easy",
        "question_type": "multiple-choice",
        "subfield": "Art",
    } | changed


MMMU_ROWS = {
    "Art/validation": [mmmu(1), mmmu(2, question_type="open", options="[]", answer="['1/3', '0.33']")],
    "Math/validation": [
        mmmu(3, options="['<image 1>', '<image 2>']", answer="A", image_2=BLUE),
        mmmu(4, question_type="open", options="[]", answer="7"),
    ],
}


def vmcbench(category: str) -> Row:
    """A question of VMCBench."""
    return {
        "index": 5,
        "question": "Which color?",
        **dict(zip("ABCD", ("red", "blue", "None", "grey"), strict=True)),
        "answer": "A",
        "category": category,
        "image": RED,
    }


VMCBENCH_PROMPT = f"Question: Which color?\nOptions:\nA. red\nB. blue\nC. None\nD. grey\n{LETTER}"
FOUR = ("red", "blue", "None", "grey")


def people(*answers: str) -> list[Row]:
    """VQAv2's ten people, or some of them."""
    return [
        {"answer": text, "answer_confidence": "yes", "answer_id": number}
        for number, text in enumerate(answers, start=1)
    ]


def textvqa(image: Row, answers: list[str]) -> Row:
    """A question of TextVQA."""
    return {
        "image_id": "0054c91397f2fe05",
        "question_id": 34602,
        "question": "what is the brand of ATM?",
        "question_tokens": ["what"],
        "image": image,
        "image_width": 4,
        "image_height": 2,
        "flickr_original_url": "",
        "flickr_300k_url": "",
        "answers": answers,
        "image_classes": ["Machine"],
        "set_name": "val",
        "ocr_tokens": ["NCR", "24"],
    }


TEXTVQA = {
    "n": {"train": 1, "validation": 1},
    "rows": {"train": [textvqa(BLUE, ["ncr"])], "validation": [textvqa(RED, ["", "ncr", "diebold", "ncr"])]},
    "answer": ("ncr", "ncr", "diebold", ""),
    "clusters": ("image_id=0054c91397f2fe05",),
    "id": "34602",
    "types": {"question_id": "int32", "image_width": "int32", "image_height": "int32"},
}


def scienceqa(hint: str, choices: list[str], answer: int) -> Row:
    """A question of ScienceQA."""
    empty = dict.fromkeys(("task", "grade", "subject", "topic", "category", "skill", "lecture", "solution"), "")
    return {"image": RED, "question": "Is it warm?", "choices": choices, "answer": answer, "hint": hint} | empty


def iconqa(kind: str, choices: str, answer: str, number: int = 1) -> Row:
    """A question of IconQA."""
    return {
        "question_id": f"{kind}-{number}",
        "question": "How many are red",
        "choices": choices,
        "answer": answer,
        "query_image": RED,
        "choice_image_0": BLUE if kind == "choose_img" else None,
        "choice_image_1": BLUE if kind == "choose_img" else None,
        "ques_type": kind,
        "label": "S2",
        "grade": "grade1",
        "skills": "counting",
    }


ICONQA = [
    iconqa("choose_img", "", "0"),
    iconqa("choose_txt", "2,3,5", "3"),
    iconqa("choose_txt", "1,000,2,000", "2,000", number=2),
    iconqa("choose_txt", "2,,3", "3", number=3),
    iconqa("choose_txt", "yes,no", "no", number=4),
    iconqa("fill_in_blank", "", "4"),
]


def mmbench(index: int, hint: str, *options: str, answer: str) -> Row:
    """A question of MMBench."""
    shown = {letter: options[place] if place < len(options) else "nan" for place, letter in enumerate("ABCD")}
    rest = {"category": "x", "source": "y", "L2-category": "z", "comment": "nan", "split": "dev"}
    return {
        "index": str(index),
        "question": "What is it?",
        "hint": hint,
        "answer": answer,
        **shown,
        "image": RED,
    } | rest


def flickr(name: str, image: Row) -> Row:
    """A picture of Flickr30k."""
    return {
        "image": image,
        "caption": ["A dog runs.", "The dog is running."],
        "sentids": ["0", "1"],
        "split": "test",
        "img_id": name,
        "filename": f"{name}.jpg",
    }


def karpathy(folder: str, number: int) -> Row:
    """A picture of COCO in Karpathy's list."""
    name = f"COCO_{folder}_{number:012}.jpg"
    return {
        "filepath": folder,
        "sentids": [1, 2],
        "filename": name,
        "imgid": number,
        "split": "test",
        "sentences": ["A dog runs.", "The dog is running."],
        "cocoid": number,
        "url": f"http://images.cocodataset.org/{folder}/{name}",
    }


KARPATHY_TYPES = {"imgid": "int32", "cocoid": "int32"}


def chart(image: Row) -> Row:
    """A question of ChartQA as HuggingFaceM4 lays it out."""
    return {"image": image, "query": "What is the share?", "label": ["14%"], "human_or_machine": 0}


def docvqa(split: str, number: str, answers: list[str]) -> Row:
    """A question of DocVQA."""
    return {
        "questionId": number,
        "question": "What is the date?",
        "question_types": ["form"],
        "image": RED,
        "docId": 14465,
        "ucsf_document_id": "pybv0228",
        "ucsf_document_page_no": "81",
        "answers": answers,
        "data_split": split,
    }


def gqa_question(number: str, picture: str) -> Row:
    """A question of GQA."""
    row = {"id": number, "imageId": picture, "question": "Is it a dog?", "answer": "no", "fullAnswer": "No, a cat."}
    return row | {"isBalanced": True, "groups": {"global": None, "local": "06-dog"}}


def pathology(*pairs: tuple[str, str]) -> list[Row]:
    """Questions of PathVQA, all on one picture."""
    return [{"image": RED, "question": question, "answer": answer} for question, answer in pairs]


PATHVQA = {
    "train": pathology(("where are liver stem cells located?", "in the canals of hering"), ("is it red?", "Yes")),
    "validation": pathology(("is it blue?", "no")),
    "test": pathology(("is it necrotic?", "yes"), ("what is shown?", "liver")),
}

HUB = {
    "mmmu_val": Case(
        rows=MMMU_ROWS,
        n={"validation": 2},
        id="validation_Art_1",
        prompt=(
            "Question: Who painted <image>?\nOptions:\nA. Goya\nB. Chardin's pupil\n"
            "Please select the correct answer from the options above."
        ),
        answer="B",
        options=("Goya", "Chardin's pupil"),
    ),
    "mmmu_val_open": Case(
        rows=MMMU_ROWS,
        n={"validation": 2},
        id="validation_Art_2",
        prompt=f"Who painted <image>?\n{SHORT}",
        answer=("1/3", "0.33"),
    ),
    "vmcbench_dev": Case(
        {"dev": [vmcbench("OCRVQA"), vmcbench("MMStar")]}, {"dev": 2}, VMCBENCH_PROMPT, "A", options=FOUR
    ),
    "vmcbench_dev_unmixed": Case(
        {"dev": [vmcbench(name) for name in ("OCRVQA", "A-OKVQA", "VizWiz", "GQA", "MMStar", "SEEDBench")]},
        {"dev": 2},
        VMCBENCH_PROMPT,
        "A",
        options=FOUR,
    ),
    "ocrvqa": Case(
        rows={
            split: [
                {
                    "image": RED,
                    "image_id": "0471014591",
                    "questions": ["Who wrote this book?", "What is the title?", "Is this a sci-fi book?", "Why?"],
                    "answers": ["K. Nakamoto", "", "No", None],
                    "ocr_tokens": ["ATLAS"],
                    "ocr_info": [{"word": "ATLAS", "bounding_box": {"width": 0.1, "height": 0.1}}],
                    "title": "Atlas",
                    "authorName": "K. Nakamoto",
                    "genre": "Science",
                    "image_width": 4,
                    "image_height": 2,
                    "image_url": "http://x/y.jpg",
                    "set_name": split,
                }
            ]
            for split in ("train", "validation", "test")
        },
        n={"train": 2, "validation": 2, "test": 2},
        prompt="Who wrote this book?",
        answer=("K. Nakamoto",),
        clusters=("image_id=0471014591",),
    ),
    "okvqa": Case(
        rows={
            "val2014": [
                {
                    "question_id": "2971475",
                    "image": RED,
                    "question": "What sport uses this?",
                    "answers": ["race", "racing", "racing", "motocross"],
                    "question_type": "one",
                    "answer_type": "other",
                }
            ]
        },
        n={"validation": 1},
        id="2971475",
        prompt=f"What sport uses this?\n{SHORT}",
        answer=("racing", "racing", "race", "motocross"),
    ),
    "textvqa": Case(prompt=f"What is the brand of atm?\n{SHORT}", **TEXTVQA),
    "textvqa_ocr": Case(prompt=f"What is the brand of atm?\nReference OCR token: NCR, 24\n{SHORT}", **TEXTVQA),
    "gqa": Case(
        rows={
            "testdev_balanced_images/testdev": [{"id": "n1", "image": BLUE}, {"id": "n2", "image": RED}],
            "testdev_balanced_instructions/testdev": [gqa_question("201307251", "n2"), gqa_question("201307252", "n2")],
        },
        n={"testdev": 2},
        id="201307251",
        prompt=f"Is it a dog?\n{SHORT}",
        answer=("no",),
        clusters=("imageId=n2",),
    ),
    "vizwiz_vqa": Case(
        rows={
            "val": [
                {
                    "question_id": "VizWiz_val_00000000.jpg",
                    "image": RED,
                    "question": "Ok. There is another picture?",
                    "answers": ["unanswerable", "yes", "unanswerable", ""],
                    "category": "unanswerable",
                }
            ]
        },
        n={"validation": 1},
        id="VizWiz_val_00000000.jpg",
        prompt=(
            "Ok. there is another picture?\n"
            f"When the provided information is insufficient, respond with 'Unanswerable'.\n{SHORT}"
        ),
        answer=("unanswerable", "unanswerable", "yes", ""),
    ),
    "scienceqa_img": Case(
        rows={
            "ScienceQA-IMG/train": [scienceqa("", ["yes", "no"], 0)],
            "ScienceQA-IMG/validation": [scienceqa("", ["yes", "no", "maybe", "3", "2"], 4)],
            "ScienceQA-IMG/test": [scienceqa("Look at the sun.", ["no", "yes"], 1), scienceqa("", ["1", "0"], 1)],
        },
        n={"train": 1, "validation": 1, "test": 2},
        prompt=f"Context: Look at the sun.\nIs it warm?\nA. no\nB. yes\n{LETTER}",
        answer="B",
        options=("no", "yes"),
        types={"answer": "int8"},
    ),
    "iconqa": Case(
        rows={"val": ICONQA, "test": ICONQA},
        n={"validation": 2, "test": 2},
        id="choose_txt-1",
        prompt=(
            f"{MASKED}\nQuestion: How many are red.\nOptions:\nA. 2\nB. 3\nC. 5\n"
            "Please answer with the option letter from the given choices directly."
        ),
        answer="B",
        options=("2", "3", "5"),
    ),
    "iconqa_blank": Case(
        rows={"val": ICONQA, "test": ICONQA},
        n={"validation": 1, "test": 1},
        id="fill_in_blank-1",
        prompt=f"How many are red\n{SHORT}",
        answer=("4",),
    ),
    "pope": Case(
        rows={
            "test": [
                {
                    "id": "0",
                    "question_id": "1",
                    "question": "Is there a snowboard in the image?",
                    "answer": answer,
                    "image_source": "COCO_val2014_000000310196",
                    "image": RED,
                    "category": category,
                }
                for answer, category in (("yes", "adversarial"), ("no", "popular"))
            ]
        },
        n={"test": 2},
        prompt=f"Is there a snowboard in the image?\n{SHORT}",
        answer="yes",
        options=("yes", "no"),
        clusters=("image_source=COCO_val2014_000000310196",),
    ),
    "mmbench_dev_en": Case(
        rows={
            "en/dev": [
                mmbench(241, "It is warm.", "a cat", "a dog", answer="B"),
                mmbench(1_000_241, "nan", "a dog", "a cat", "a cow", "an owl", answer="A"),
            ]
        },
        n={"dev": 2},
        id="241",
        prompt=f"It is warm. What is it?\nA. a cat\nB. a dog\n{LETTER}",
        answer="B",
        options=("a cat", "a dog"),
        clusters=("base=241",),
    ),
    "pathvqa": Case(PATHVQA, {"train": 2, "validation": 1, "test": 2}, f"is it necrotic?\n{SHORT}", ("yes",)),
    "pathvqa_yesno": Case(
        PATHVQA, {"train": 1, "validation": 1, "test": 1}, f"is it necrotic?\n{SHORT}", "yes", options=("yes", "no")
    ),
    "textcaps": Case(
        rows={
            split: [
                {
                    "question_id": "1",
                    "question": "Please carefully observe the image and come up with a caption for the image",
                    "image": RED,
                    "image_id": "0054c91397f2fe05",
                    "caption_str": ["A red sign."],
                    "reference_strs": ["A red sign.", "A sign that says stop."],
                }
            ]
            for split in ("train", "val")
        },
        n={"train": 1, "validation": 1},
        prompt=CAPTION,
        answer=("A red sign.", "A sign that says stop."),
    ),
    "flickr30k": Case(
        rows={"train": [flickr("0", BLUE)], "val": [flickr("1", BLUE)], "test": [flickr("67", RED)]},
        n={"train": 1, "validation": 1, "test": 1},
        id="67",
        prompt=CAPTION,
        answer=("A dog runs.", "The dog is running."),
    ),
    "coco_caption": Case(
        rows={
            "train": [karpathy("train2014", 57870)],
            "restval": [karpathy("val2014", 522418)],
            "validation": [karpathy("val2014", 184613)],
            "test": [karpathy("val2014", 391895)],
        },
        n=dict.fromkeys(("train", "restval", "validation", "test"), 1),
        id="391895",
        prompt=CAPTION,
        answer=("A dog runs.", "The dog is running."),
        clusters=("image=val2014/COCO_val2014_000000391895.jpg",),
        types=KARPATHY_TYPES,
    ),
    "coco_caption_2017": Case(
        rows={
            "val": [
                {
                    "question_id": "000000397133.jpg",
                    "image": RED,
                    "question": "Please carefully observe the image and come up with a caption for the image.",
                    "answer": ["A man in a kitchen.", "A man makes pizza."],
                    "id": 397133,
                    "license": 1,
                    "file_name": "000000397133.jpg",
                    "coco_url": "http://images.cocodataset.org/val2017/000000397133.jpg",
                    "height": 2,
                    "width": 4,
                    "date_captured": "2013-11-14 17:02:52",
                }
            ]
        },
        n={"validation": 1},
        id="397133",
        prompt=CAPTION,
        answer=("A man in a kitchen.", "A man makes pizza."),
        types={"license": "int8", "height": "int32", "width": "int32"},
    ),
    "vqav2": Case(
        rows={
            "validation": [
                {
                    "question_type": "is this",
                    "multiple_choice_answer": "yes",
                    "answers": people("no", "yes", "yes"),
                    "image_id": 262148,
                    "answer_type": "yes/no",
                    "question_id": 262148000,
                    "question": "Is this safe?",
                    "image": RED,
                }
            ]
        },
        n={"validation": 1},
        id="262148000",
        prompt=f"Is this safe?\n{SHORT}",
        answer=("yes", "yes", "no"),
        clusters=("image_id=262148",),
    ),
    "chartqa": Case(
        {"test": [{"type": "human_test", "question": "How many?", "answer": "14", "image": RED}]},
        {"test": 1},
        "How many?\nAnswer the question with a single word.",
        ("14",),
    ),
    "chartqa_train": Case(
        {"train": [chart(BLUE)], "val": [chart(BLUE)], "test": [chart(RED)]},
        {"train": 1, "validation": 1, "test": 1},
        "What is the share?\nAnswer the question with a single word.",
        ("14%",),
    ),
    "docvqa": Case(
        rows={
            "DocVQA/train": [docvqa("train", "1", ["1/8/93"])],
            "DocVQA/validation": [docvqa("val", "49153", ["1/8/93", "8 January 1993"])],
        },
        n={"train": 1, "validation": 1},
        id="49153",
        prompt=f"What is the date?\n{SHORT}",
        answer=("1/8/93", "8 January 1993"),
        clusters=("docId=14465",),
    ),
    "ai2d": Case(
        {"test": [{"question": "Which stage?", "options": ["2", "1", "3", "4"], "answer": "1", "image": RED}]},
        {"test": 1},
        f"Which stage?\nA. 2\nB. 1\nC. 3\nD. 4\n{LETTER}",
        "B",
        options=("2", "1", "3", "4"),
    ),
    "cauldron_okvqa": Case(
        {
            "okvqa/train": [
                {
                    "images": [RED],
                    "texts": [
                        {"user": "What sport?\nQuick response, please.", "assistant": "Racing.", "source": "okvqa"},
                        {"user": "Where?\nQuick response, please.", "assistant": "Outside.", "source": "okvqa"},
                    ],
                }
            ]
        },
        {"train": 2},
        "What sport?\nQuick response, please.",
        ("Racing.",),
    ),
    "cauldron_iconqa": Case(
        {
            "iconqa/train": [
                {
                    "images": [RED, BLUE],
                    "texts": [{"user": "Which?\nChoices:\nA. 1.\nB. 2.", "assistant": "Answer: B", "source": "iconqa"}],
                }
            ]
        },
        {"train": 1},
        "Which?\nChoices:\nA. 1.\nB. 2.",
        ("Answer: B",),
        pictures=("red", "blue"),
    ),
}
