"""A turn of a chat: a set reply to small talk, else the answer to what the turn asks.

Nothing is remembered between turns. The client sends the conversation, and with each of our replies the topic that
came with it; a follow-up then leans on that at no cost. A client that sends only who said what is served as well: the
question leaned on is answered once more to learn its topic, unless the reply to it was the one for "not found".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice, pairwise

from index.answers import MAX_QUESTION_CHARS, Answer, Question
from index.conversation import Exchange, Outcome, Topic, completed, last_answered, topic_at, without_numbering
from index.filters import Filters
from index.followups import missing
from index.terms import every_term
from index.weights import EncoderName
from service.services import Services
from service.settings import Settings
from service.small_talk import SmallTalk, small_talk_in, without_courtesies

MAX_SUGGESTIONS = 3

Gone = Callable[[], Awaitable[None]]


class Kind(Enum):
    """What a reply is."""

    ANSWER = "answer"
    NOT_FOUND = "not_found"
    GREETING = "greeting"
    THANKS = "thanks"
    HELP = "help"


class Role(Enum):
    """Who wrote a message; what a system says is not read."""

    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


@dataclass(frozen=True)
class Message:
    """A message of a conversation.

    Attributes:
        role: who wrote it.
        content: its text.
        is_standalone: whether a user's message is to be searched as it stands, whatever it seems to lean on.
        topic: of a reply, see `Reply.topic`; UNKNOWN when it was not sent along.
    """

    role: Role
    content: str
    is_standalone: bool = False
    topic: Topic | Outcome = Outcome.UNKNOWN


@dataclass(frozen=True)
class Wanted:
    """What is wanted for the question of a turn, see `Question`; None where the settings decide."""

    top_k: int | None = None
    filters: Filters | None = None
    encoder: EncoderName | None = None


@dataclass(frozen=True)
class Turn:
    """The last message of a conversation, understood.

    Attributes:
        meaning: the question as it is searched, or what the message is when it asks nothing.
        leans_on: place of the user's message that it leans on; None when it is searched as it stands.
    """

    meaning: Question | SmallTalk
    leans_on: int | None = None

    @property
    def searched_as(self) -> str | None:
        """The question as it is searched; None when nothing is."""
        return self.meaning.text if isinstance(self.meaning, Question) else None


@dataclass(frozen=True)
class Suggestion:
    """What could be asked next.

    Attributes:
        text: a question, or a heading.
        title: of the document that the heading is in; None of an opening question.
        url: where the heading stands; None of an opening question.
    """

    text: str
    title: str | None = None
    url: str | None = None


@dataclass(frozen=True)
class Handoff:
    """Where people get help that the documents do not give."""

    label: str
    url: str


@dataclass(frozen=True)
class Reply:
    """The reply to a turn.

    Attributes:
        kind: what it is.
        content: its text: exact words of a document, or one of the set replies.
        turn: that it replies to.
        answer: to the question of the turn; None to small talk.
        suggestions: the nearest headings when nothing was found, opening questions to a greeting or a call for help.
        handoff: when nothing was found or help was called for, if there is one.
    """

    kind: Kind
    content: str
    turn: Turn
    answer: Answer | None = None
    suggestions: tuple[Suggestion, ...] = ()
    handoff: Handoff | None = None

    @property
    def topic(self) -> Topic | None:
        """What a next turn can lean on; None when nothing was answered."""
        return None if self.answer is None else Topic.of(self.answer)


_NO_REPLY = Message(Role.USER, "")


async def take_turn(messages: Sequence[Message], services: Services, wanted: Wanted, *, gone: Gone) -> Reply:
    """Reply to the last message of a conversation.

    Args:
        messages: oldest first; the last one is the user's.
        services: to ask.
        wanted: for its question.
        gone: returns when whoever asked has left.

    Raises:
        QuestionError: the last message cannot be asked.
        Problem, ClientGoneError: see `Line.ask`.
    """
    return await reply_to(await understand(messages, services, wanted, gone=gone), services, gone=gone)


async def understand(messages: Sequence[Message], services: Services, wanted: Wanted, *, gone: Gone) -> Turn:
    """Tell what the last message of a conversation asks; arguments and errors as for `take_turn`.

    At most one earlier question is answered once more for it.
    """
    last = messages[-1]
    small_talk = None if last.is_standalone else small_talk_in(last.content)
    if small_talk is not None:
        return Turn(small_talk)
    question = _question(_asked(last), wanted, services.settings)
    if last.is_standalone or missing(question.text) is None:
        return Turn(question)
    past = dict(_past(messages[:-1], services.settings))
    place = last_answered(list(past.values()))
    if place is None:
        return Turn(question)
    topic = await _topic(list(past.values()), place, question, services, gone=gone)
    whole = question if topic is None else replace(question, text=completed(question.text, topic))
    return Turn(whole, None if whole == question else list(past)[place])


async def reply_to(turn: Turn, services: Services, *, gone: Gone) -> Reply:
    """Reply to a turn that is understood; arguments and errors as for `take_turn`."""
    settings = services.settings
    if isinstance(turn.meaning, Question):
        (answer,) = await services.line.ask([turn.meaning], gone=gone)
        return _reply_with(answer, turn, settings)
    if turn.meaning is SmallTalk.THANKS:
        return Reply(Kind.THANKS, settings.chat_thanks, turn)
    openings = tuple(map(Suggestion, await opening_questions(services, gone=gone)))
    if turn.meaning is SmallTalk.GREETING:
        return Reply(Kind.GREETING, settings.chat_greeting, turn, suggestions=openings)
    return Reply(Kind.HELP, settings.chat_help, turn, suggestions=openings, handoff=handoff(settings))


async def opening_questions(services: Services, *, gone: Gone) -> tuple[str, ...]:
    """Return what a chat can be opened with: the questions of the settings, else headings, see `Openings`."""
    if services.settings.chat_questions:
        return services.settings.chat_questions
    return await services.openings.questions(services.serving, services.line, gone=gone)


def handoff(settings: Settings) -> Handoff | None:
    """Return where the settings send people for help."""
    return Handoff(settings.chat_handoff_label, settings.chat_handoff) if settings.chat_handoff else None


def _question(text: str, wanted: Wanted, settings: Settings) -> Question:
    return Question(
        text,
        top_k=settings.top_k if wanted.top_k is None else wanted.top_k,
        filters=wanted.filters,
        min_confidence=settings.min_confidence,
        encoder=wanted.encoder,
    )


def _asked(message: Message) -> str:
    if message.is_standalone or len(message.content) > MAX_QUESTION_CHARS:
        return message.content
    return without_courtesies(message.content)


def _past(messages: Sequence[Message], settings: Settings) -> Iterator[tuple[int, Exchange]]:
    """Yield the questions among messages, each with its place, and what came of them."""
    said = [(place, message) for place, message in enumerate(messages) if message.role is not Role.SYSTEM]
    for (place, message), (_, reply) in pairwise([*said, (len(messages), _NO_REPLY)]):
        if message.role is Role.USER and _is_question(message):
            yield place, Exchange(_asked(message), _outcome(reply, settings), is_standalone=message.is_standalone)


def _is_question(message: Message) -> bool:
    if not message.is_standalone and small_talk_in(message.content) is not None:
        return False
    return len(message.content) <= MAX_QUESTION_CHARS and bool(every_term(message.content))


def _outcome(reply: Message, settings: Settings) -> Topic | Outcome:
    """Return what a reply tells of the question before it: what came with it, or that it is the set one."""
    if reply.role is not Role.ASSISTANT:
        return Outcome.UNKNOWN
    if reply.topic is Outcome.UNKNOWN and reply.content.strip().startswith(settings.chat_not_found):
        return Outcome.UNANSWERED
    return reply.topic


async def _topic(
    past: Sequence[Exchange], place: int, question: Question, services: Services, *, gone: Gone
) -> Topic | None:
    """Return the topic of an earlier question; what it is not known by is answered once more."""
    topic = topic_at(past, place)
    if past[place].outcome is not Outcome.UNKNOWN:
        return topic
    (answer,) = await services.line.ask([replace(question, text=topic.question, top_k=1)], gone=gone)
    return Topic.of(answer)


def _reply_with(answer: Answer, turn: Turn, settings: Settings) -> Reply:
    if answer.answer is not None:
        return Reply(Kind.ANSWER, answer.answer.text, turn, answer)
    suggestions = tuple(islice(_nearest_headings(answer), MAX_SUGGESTIONS))
    return Reply(Kind.NOT_FOUND, settings.chat_not_found, turn, answer, suggestions, handoff(settings))


def _nearest_headings(answer: Answer) -> Iterator[Suggestion]:
    seen: set[str] = set()
    for passage in answer.passages:
        citation = passage.citation
        title = citation.document.title
        text = without_numbering(citation.headings[-1]) if citation.headings else title
        if text.casefold() not in seen:
            seen.add(text.casefold())
            yield Suggestion(text, title, citation.url)
