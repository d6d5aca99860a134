"""The generation that is served now, and taking over the next one, or a calibration, without a failed request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from index.answers import Answer, Question, answer_questions, check_model
from index.calibration import weights_of
from index.corpus import Corpus
from index.embeddings import Encoder
from index.errors import CalibrationError, QuestionError, StoreError, WhenceError
from index.generations import Home
from index.instant import instant_beside
from index.manifest import Manifest
from index.reranking import Reranker
from index.store import OpenGeneration, Store
from index.weights import EncoderName, Weights
from service.answer_cache import AnswerCache
from service.problems import Problem

logger = logging.getLogger(__name__)

POLL_S = 0.25
STORE_POLL_S = 1.0
RETRY_S = 5.0  # before a generation that could not be opened is tried again
WARM_UP = Question("What is written here?")


class Served:
    """An open generation with what is needed to ask it.

    Attributes:
        generation: one thread at a time may ask it.
        encoder: of its model.
        instant: instant encoder for it; None when its model has none.
        weights: of scores and confidence; replaced when the home is calibrated.
        reranker: None when there is none.
        corpus: a second connection to its corpus, for reading documents beside the questions.
        corpus_lock: held while `corpus` is used.
        leases: how many use it now.
    """

    def __init__(
        self,
        generation: OpenGeneration,
        encoder: Encoder,
        weights: Weights,
        reranker: Reranker | None,
        *,
        cached_answers: int = 0,
    ) -> None:
        self.generation = generation
        self.encoder = encoder
        self.instant = instant_beside(encoder, generation)
        self.weights = weights
        self.reranker = reranker
        self.corpus = generation.open_corpus()
        self.corpus_lock = threading.Lock()
        self.leases = 0
        self._cached_answers = cached_answers
        self._cache = AnswerCache(cached_answers)

    def close(self) -> None:
        """Close its files."""
        self.corpus.close()
        self.generation.close()

    def recalibrate(self, weights: Weights) -> None:
        """Use other weights from now on."""
        self.weights = weights
        # After them: an answer that is being made by the old ones goes into the old cache.
        self._cache = AnswerCache(self._cached_answers)

    def answer(self, questions: Sequence[Question], encoder: EncoderName) -> list[Answer]:
        """Answer questions by one of its encoders; one that was answered a while ago gets the answer it got then.

        Raises:
            QuestionError: the instant encoder is wanted, and there is none.
        """
        return self._cache.answer(questions, encoder, lambda new: self._ask(new, encoder))

    def _ask(self, questions: Sequence[Question], encoder: EncoderName) -> list[Answer]:
        if encoder == "full":
            return answer_questions(
                self.generation, self.encoder, questions, weights=self.weights, reranker=self.reranker
            )
        if self.instant is None:
            model = self.generation.manifest.model.name
            raise QuestionError(f"There is no instant encoder for the model {model}. Ask with the encoder full.")
        return answer_questions(self.generation, self.instant, questions, reranker=self.reranker)


class Serving:
    """Keeps the published generation of a home open, and follows when another one is published or it is calibrated.

    A generation that is being used stays open until its last user is done, also when it is pruned meanwhile.

    Args:
        home: to serve, with its calibration.
        load_encoder: gives the encoder of a model by its name.
        load_reranker: gives the reranker; None when there is none.
        cached_answers: how many answers are kept, in case they are asked for again.
        store: whose generation is served; None for the home's.
        on_change: told of each generation that is served from now on.
    """

    def __init__(
        self,
        home: Home,
        load_encoder: Callable[[str], Encoder],
        *,
        load_reranker: Callable[[], Reranker | None] = lambda: None,
        cached_answers: int = 0,
        store: Store | None = None,
        on_change: Callable[[Manifest], None],
    ) -> None:
        self._home = home
        self._store = home if store is None else store
        # A store beyond this machine is asked by many, and answers more slowly.
        self._poll_s = POLL_S if store is None else STORE_POLL_S
        self._load_encoder = load_encoder
        self._load_reranker = load_reranker
        self._cached_answers = cached_answers
        self._on_change = on_change
        self._served: Served | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._opened_once = threading.Event()
        self._refused: tuple[str, float] | None = None
        self._refused_calibration: str | None = None
        self._thread = threading.Thread(target=self._follow, name="serving", daemon=True)

    @property
    def is_ready(self) -> bool:
        """Whether a generation and its model are loaded and warm."""
        return self._served is not None

    @property
    def has_instant(self) -> bool:
        """Whether there is an instant encoder for the generation that is served."""
        return self._served is not None and self._served.instant is not None

    @property
    def manifest(self) -> Manifest:
        """Of the generation that is served.

        Raises:
            Problem: nothing is served yet.
        """
        return self._current().generation.manifest

    def start(self, *, wait_s: float = 0.0) -> None:
        """Begin to follow the home, in a thread of its own.

        Args:
            wait_s: how long to wait until a generation is served.
        """
        self._thread.start()
        self._opened_once.wait(wait_s)

    def stop(self) -> None:
        """Stop following, and close what nobody uses any more."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._swap(None)

    @contextmanager
    def lease(self) -> Iterator[Served]:
        """Give the generation that is served now; it stays open during the block.

        Raises:
            Problem: nothing is served yet.
        """
        with self._lock:
            served = self._current()
            served.leases += 1
        try:
            yield served
        finally:
            with self._lock:
                served.leases -= 1
                self._close_unused(served)

    @contextmanager
    def corpus(self) -> Iterator[Corpus]:
        """Give the corpus of the generation that is served now, to one thread at a time.

        Raises:
            Problem: nothing is served yet.
        """
        with self.lease() as served, served.corpus_lock:
            yield served.corpus

    def _current(self) -> Served:
        if self._served is None:
            raise Problem("starting", "The index is being opened or built. Ask again in a moment.")
        return self._served

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                self._refresh()
            except StoreError as error:
                logger.error("%s", error)
                self._stopping.wait(RETRY_S)
            except Exception:  # the edge of the thread: whatever happens, what is served goes on being served
                logger.exception("The published generation could not be opened")
                self._stopping.wait(RETRY_S)
            self._stopping.wait(self._poll_s)

    def _refresh(self) -> None:
        """Open the published generation if it is another one than is served; else see that its weights are right."""
        name = self._store.published_name()
        served = self._served
        if name is not None and served is not None and served.generation.name == name:
            self._reweigh(served)
            return
        if name is None or self._was_refused(name):
            return
        try:
            fresh = self._opened()
        except WhenceError as error:
            self._refused = (name, time.monotonic())
            logger.error("Generation %s is not served: %s", name, error)
            return
        if served is not None and fresh.generation.name == served.generation.name:
            # What is published is damaged, and what is served is the newest good one.
            fresh.close()
            return
        self._swap(fresh)
        self._opened_once.set()
        logger.info("Generation %s is served", fresh.generation.name)
        self._on_change(fresh.generation.manifest)

    def _reweigh(self, served: Served) -> None:
        """Answer as the home is calibrated now; a calibration that is refused changes nothing."""
        try:
            weights = weights_of(self._home.path, served.generation.manifest)
        except CalibrationError as error:
            if str(error) != self._refused_calibration:
                logger.error("Answers go on as they were calibrated before: %s", error)
            self._refused_calibration = str(error)
            return
        self._refused_calibration = None
        if weights != served.weights:
            served.recalibrate(weights)
            logger.info("Another calibration of the confidence is used")

    def _was_refused(self, name: str) -> bool:
        if self._refused is None or self._refused[0] != name:
            return False
        return time.monotonic() < self._refused[1] + RETRY_S

    def _opened(self) -> Served:
        """Open the published generation, and ask it once, so that no reader pays for its first question."""
        generation = self._store.open_current()
        try:
            weights = weights_of(self._home.path, generation.manifest)
            encoder = self._encoder_of(generation)
            reranker = self._load_reranker() if self._served is None else self._served.reranker
            answer_questions(generation, encoder, [WARM_UP], reranker=reranker)
            return Served(generation, encoder, weights, reranker, cached_answers=self._cached_answers)
        except BaseException:
            generation.close()
            raise

    def _encoder_of(self, generation: OpenGeneration) -> Encoder:
        model, served = generation.manifest.model, self._served
        if served is not None:
            present = served.encoder.identity
            if (present.files_sha256, present.precision) == (model.files_sha256, model.precision):
                return served.encoder
        encoder = self._load_encoder(model.name)
        check_model(generation, encoder)
        return encoder

    def _swap(self, fresh: Served | None) -> None:
        with self._lock:
            old, self._served = self._served, fresh
            if old is not None:
                self._close_unused(old)

    def _close_unused(self, served: Served) -> None:
        if served.leases == 0 and served is not self._served:
            served.close()
