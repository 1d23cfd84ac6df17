"""Draw docs/images/matrix.png: the 2x2 of the embedded world, one held-out item in each quadrant.

python -m tools.draw_matrix
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from forgetbench.core.records import QUADRANTS
from forgetbench.data.catalogue import Catalogue
from forgetbench.data.pictures import decode_image
from forgetbench.data.quadrant import place
from forgetbench.data.sources import load_samples

TARGET = "fashion_naming"
SHOWN = {
    "id_text-id_image": ("fashion_naming", 3),
    "id_text-ood_image": ("emoji_naming", 5),
    "ood_text-id_image": ("fashion_knowledge", 0),
    "ood_text-ood_image": ("digits_questions", 2),
}
TITLES = {
    "id_text-id_image": "the fine-tuning task, held-out pictures",
    "id_text-ood_image": "the same question, other pictures",
    "ood_text-id_image": "other questions, the same pictures",
    "ood_text-ood_image": "everything else the model could do",
}
CELL, LEFT, TOP, PICTURE = (560, 250), 130, 56, 150
INK, FAINT, LINE = "#1f2328", "#59636e", "#d1d9e0"
OUT = Path(__file__).resolve().parents[1] / "docs/images/matrix.png"


def main() -> None:
    """Write the picture."""
    catalogue = Catalogue()
    sheet = Image.new("RGB", (LEFT + 2 * CELL[0] + 2, TOP + 2 * CELL[1] + 2), "white")
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(("ID image", "OOD image")):
        pen.text((LEFT + column * CELL[0] + 18, 18), name, INK, _font(24))
    for row, name in enumerate(("ID text", "OOD text")):
        pen.text((12, TOP + row * CELL[1] + CELL[1] // 2 - 14), name, INK, _font(24))
    for index, quadrant in enumerate(QUADRANTS):
        row, column = divmod(index, 2)
        corner = (LEFT + column * CELL[0], TOP + row * CELL[1])
        pen.rectangle((*corner, corner[0] + CELL[0], corner[1] + CELL[1]), outline=LINE, width=2)
        name, item = SHOWN[quadrant]
        manifest = catalogue.load(name)
        assert place(catalogue.load(TARGET), manifest).quadrant == quadrant
        sample = load_samples(manifest, manifest.eval_split, item + 1)[item]
        picture = decode_image(sample.images[0]).resize((PICTURE, PICTURE), Image.Resampling.NEAREST)
        sheet.paste(picture, (corner[0] + 18, corner[1] + 58))
        pen.text((corner[0] + 18, corner[1] + 16), TITLES[quadrant], FAINT, _font(19))
        lines = sample.prompt.replace(" Please", "\nPlease").replace("letter (", "letter\n(").splitlines()
        pen.multiline_text((corner[0] + 190, corner[1] + 56), "\n".join(lines), INK, _font(17), spacing=5)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(128).save(OUT, optimize=True)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


if __name__ == "__main__":
    main()
