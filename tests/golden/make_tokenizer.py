"""Token ids of open_clip's SimpleTokenizer for many strings, without ftfy: HTML unescape twice, strip, collapse whitespace, lower.

Run: python3 tests/golden/make_tokenizer.py      (reads tokenizer_names.tsv, writes tests/golden/data/tokenizer.json, a second)

The names in tokenizer_names.tsv come from Unicode CLDR by way of emojibase-data 17.0.0 (Unicode License v3, MIT).
"""
import html
import unicodedata
from pathlib import Path

import regex
from open_clip.tokenizer import SimpleTokenizer, whitespace_clean

import golden

# Published golden vectors of CLIP's tokenizer: body ids, without start and end.
PUBLISHED = {
    "a diagram": [320, 22697],
    "a dog": [320, 1929],
    "a cat": [320, 2368],
    "hello world!": [3306, 1002, 256],
    "a photo of a cat.": [320, 1125, 539, 320, 2368, 269],
    "this is a test string of text": [589, 533, 320, 1628, 9696, 539, 4160],
    "You should've done this": [592, 1535, 1200, 1700, 589],
    "I'm can't WE'LL they'd": [328, 880, 753, 713, 649, 1342, 889, 1896],
    "1233": [272, 273, 274, 274],
    "12 33": [272, 273, 274, 274],
    "1,234.5": [272, 267, 273, 274, 275, 269, 276],
    "CLIP's ViT-B/32 @ 224px": [9289, 568, 35580, 268, 321, 270, 274, 273, 287, 273, 273, 275, 10262],
    "C++": [322, 19056],
    "foo@bar.com https://x.y/z": [23435, 287, 2411, 269, 2464, 30901, 12441, 343, 269, 344, 270, 345],
    "  multiple   spaces\tand\nnewlines ": [6470, 9006, 537, 1218, 3418],
    "a\u00a0b": [320, 321],
    "a\u3000b": [320, 321],
    "a\u0085b": [320, 321],
    "\u200b": [9844],
    "&lt;b&gt; &amp;amp; html": [283, 321, 285, 261, 18231],
    "naïve café": [1097, 35689, 563, 15304],
    "Ünïcödé": [6522, 77, 35689, 66, 7255, 67, 4166],
    "İstanbul": [328, 16384, 11231],
    "ΑΒΓς": [138, 109, 138, 110, 138, 111, 139, 480],
    "Straße ÉCOLE": [1894, 127, 253, 324, 3459, 8166],
    "日本語のテキスト": [39121, 44353, 34002, 252, 21575, 2429, 228, 47121, 32421, 486],
    "🙂👍": [32006, 4201],
    "²½ Ⅷ ٣": [41175, 33613, 158, 227, 371, 149, 352],
    "!!! ??? ...": [995, 3824, 678],
    "supercalifragilisticexpialidocious": [1642, 2857, 13093, 2076, 5868, 26850, 835, 639, 38466],
    "a" * 80: [23126] * 9 + [6727, 19336],
    "x_y-z": [343, 318, 344, 268, 345],
    "\u017f'\u017f \u212a": [129, 379, 6, 129, 379, 330],
    "mixedCASE123abc": [29376, 2068, 272, 273, 274, 5334],
    "": [],
    "  ": [],
}
PUBLISHED_OPENAI = {"<|startoftext|> inside <|endoftext|>": [49406, 2912, 49407]}
SPECIAL = ["<start_of_text> inside <end_of_text>", "<START_OF_TEXT>", "<start_of_text", "a<end_of_text>b", "<|startoftext|>",
           "x<|endoftext|>y", "<|ENDOFTEXT|>", "<|startoftext|", "<end_of_text>'s"]

HTML = """&amp;lt;3 love|&quot;quoted&quot; &#39;text&#39;|caf&eacute; &copy; 2021|&amp;amp;amp;|&#x1F600; &#128512;|a&nbsp;b&#160;c|&notit; &not in|
&hellip;&mdash;&euro;100|&#0; &#xD800; &#x110000;|&#128; &#150;|&unknown; entity|AT&T &am p;|&lt;p class=&quot;x&quot;&gt;hi&lt;/p&gt;|&copycat &regular|
&#x41;&#X42;&#67|&#xZZ; &#;|<b>bold</b> text|&NotEqualTilde; &acE;|&ampamp; &ltgt|Tom &amp; Jerry|fish&amp;chips|&lsquo;&rsquo;&ldquo;&rdquo;|&frac12; &sup2;|
&Eacute;t&eacute; &szlig;|&amp;#233;|&#32;&#9;&#10;x|5 &gt; 3 &lt; 4|&nbsp;|&;&&amp|&#x1F468;&#x200D;&#x1F469;""".replace("|\n", "|").split("|")

