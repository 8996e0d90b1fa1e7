"""Tokenizers for the tests, made from a handful of words: one of each kind that KerasHub's bodies use."""

import io

import keras_hub

WORDS = ("a", "bad", "film", "fine", "good", "it", "not", "the", "very", "was", "creme", ".", ",")
CORPUS = ["the film was good", "it was not a very bad film", "the film, it was fine", "a good film is a fine thing"]


def word_pieces(cls=keras_hub.tokenizers.BertTokenizer, words=(), **options):
    """BERT's and DistilBERT's kind, with more words where some are given."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return cls(vocabulary=[*special, *WORDS, *words], lowercase=True, **options)


def byte_pairs(cls=keras_hub.tokenizers.GPT2Tokenizer, special=("<|endoftext|>",)):
    """RoBERTa's, GPT-2's and Qwen's kind: every byte, and some pairs."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    bytes_as_text = [*map(chr, plain), *(chr(256 + place) for place in range(len(others)))]
    merges = ["t h", "th e", "f i", "l m", "fi lm"]
    vocabulary = [*special, *bytes_as_text, *(merge.replace(" ", "") for merge in merges)]
    return cls(vocabulary={word: place for place, word in enumerate(vocabulary)}, merges=merges)


def sentence_pieces(cls=keras_hub.tokenizers.T5Tokenizer, **ids):
    """T5's, Gemma's and Llama's kind, with the ids that each gives to its special tokens."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4), model_writer=model, vocab_size=50, model_type="bpe", hard_vocab_limit=False,
        minloglevel=2, **ids,
    )  # fmt: skip
    return cls(proto=model.getvalue())
