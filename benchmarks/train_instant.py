"""Make the table of the instant encoder, index/instant.safetensors, and say how good it is.

    python benchmarks/train_instant.py --data FOLDER [DATASET ...] [--write FILE]

FOLDER holds pairs.jsonl.gz: {"title": "...", "text": "...", "questions": ["...", ...]} on each line. The table is
fitted to the model's embeddings of some of the questions and sentences, of the titles, and of short queries made of
words that stand together in other sentences. It takes two steps, both least squares:

1. The vector of a token is what one linear map, the same for all tokens, makes of two vectors that the model has for
   it: its embedding as a text of its own, and its row in the model's first layer; weighted by how rare the token is.
   So a token that the texts do not have gets a vector, too.
2. The vectors of the tokens that the texts have are changed towards them, see index/adaptation.py.

Each DATASET, in BEIR layout, is then asked by the full encoder, by the table as it is, and by the table adapted to
the set's own passages as a generation does it. Weights of a score are fitted for the instant encoder as
benchmarks/fit_scores.py does it; the last column has those that were fitted without the set they are measured on.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import fit_scores
import numpy as np
from figures import print_figures, table
from fit_scores import Sample
from indexes import default_encoder, open_dataset, progress_bars
from machine import machine
from safetensors import safe_open
from scipy import sparse
from tokenizers import Tokenizer

from index import instant
from index.adaptation import adapt, fit, token_counts
from index.embeddings import Embeddings, Encoder
from index.evaluation import evaluate
from index.instant import load_instant, shipped_table
from index.models import ModelFiles, find_model
from index.token_table import TokenTable
from index.weights import PARTS, default_weights
from service.settings import read_settings

QUESTIONS, SENTENCES, QUERIES = 20_000, 10_000, 12_000
SENTENCE_WORDS = range(4, 41)
QUERY_WORDS = range(1, 7)
FORMS = (
    "what is {}", "{}", "how does {} work", "{}", "define {}", "{} vs", "why {}", "what are {}", "{}",
    "difference between {}", "how to {}",
)  # fmt: skip
RARITY = 3e-3  # a token as frequent as this weighs half of a rare one
MAP_ROUNDS = 3
MAP_STRENGTH = 1e-3  # of the map's ridge, as a share of the mean variance of its inputs
STRENGTH, STEPS = 12.0, 8
ENCODED_AT_ONCE = 2_048
HEADER = (
    "data set",
    "encoder",
    "cosine",
    "dense alone",
    "hybrid, weights of the full encoder",
    "weights of the instant encoder",
    "weights fitted without this set",
)
WORD = re.compile(r"[\w'-]+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


def main() -> None:
    """Fit, save, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", type=Path, metavar="DATASET")
    parser.add_argument("--data", type=Path, help="the texts to fit to; without it the shipped table is measured")
    parser.add_argument(
        "--weight", action="append", default=[], metavar="DATASET=NUMBER", help="of a set, 1 if not given"
    )
    parser.add_argument("--write", type=Path, help="file for the tables; what stands above them there stays")
    arguments = parser.parse_args()
    importance = fit_scores.read_importance(arguments.datasets, arguments.weight)
    encoder = default_encoder()
    path = Path(instant.__file__).with_name(instant.TABLE)
    if arguments.data:
        make(arguments.data, encoder).save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != instant.TABLE_SHA256:
        raise SystemExit(f'index/instant.py has to say: TABLE_SHA256 = "{digest}"')
    if arguments.datasets:
        print_figures(report(arguments.datasets, encoder, importance), arguments.write)


