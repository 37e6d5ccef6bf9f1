"""Small vocabularies of every kind that model folders hold, and ids that Hugging Face's tokenizers give with them, cleaned as open_clip cleans.

Run: python3 tests/golden/make_tokenizer_kinds.py      (writes tests/golden/data/tokenizers/ and tokenizer_kinds.json, seconds)

    sentencepiece/   spiece.model, unigram with T5's special tokens and a normaliser of its own; tokenizer.json is the same model (SigLIP)
    wordpiece/       vocab.txt; tokenizer.json is the same (CLIPA: BERT uncased)
    bpe/             vocab.json, merges.txt; tokenizer.json is the same (CLIP), trained by Hugging Face's trainer on the same words as
                     `twinlens tokenize --train` is in the test
"""
import gzip
import io
import json
import os

import sentencepiece
from open_clip.tokenizer import get_clean_fn
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

import golden

FOLDER = golden.DATA / "tokenizers"
TEXTS = ["a photo of a cat.", "Grinning Face with big eyes!", "flag: Côte d’Ivoire", "snake_case and don't", "", "  two   spaces ", "ﬁne &amp; dandy",
         "schÃ¶n", "visage souriant avec de grands yeux", "улыбающееся лицо", "笑顔 と 目", "ÀÉÎ õ ü Ñ", "1234 5,678.9", "[SEP] a [CLS] b", "</s> <pad> x",
         "x" * 120, "word " * 60, "ΑΣ Σ İstanbul", "ＦＵＬＬ ｗｉｄｔｈ ①", "🙂 👍🏽", "zażółć gęślą jaźń", "it's (really) \"quoted\"", "naïve café", "½ x² №5"]


def corpus():
    lines = gzip.decompress((golden.DATA / "tokenizer_words.txt.gz").read_bytes()).decode().splitlines()
    return [line[2:] for line in lines if line.startswith("n ")][:4000]


def framed(ids, length, end):
    return ids if len(ids) <= length else ids[:length - 1] + [end]


def sentencepiece_kind(names):
    folder = FOLDER / "sentencepiece"
    folder.mkdir(parents=True, exist_ok=True)
    rules = folder / "rules.tsv"
    # Full-width capitals to ASCII, fi ligature in two, soft hyphen away: a normaliser small enough to lie here.
    pairs = [(0xFF21 + i, [0x41 + i]) for i in range(26)] + [(0xFB01, [0x66, 0x69]), (0xAD, [])]
    rules.write_text("".join(f"{a:X}\t{' '.join(f'{x:X}' for x in b)}\n" for a, b in pairs))
    os.chdir(folder)  # the path is kept in the model
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([n.lower() for n in names]), model_writer=model, vocab_size=600, model_type="unigram",
                                             pad_id=0, eos_id=1, unk_id=2, bos_id=-1, normalization_rule_tsv="rules.tsv", character_coverage=0.98,
                                             num_threads=1, hard_vocab_limit=False)
    rules.unlink()
    (folder / "spiece.model").write_bytes(model.getvalue())
    sp = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    # tokenizer.json as transformers' T5 converter writes it.
    import base64
    from sentencepiece import sentencepiece_model_pb2 as pb
    proto = pb.ModelProto()
    proto.ParseFromString(model.getvalue())
    t = Tokenizer(models.Unigram([(p.piece, p.score) for p in proto.pieces], unk_id=2, byte_fallback=False))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    t.add_special_tokens(["<pad>", "</s>", "<unk>"])
    t.save(str(folder / "tokenizer.json"))
    clean = get_clean_fn("canonicalize")
    out = []
    for text in TEXTS:
        ids = sp.encode(clean(text))
        assert ids == t.encode(clean(text)).ids, (text, ids, t.encode(clean(text)).ids)
        out.append(framed(ids + [1], 16, 1))
    return {"context_length": 16, "end": 1, "pad": 1, "vocab_size": sp.get_piece_size(), "ids": out}


def wordpiece_kind(names):
    folder = FOLDER / "wordpiece"
    folder.mkdir(parents=True, exist_ok=True)
    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(names, trainers.WordPieceTrainer(vocab_size=700, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
                                                           show_progress=False))
    tokens = sorted(t.get_vocab(), key=t.get_vocab().get)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    t.save(str(folder / "tokenizer.json"))
    bert = BertTokenizerFast(tokenizer_object=t, do_lower_case=True)
    clean = get_clean_fn("whitespace")
    cls, sep = tokens.index("[CLS]"), tokens.index("[SEP]")
    rows = []
    for text in TEXTS:
        body = bert(clean(text), add_special_tokens=False).input_ids
        rows.append([cls] + body[:30] + [sep])
    return {"context_length": 32, "ids": rows, "stripped": [[0 if i == sep else i for i in row] for row in rows]}


def bpe_kind(names):
    folder = FOLDER / "bpe"
    folder.mkdir(parents=True, exist_ok=True)
    t = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix=""))
    pattern = Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    t.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, behavior="removed", invert=True),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(names, trainers.BpeTrainer(vocab_size=900, special_tokens=["<|startoftext|>", "<|endoftext|>"], end_of_word_suffix="</w>",
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    t.save(str(folder / "tokenizer.json"))
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False))
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    fast = PreTrainedTokenizerFast(tokenizer_object=t)
    clean = get_clean_fn("lower")
    return {"ids": [fast(clean(text), add_special_tokens=False).input_ids for text in TEXTS]}


def main():
    names = corpus()
    out = {"texts": TEXTS, "sentencepiece": sentencepiece_kind(names), "wordpiece": wordpiece_kind(names), "bpe": bpe_kind(names)}
    (golden.DATA / "tokenizer_kinds.json").write_text(json.dumps(out, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