MIXED = """Hello мир 世界 مرحبا שלום|ABCабвΑΒΓ|I'LL you'Re he'D it'S we'vE i'M don'T|'s 't 're|''s|'ſ rock'n'roll|o'clock l'été|it’s a “quote”|
ΟΔΥΣΣΕΥΣ ΑΣ Σ|ΑΣ. ΑΣ' ΣΑ|İİ Iı|ǅ ǆ Ǆ|ẞ ß SS|ﬀ ﬁ ﬂ|Å Å Å|é é|Ω Ω K K|１２３ ＡＢＣ|①②③ ⅣⅤ ½|௧௨௩ १२३|٠١٢ ۱۲۳|3.14159|1e-10|2024-05-06T07:08:09Z|$5.99 €10 £7|
#hashtag @user|path/to/file.txt C:\\dir|a+b=c; x*y/z|f(x)=x^2|{"key": [1, 2]}|<tag attr='v'>|100% 50°C|…—–-|!!??!?|.......|----====____|((())) [[[]]]|~`^|
a.b.c.d|e-mail e_mail|foo  bar\tbaz\r\nqux|\u2028line\u2029para|tab\x0bvt\x0cff|\x1c\x1d\x1e\x1fsep|nul\x00byte|bell\x07del\x7f|\ufeffbom|zero\u200bwidth\u200cnon\u200djoin|
soft\u00adhyphen|a\u1680b\u2003c\u202fd\u205fe|a\u180eb|ก็ ไทย ภาษาไทย|हिन्दी में पाठ|தமிழ் உரை|বাংলা|ქართული|Հայերեն|አማርኛ|ᐃᓄᒃᑎᑐᑦ|Tiếng Việt đẹp|ŁÓDŹ żółw|ÇAĞRI ŞİRKET|Þórður Æsir|
naïveté coöperate|Zażółć gęślą jaźń|Съешь ещё этих|עִבְרִית|العَرَبِيَّة|中文字符混合English123|ひらがなカタカナ漢字|한국어 텍스트|ㅋㅋㅋ|ﾊﾝｶｸ|𝒜𝓫𝔠 𝟙𝟚𝟛|𐐀𐐁 𐐨|𓀀𓁐|🄰🅱|a\u0301\u0302\u0303|
Z͑ͫ̓ͪ̂ͫ̽a|\u0130\u0307|\u1e9e\u00df|ΐ ΰ|ﬃ ﬄ|ŉ|\ue000private\uf8ff|\U000f0000|\ufffd\ufffe|photo of a PHOTO of A pHoTo|the the the|antidisestablishmentarianism|pneumonoultramicroscopicsilicovolcanoconiosis|
Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch|aaaaaaaaaab|abababababab|zzzzzzzz|qqqq xxxx|jekyll and hyde|in in|ing ING|l o w e r|https://example.org/a?b=c&d=e#f|user.name+tag@example.co.uk|C# F# .NET|
3D 4K 8bit|iPhone12ProMax|U.S.A. e.g. i.e.|Mr. O'Neil's dog's bone|y'all'd've|'tis 'twas|rock & roll|½cup|10²m|H₂O CO₂|x²+y³|№ 5 ™ ® ©|♠♥♦♣ ♔|←→↑↓ ⇒|∀x∈ℝ ∃y|αβγ ∑∫√|
a photo of a {}.|itap of a dog.|a bad photo of the cat.|a origami bird.""".replace("|\n", "|").split("|")

EMOJI = ["👨‍👩‍👧‍👦", "👩🏽‍🚀", "🏳️‍🌈", "🏴‍☠️", "🇩🇪🇫🇷", "🇺", "1️⃣2️⃣#️⃣", "❤️ ❤", "☺️☺︎", "🤷🏿‍♂️", "👍🏻👍🏿", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "😀😃😄😁", "😂😂😂😂😂😂", "🔥100💯",
         "i ❤️ 🍕!", "🫠🫡🪿", "🧑‍🤝‍🧑", "👁️‍🗨️", "©️®️™️", "⌚⏰", "🀄🃏", "♀♂⚧", "🙂text🙃", "🙂'😀's"]


