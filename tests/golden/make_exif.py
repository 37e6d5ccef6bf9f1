"""Small pictures with every EXIF orientation, and the hashes of what Pillow's exif_transpose makes of them.

Run: python3 tests/golden/make_exif.py      (writes tests/clip/data/exif_*; prints the table of tests/clip/image.cpp)
"""
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

DATA = Path(__file__).parents[1] / "clip" / "data"


def main():
    a = np.zeros((16, 24, 3), np.uint8)
    a[..., 0] = np.arange(24) * 10
    a[..., 1] = (np.arange(16) * 15)[:, None]
    a[:5, :7] = 255
    picture = Image.fromarray(a)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(DATA / f"exif_{orientation}.jpg", quality=95, exif=exif)
        if orientation == 8:
            picture.save(DATA / "exif_8.png", exif=exif)
            picture.save(DATA / "exif_8.webp", lossless=True, exif=exif)
    for path in sorted(DATA.glob("exif_*")):
        upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        print(path.name, upright.size, hashlib.sha256(upright.tobytes()).hexdigest()[:16])


if __name__ == "__main__":
    main()
