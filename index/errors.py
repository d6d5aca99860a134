"""Every error that a user of the library can cause.

    WhenceError
    ├── DocumentError             a file cannot be read
    ├── SourceError               a source is missing, empty or clashes with another
    ├── ModelError                a model cannot be found, loaded or trusted
    ├── GenerationError           an index cannot be opened or written
    │   ├── NoGenerationError         nothing has been published yet
    │   ├── DamagedGenerationError    a file of a generation is missing or altered
    │   ├── WriterBusyError           another process is writing
    │   └── StoreError                the server that keeps it does not answer, or refuses
    ├── StateError                the state of a home cannot be read or written
    ├── QuestionError             a question, its limits or its filters make no sense
    ├── CitationError             a saved citation cannot be parsed
    ├── EvaluationError           a data set does not have the expected form
    ├── ClusterError              a cluster cannot be reached, or its machines cannot do the work
    └── CalibrationError          labels, or the calibration of a home, cannot be used

A message names what was wrong, with the value, and what to do next.
"""

from __future__ import annotations


class WhenceError(Exception):
    """Base of all errors raised on purpose; its text is meant to be shown to a person."""


class DocumentError(WhenceError):
    """A file cannot be turned into a document; the rest of its source is read all the same."""


class SourceError(WhenceError):
    """A source cannot be synced without losing or confusing documents."""


class ModelError(WhenceError):
    """A model is unknown, altered, of another kind, or not the one an index was built with."""


class GenerationError(WhenceError):
    """A generation cannot be opened, written or published."""


class NoGenerationError(GenerationError):
    """The home holds no published generation."""


class DamagedGenerationError(GenerationError):
    """A file of a generation is missing, truncated or altered; the text names it."""


class WriterBusyError(GenerationError):
    """Another process holds the writer's lock of the home."""


class StoreError(GenerationError):
    """A store beyond this machine has a malformed address, does not answer, or refuses."""


class StateError(WhenceError):
    """The state of a home, `state.sqlite`, cannot be opened, read or written."""


class QuestionError(WhenceError):
    """A question, `top_k`, or a filter is outside what can be answered."""


class CitationError(WhenceError):
    """A saved answer or citation lacks what is needed to check it."""


class EvaluationError(WhenceError):
    """A data set for evaluation is missing a file or has a malformed line."""


class ClusterError(WhenceError):
    """A cluster cannot be reached, or its machines cannot do the work; nothing was published."""


class CalibrationError(WhenceError):
    """Labelled questions, or the confidence that was fitted to them for a home, cannot be used."""