def random_unicode(rng, count):
    """Assigned code points (Unicode 14), mostly from a few blocks, with spaces and digits between."""
    blocks = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x600), (0x900, 0xE80), (0x1E00, 0x2400), (0x3040, 0x3100), (0x4E00, 0x9FFF),
              (0xAC00, 0xD7A4), (0xF900, 0xFFFE), (0x10000, 0x10400), (0x1D400, 0x1D800), (0x1F300, 0x1FA00), (0x0, 0x110000)]
    for _ in range(count):
        text = ""
        while len(text) < rng.integers(3, 14):
            lo, hi = blocks[rng.integers(len(blocks))]
            c = chr(rng.integers(lo, hi))
            if unicodedata.category(c) not in ("Cn", "Cs"):
                text += c
            if rng.random() < 0.15:
                text += " 7'"[rng.integers(3)]
        yield text


def tokenizers():
    def clean(text):
        return whitespace_clean(html.unescape(html.unescape(text)).strip()).lower()

    open_clip = SimpleTokenizer()
    ftfy_too = open_clip.clean_fn
    open_clip.clean_fn = clean
    openai = SimpleTokenizer()  # OpenAI's differs only in how the special strings are written
    openai.clean_fn = clean
    names = ("<|startoftext|>", "<|endoftext|>")
    openai.cache |= {n: n for n in names}
    openai.encoder |= dict(zip(names, (49406, 49407)))
    ours = "<start_of_text>|<end_of_text>"
    assert openai.pat.pattern.startswith(ours)
    openai.pat = regex.compile("|".join(map(regex.escape, names)) + openai.pat.pattern[len(ours):], regex.IGNORECASE)
    return open_clip, openai, ftfy_too


def main():
    rng = golden.seed(6)
    open_clip, openai, ftfy_clean = tokenizers()
    for text, ids in PUBLISHED.items():
        assert open_clip.encode(text) == openai.encode(text) == ids, (text, open_clip.encode(text), ids)
    for text, ids in PUBLISHED_OPENAI.items():
        assert openai.encode(text) == ids, (text, openai.encode(text), ids)

    named = [line.split("\t") for line in (Path(__file__).parent / "tokenizer_names.tsv").read_text("utf-8").splitlines()]
    groups = {"published": list(PUBLISHED), "names": [n for _, n in named], "emoji": EMOJI, "html": HTML, "mixed": MIXED,
              "random": list(random_unicode(rng, 60))}
    encode, no_ftfy = [], open_clip.clean_fn
    for group, texts in groups.items():
        for text in texts:
            entry = {"group": group, "text": text, "ids": open_clip.encode(text)}
            assert entry["ids"] == openai.encode(text), text
            open_clip.clean_fn = ftfy_clean
            if (with_ftfy := open_clip.encode(text)) != entry["ids"]:
                entry["ids_with_ftfy"] = with_ftfy
            open_clip.clean_fn = no_ftfy
            encode.append(entry)
    special = [{"text": s, "open_clip": open_clip.encode(s), "openai": openai.encode(s)} for s in [*PUBLISHED_OPENAI, *SPECIAL]]
    decode = []
    for text in ["Hello, World! 🙂", "naïve café", "日本語 abc", "don't 12"]:
        decode.append({"ids": (ids := open_clip.encode(text)), "text": open_clip.decode(ids)})
    decode.append({"ids": [32006 - 1, 158, 227], "text": open_clip.decode([32006 - 1, 158, 227])})
    padded = []
    for context, text in [(77, "a photo of a cat."), (77, "word " * 100), (77, "x " * 75), (77, "x " * 76), (8, "a photo of a very good dog"),
                          (3, "a cat"), (77, "")]:
        padded.append({"context_length": context, "text": text, "row": open_clip(text, context)[0].tolist()})

    golden.save_json("tokenizer", {"encode": encode, "special": special, "decode": decode, "padded": padded})
    print(f"{len(encode)} strings; {sum('ids_with_ftfy' in e for e in encode)} differ with ftfy")


if __name__ == "__main__":
    main()