def make(data: Path, encoder: Encoder) -> TokenTable:
    """Fit a table to the default model's embeddings of texts."""
    model = find_model()
    texts = training_texts(data)
    embeddings = embedded(texts, encoder)
    tokenizer = plain_tokenizer(model)
    tokens, counts = token_counts(
        [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    )
    vectors, bias = mapped(token_features(model, tokenizer, encoder), tokens, counts, embeddings)
    vectors[tokens] += fit(counts, embeddings, vectors[tokens], bias, strength=STRENGTH, steps=STEPS)
    return TokenTable.from_vectors(vectors, bias, model_sha256=model.sha256)


def training_texts(data: Path) -> list[str]:
    """Return distinct texts, the same ones in the same order each time."""
    with gzip.open(data / "pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    choice = random.Random(0)
    questions = sorted({question.strip() for pair in pairs for question in pair["questions"]})
    found = sorted({sentence for pair in pairs for sentence in sentences(pair["text"])})
    choice.shuffle(questions)
    choice.shuffle(found)
    queries = [query(sentence, choice) for sentence in found[SENTENCES : SENTENCES + QUERIES]]
    titles = sorted({pair["title"] for pair in pairs})
    return list(dict.fromkeys([*questions[:QUESTIONS], *found[:SENTENCES], *queries, *titles]))


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text that are neither very short nor very long."""
    return (part for part in SENTENCE_END.split(text) if len(part.split()) in SENTENCE_WORDS and WORD.search(part))


def query(sentence: str, choice: random.Random) -> str:
    """Make a short query of words that stand together in a sentence."""
    words = WORD.findall(sentence)
    count = min(choice.choice(QUERY_WORDS), len(words))
    first = choice.randrange(len(words) - count + 1)
    return choice.choice(FORMS).format(" ".join(words[first : first + count]).lower())


def embedded(texts: Sequence[str], encoder: Encoder) -> Embeddings:
    """Encode texts, or read what was encoded before from the cache folder."""
    digest = hashlib.sha256("\n".join([encoder.identity.files_sha256, *texts]).encode()).hexdigest()
    path = read_settings().cache / "instant" / f"{digest[:16]}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with progress_bars() as progress:
            progress.start("Encoding", len(texts))
            parts = [texts[first : first + ENCODED_AT_ONCE] for first in range(0, len(texts), ENCODED_AT_ONCE)]
            np.save(
                path,
                np.concatenate([encoder.encode_documents(part, on_progress=progress.advance) for part in parts]),
            )
    return np.load(path)


def plain_tokenizer(model: ModelFiles) -> Tokenizer:
    """Load a model's tokenizer so that it neither cuts off nor pads."""
    tokenizer = Tokenizer.from_file(str(model.folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def token_features(model: ModelFiles, tokenizer: Tokenizer, encoder: Encoder) -> Embeddings:
    """Return what the model has for each token: its embedding as a text, and its row in the first layer."""
    names = [tokenizer.id_to_token(token).removeprefix("##") for token in range(tokenizer.get_vocab_size())]
    (weights,) = model.folder.glob("*.safetensors")
    with safe_open(weights, "np") as tensors:
        (name,) = [key for key in tensors.keys() if key.endswith("word_embeddings.weight")]  # noqa: SIM118
        rows = tensors.get_tensor(name).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.hstack([embedded(names, encoder), rows])


def mapped(
    features: Embeddings, tokens: np.ndarray, counts: sparse.csr_array, embeddings: Embeddings
) -> tuple[Embeddings, Embeddings]:
    """Map features of tokens so that the sums over texts come near to the embeddings.

    Returns:
        A vector for each token, and the bias.
    """
    frequencies = np.zeros(len(features))
    frequencies[tokens] = counts.sum(axis=0) / counts.sum()
    weighted = (features * (RARITY / (RARITY + frequencies))[:, None]).astype(np.float32)
    sums = counts @ weighted[tokens]
    inputs = np.hstack([sums, np.ones((len(sums), 1), np.float32)])
    scales = 1 / np.maximum(np.linalg.norm(sums, axis=1), 1e-6)
    for _ in range(MAP_ROUNDS):
        scales = (scales / scales.mean()).astype(np.float32)
        weights = ridge(inputs * scales[:, None], embeddings)
        # A cosine does not know of lengths: from the second round on they all count the same.
        lengths = np.linalg.norm(inputs @ weights * scales[:, None], axis=1)
        scales = scales / np.maximum(lengths, 0.05)
    return weighted @ weights[:-1], weights[-1]


def ridge(inputs: Embeddings, outputs: Embeddings) -> Embeddings:
    """Solve inputs x = outputs by least squares, held to zero a little."""
    gram = inputs.T @ inputs
    gram[np.diag_indices_from(gram)] += MAP_STRENGTH * np.trace(gram) / len(gram)
    return np.linalg.solve(gram, inputs.T @ outputs).astype(np.float32)


def report(folders: Sequence[Path], encoder: Encoder, importance: Mapping[str, float]) -> list[str]:
    """Ask each set in all ways, and measure."""
    asked = [ask(folder, encoder) for folder in folders]
    samples = [ways["adapted"].sample for ways in asked]
    joint = fit_scores.fit(samples, importance)
    left_out = [without(sample, samples, importance) for sample in samples]
    rows = [row for ways, weights in zip(asked, left_out, strict=True) for row in rows_of(ways, joint, weights)]
    return [
        "## nDCG@10 and recall@1",
        "",
        *table(HEADER, rows),
        "## Weights of a score for the instant encoder",
        "",
        *fit_scores.toml(joint, "score_instant"),
        "",
        machine(),
    ]


def without(sample: Sample, samples: Sequence[Sample], importance: Mapping[str, float]) -> np.ndarray:
    """Fit on all samples but one; on that one when it is the only one."""
    return fit_scores.fit([other for other in samples if other is not sample] or [sample], importance)


@dataclass(frozen=True)
class Asked:
    """A data set asked by one encoder: mean cosine to the full one's embeddings, and what was found."""

    cosine: float
    sample: Sample


def ask(folder: Path, encoder: Encoder) -> dict[str, Asked]:
    """Ask the questions of a data set by the full encoder, the table as it is, and adapted."""
    generic = load_instant(find_model())
    with progress_bars() as progress, open_dataset(folder, encoder, progress) as (dataset, generation):
        adaptation = adapt(shipped_table(), encoder.tokenizer, generation.corpus, generation.sentences)
        encoders = {"full": encoder, "generic": generic, "adapted": generic.adapted(adaptation)}
        queries = list(dataset.queries.values())
        reference = encoder.encode_queries(queries)
        return {
            name: Asked(
                cosine=float(np.einsum("ij,ij->i", reference, each.encode_queries(queries)).mean()),
                sample=fit_scores.sample_of(folder.resolve().name, dataset, generation, each, progress),
            )
            for name, each in encoders.items()
        }


def rows_of(ways: Mapping[str, Asked], joint: np.ndarray, left_out: np.ndarray) -> Iterator[list[str]]:
    """Measure each way of asking a data set; a share in brackets is of what the full encoder reaches as shipped."""
    dense, shipped = np.eye(len(PARTS))[PARTS.index("dense")], shipped_weights()
    best = [ndcg(ways["full"].sample, weights) for weights in (dense, shipped)]
    for name, each in ways.items():
        yield [
            each.sample.name,
            name,
            f"{each.cosine:.3f}",
            quality(each.sample, dense, best[0]),
            quality(each.sample, shipped, best[1]),
            *(quality(each.sample, weights, best[1]) if name != "full" else "" for weights in (joint, left_out)),
        ]


def shipped_weights() -> np.ndarray:
    """Return the weights of a score with the full encoder, in the order of `PARTS`."""
    return np.array([getattr(default_weights().score, part) for part in PARTS])


def ndcg(sample: Sample, weights: np.ndarray) -> float:
    """Measure a ranking by nDCG@10."""
    return float(evaluate(sample.qrels, fit_scores.ranked(sample, weights))["ndcg@10"].mean)


def quality(sample: Sample, weights: np.ndarray, best: float) -> str:
    """Measure a ranking, as it is and compared."""
    metrics = evaluate(sample.qrels, fit_scores.ranked(sample, weights))
    found = metrics["ndcg@10"].mean
    return f"{found:.3f}, {metrics['recall@1'].mean:.3f} ({found / best:.1%})"


if __name__ == "__main__":
    main()
