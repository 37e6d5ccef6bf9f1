"""The rules and tables by which ftfy tells garbled text from text, in a form that clip/src/text/mojibake.cpp reads.

Run: python3 clip/data/make_mojibake.py      (needs ftfy 6.3; writes clip/data/mojibake.txt)

The rules are ftfy's (Robyn Speer, Apache License 2.0, https://github.com/rspeer/python-ftfy): its regular expressions, parsed here and written
as sequences of character sets. The code pages are those of Python.
"""
import re
from pathlib import Path
from re import _constants as sre
from re import _parser

import ftfy
from ftfy import badness, chardata


def one_set(op, value):
    """A set as text: ranges in hexadecimal joined by commas, 's' white space, 'w' word characters, a leading '!' for all others."""
    if op is sre.LITERAL:
        return f"{value:x}"
    if op is sre.NOT_LITERAL:
        return f"!{value:x}"
    if op is sre.ANY:
        return "!a"
    assert op is sre.IN, op
    parts, negate = [], ""
    for kind, item in value:
        if kind is sre.NEGATE:
            negate = "!"
        elif kind is sre.LITERAL:
            parts.append((item, item))
        elif kind is sre.RANGE:
            parts.append(item)
        else:
            assert kind is sre.CATEGORY
            parts.append({sre.CATEGORY_SPACE: "s", sre.CATEGORY_WORD: "w"}[item])
    ranges = []
    for low, high in sorted(p for p in parts if not isinstance(p, str)):
        if ranges and low <= ranges[-1][1] + 1:
            ranges[-1][1] = max(ranges[-1][1], high)
        else:
            ranges.append([low, high])
    text = [f"{low:x}" if low == high else f"{low:x}-{high:x}" for low, high in ranges]
    return negate + ",".join(text + [p for p in parts if isinstance(p, str)])


def sequences(items):
    """All fixed sequences of sets that a parsed expression matches, in its order of preference."""
    out = [[]]
    for op, value in items:
        if op is sre.BRANCH:
            choices = [s for branch in value[1] for s in sequences(branch)]
        elif op is sre.SUBPATTERN:
            choices = sequences(value[3])
        elif op is sre.MAX_REPEAT:
            low, high, inner = value
            choices = [s * n for n in range(int(high), int(low) - 1, -1) for s in sequences(inner)]
        elif op is sre.AT:
            assert value is sre.AT_BEGINNING
            choices = [["^"]]
        else:
            choices = [[one_set(op, value)]]
        out = [head + tail for head in out for tail in choices]
    return out


def rules(kind, pattern):
    parsed = _parser.parse(pattern.pattern, pattern.flags)
    return [" ".join([kind, *s]) for s in sequences(parsed)]


def main():
    lines = [f"# Made by make_mojibake.py from ftfy {ftfy.__version__} (Robyn Speer, Apache License 2.0)."]
    for name in chardata.CHARMAP_ENCODINGS:
        high = bytes(range(0x80, 0x100)).decode(name)
        lines.append(" ".join(["page", name, *(f"{ord(c):x}" for c in high)]))
    lines += rules("bad", badness.BADNESS_RE)
    lines += rules("altered", chardata.ALTERED_UTF8_RE)
    lines += rules("lossy", chardata.LOSSY_UTF8_RE)
    for name, chars in chardata.UTF8_CLUES.items():
        set_of = _parser.parse(f"[{chars}]")
        lines.append(f"clue {name} {one_set(*set_of[0])}")
    for code, text in chardata.LIGATURES.items():
        lines.append(f"ligature {code:x} " + " ".join(f"{ord(c):x}" for c in text))
    Path(__file__).with_name("mojibake.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
