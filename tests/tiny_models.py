"""Models small enough to be made in a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;?!'-"
WORDS = ["the", "of", "is", "router", "switch", "red", "blue", "light", "means", "no", "power", "query", "passage"]
PIECES = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS]
VOCABULARY = {piece: number for number, piece in enumerate(PIECES)}
DIMENSION = 32
MAX_TOKENS = 48


def word_piece_tokenizer() -> Tokenizer:
    """Return a tokenizer that knows a few words, and letters."""
    tokenizer = Tokenizer(WordPiece(VOCABULARY, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    special = [(token, VOCABULARY[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    return tokenizer


def write_tiny_model(
    folder: Path,
    *,
    pooling: str = "mean",
    prompts: Mapping[str, str] | None = None,
    has_dense: bool = False,
    seed: int = 0,
) -> Path:
    """Write a sentence-transformers model of two layers with random weights.

    Args:
        folder: to write to.
        pooling: of its token embeddings.
        prompts: of the model.
        has_dense: whether a dense layer follows the pooling.
        seed: of the weights.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(seed)
    _write_transformer(folder / "plain")
    modules: list[torch.nn.Module] = [
        Transformer(str(folder / "plain"), max_seq_length=MAX_TOKENS),
        Pooling(DIMENSION, pooling),
    ]
    if has_dense:
        modules.append(Dense(DIMENSION, DIMENSION))
    model = SentenceTransformer(modules=modules, prompts=dict(prompts or {}), device="cpu")
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def write_static_model(folder: Path) -> Path:
    """Write a model that averages one vector for each token, without a limit to how many."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    torch.manual_seed(0)
    embedding = StaticEmbedding(word_piece_tokenizer(), embedding_dim=DIMENSION)
    SentenceTransformer(modules=[embedding], device="cpu").save_pretrained(str(folder), create_model_card=False)
    return folder


def write_tiny_cross_encoder(folder: Path, *, labels: int = 1, seed: int = 0) -> Path:
    """Write a cross-encoder of one layer with random weights, large enough for its judgements to differ.

    Args:
        folder: to write to.
        labels: that it judges by.
        seed: of the weights.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=DIMENSION,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.5,
        num_labels=labels,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    _write_tokenizer(folder)
    return folder


def _write_transformer(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=DIMENSION,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    _write_tokenizer(folder)


def _write_tokenizer(folder: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokens = dict(zip(names, SPECIAL, strict=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=word_piece_tokenizer(), **tokens)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(folder)
