"""Token ids of open_clip's SimpleTokenizer for 200,000 strings, as hashes: with ftfy (mode `ftfy`, as open_clip runs) and with ftfy replaced by the
identity (mode `none`).

Run: python3 tests/golden/make_tokenizer_blocks.py      (a minute; writes tests/golden/data/tokenizer_blocks.json)

The strings are made by rule from tokenizer_words.txt.gz (names of emoji in 12 languages and the emoji, from Unicode CLDR by way of emojibase-data
17.0.0; Unicode License v3, MIT), from the code points that Unicode 14 assigns, and from the code pages of clip/data/mojibake.txt.
tests/clip/tokenizer_blocks.cpp makes the same. Whatever is changed here must be changed there.
"""
import gzip
import hashlib
import html
import json
import re
import sys
import unicodedata
from pathlib import Path

DATA = Path(__file__).parent / "data"
BLOCKS, SIZE = 200, 1000
MASK = (1 << 64) - 1
# Between names, and into them. Kept in step with the C++ test.
JOINTS = [" ", "  ", ", ", "-", "/", "\t", " & ", "'s ", "\u00a0", "\u3000", " \u2019", ". "]
ENTITIES = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "&eacute;", "&EACUTE;", "&Eacute", "&nbsp;", "&#233;", "&#xE9;", "&amp;amp;", "&notit;",
            "&hellip;", "&frac12;", "&#128;", "&#x1F600;", "<b>", "</b>", "&AMP;lt;", "&copy", "&unknown;", "&#0;", "&;"]
MARKS = ["\u200d", "\ufe0f", "\ufe0e", "\U0001f3fb", "\U0001f3ff", "\u20e3", "\U0001f1e9", "\U0001f1ea", "\U000e0067", "\U000e007f", "#", "1"]
ODD = ["\r\n", "\n", "\x85", "\x1b[3;4m", "\x00", "\ufeff", "\ufffd", "\u2018", "\u201d", "\ufb01", "\u0149", "\uff21", "\uff76", "\u0130", "\u03a3",
       "<start_of_text>", "<|endoftext|>", "\u212b", "e\u0301", "\xc3 ", "?"]


class Random:
    """splitmix64 (Steele, Lea, Flood 2014)."""

    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, n):
        return self.next() % n

    def of(self, items):
        return items[self.below(len(items))]


def assigned_ranges():
    """First and last of every run of code points that Unicode 14 assigns, without surrogates."""
    out = []
    for c in range(0x110000):
        if unicodedata.category(chr(c)) in ("Cn", "Cs"):
            continue
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def code_pages():
    lines = (Path(__file__).parents[2] / "clip" / "data" / "mojibake.txt").read_text("utf-8").splitlines()
    return [[chr(int(x, 16)) for x in line.split()[2:]] for line in lines if line.startswith("page ")]


class Strings:
    def __init__(self, ranges):
        lines = gzip.decompress((DATA / "tokenizer_words.txt.gz").read_bytes()).decode("utf-8").splitlines()
        self.emoji = [line[2:] for line in lines if line.startswith("e ")]
        self.names = [line[2:] for line in lines if line.startswith("n ")]
        self.ranges = ranges
        self.low = [r for r in ranges if r[1] < 0x2600]
        self.pages = code_pages()

    def name(self, r, most):
        text = r.of(self.names)
        for _ in range(r.below(most)):
            text += r.of(JOINTS) + r.of(self.names)
        return text

    def points(self, r, ranges):
        text = ""
        for _ in range(1 + r.below(24)):
            first, last = r.of(ranges)
            text += chr(first + r.below(last - first + 1))
            if r.below(6) == 0:
                text += r.of([" ", "7", "'"])
        return text

    def insert(self, r, text, items):
        for _ in range(1 + r.below(3)):
            at = r.below(len(text) + 1)
            text = text[:at] + r.of(items) + text[at:]
        return text

    def garbled(self, r, text):
        for _ in range(1 + r.below(2)):
            page = r.of(self.pages)
            text = "".join(chr(b) if b < 0x80 else page[b - 0x80] for b in text.encode("utf-8"))
        return text.replace("\xa0", " ") if r.below(4) == 0 else text

    def make(self, index):
        r = Random(index * 0x2545F4914F6CDD1D & MASK)
        kind = index % 20
        if kind < 6:
            return self.name(r, 4)
        if kind < 8:
            return self.points(r, self.ranges)
        if kind < 10:
            return self.points(r, self.low)
        if kind < 12:
            return self.insert(r, self.name(r, 3), ENTITIES)
        if kind < 14:
            text = ""
            for _ in range(1 + r.below(8)):
                text += r.of(self.emoji)
                if r.below(3) == 0:
                    text += r.of(MARKS)
            return text
        if kind < 16:
            return self.garbled(r, self.name(r, 2))
        if kind < 17:
            return self.insert(r, self.garbled(r, self.name(r, 2)), ENTITIES + ODD)
        if kind < 18:
            return self.insert(r, self.name(r, 3), ODD)
        if kind < 19:
            return "".join(chr(0x20 + r.below(0x5F)) for _ in range(1 + r.below(60)))
        return self.name(r, 40 if index % 100 == 19 else 4).upper()


def digest(lines):
    return hashlib.sha256("".join(",".join(map(str, ids)) + "\n" for ids in lines).encode()).hexdigest()


def block(number):
    import ftfy
    from open_clip.tokenizer import SimpleTokenizer, whitespace_clean
    if not hasattr(block, "strings"):
        block.strings = Strings(json.loads((DATA / "tokenizer_blocks.json").read_text())["assigned"])
        block.tokenizer = SimpleTokenizer()
    texts = [block.strings.make(number * SIZE + k) for k in range(SIZE)]
    tokenizer, with_ftfy = block.tokenizer, block.tokenizer.clean_fn
    altered = 0
    ids = {"ftfy": [], "none": []}
    for text in texts:
        ids["ftfy"].append(tokenizer.encode(text))
        tokenizer.clean_fn = lambda t: whitespace_clean(html.unescape(html.unescape(t)).strip()).lower()
        ids["none"].append(tokenizer.encode(text))
        tokenizer.clean_fn = with_ftfy
        altered += ids["ftfy"][-1] != ids["none"][-1]
    return {"text": hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16], "none": digest(ids["none"])[:32], "ftfy": digest(ids["ftfy"])[:32],
            "altered": altered}


def make_words(tsv):
    """tokenizer_words.txt.gz from the labels of emojibase."""
    rows = [line.split("\t") for line in Path(tsv).read_text("utf-8").splitlines()[1:]]
    lines = dict.fromkeys(f"e {row[1]}" for row in rows)
    lines |= dict.fromkeys(f"n {name}" for row in rows for name in row[2:] if name)
    (DATA / "tokenizer_words.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode(), 9, mtime=0))


def main():
    if len(sys.argv) > 2 and sys.argv[1] == "--words":
        return make_words(sys.argv[2])
    path = DATA / "tokenizer_blocks.json"
    path.write_text(json.dumps({"assigned": assigned_ranges()}))
    blocks = [block(number) for number in range(BLOCKS)]
    import ftfy
    import open_clip
    import regex
    out = {"made_with": f"open_clip {open_clip.__version__}, ftfy {ftfy.__version__}, regex {regex.__version__}, Unicode {unicodedata.unidata_version}",
           "altered_by_ftfy": sum(b["altered"] for b in blocks), "assigned": assigned_ranges(), "blocks": blocks}
    text = json.dumps(out)
    path.write_text(re.sub(r"(\}, )", "},\n", text) + "\n")


if __name__ == "__main__":
    main()
