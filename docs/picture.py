"""The picture of the README: drawn faces that no training saw, with what the demonstration's net says of each.

make demo picture
"""

import pathlib

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from toolkit.labels import CLASS_NAMES
from toolkit.settings import DEMO

PICTURE = pathlib.Path("docs/predictions.jpg")
COLUMNS, ROWS, FACE, LINE_PX = 6, 3, (192, 256), 20
RIGHT, WRONG = (20, 110, 60), (176, 24, 40)


def main() -> None:
    said = pd.read_csv(DEMO / "output" / "output.csv").set_index("ImageID")["ans"]
    truth = pd.read_csv(DEMO / "data" / "eval" / "gt.csv").set_index("ImageID")["ans"]
    # One photograph of every class, by the alphabet: nobody picked the ones that went well.
    images = truth.sort_index().reset_index().groupby("ans")["ImageID"].first()
    cell = (FACE[0] + 8, FACE[1] + 2 * LINE_PX + 12)
    sheet = Image.new("RGB", (COLUMNS * cell[0] + 8, ROWS * cell[1] + 8), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for number, image in enumerate(images):
        x, y = 8 + number % COLUMNS * cell[0], 8 + number // COLUMNS * cell[1]
        face = Image.open(DEMO / "data" / "eval" / "images" / image).resize(FACE, Image.Resampling.LANCZOS)
        sheet.paste(face, (x, y))
        right = said[image] == truth[image]
        words = CLASS_NAMES[said[image]].replace("_", " ")
        draw.text((x, y + FACE[1] + 2), words, RIGHT if right else WRONG, font)
        if not right:
            draw.text((x, y + FACE[1] + 2 + LINE_PX), f"is {CLASS_NAMES[truth[image]].replace('_', ' ')}", WRONG, font)
    sheet.save(PICTURE, quality=85)
    print(f"written: {PICTURE}, {(said[images] == truth[images]).sum()} of {len(images)} right")


if __name__ == "__main__":
    main()
