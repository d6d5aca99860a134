"""What Open WebUI asks for itself: titles, tags and the like, which get a small reply and are never searched.

Its prompts begin with `### Task:` and name the JSON that they want. By that they are told apart, also when they were
translated or shortened. What is wanted of a conversation is taken from it word for word; nothing is thought up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

MAX_TITLE = 60  # characters
EMOJI = "\N{SPEECH BALLOON}"

_TASK = "### Task:"
_EMOJI_TASK = "Your task is to reflect the speaker's likely facial expression through a fitting emoji."
# A question with files or pages attached stands behind them, in a prompt that begins like a task.
_WITH_CONTEXT = re.compile(r"### Task:\s*Respond to the user query using the provided context")
_QUERY = ("<user_query>", "</user_query>")
_CONTEXT_END = "</context>"
_HISTORY = ("<chat_history>", "</chat_history>")
_WANTED = re.compile(r'\{\s*"(title|tags|follow_ups|queries|prompt|text)"\s*:')
_SAID = re.compile(r"^USER: (.*?)(?=^(?:USER|ASSISTANT|SYSTEM|TOOL): |\Z)", re.DOTALL | re.MULTILINE)


def question_in(prompt: str) -> str:
    """Return what a person asked, without the texts that Open WebUI puts before it."""
    if not _WITH_CONTEXT.match(prompt):
        return prompt
    question = prompt.rpartition(_CONTEXT_END)[2]
    begin, end = _QUERY
    return question.strip().removeprefix(begin).removesuffix(end).strip()


def task_reply(prompt: str) -> str | None:
    """Return the reply to a prompt of Open WebUI's own; None when a person wrote it."""
    if prompt.startswith(_EMOJI_TASK):
        return EMOJI
    if not prompt.startswith(_TASK) or _WITH_CONTEXT.match(prompt):
        return None
    begin, end = _HISTORY
    instructions, _, rest = prompt.partition(begin)
    questions = [said.strip() for said in _SAID.findall(rest.rpartition(end)[0])]
    wanted = _WANTED.search(instructions)
    return _as_json({wanted[1]: _REPLIES[wanted[1]](questions)} if wanted else {})


def _title(questions: Sequence[str]) -> str:
    """Return the first question, shortened; when there is none Open WebUI finds a title itself."""
    words = (questions[0] if questions else "").split()
    title = " ".join(words)
    if len(title) <= MAX_TITLE:
        return title
    while len(words) > 1 and len(title) >= MAX_TITLE:
        words.pop()
        title = " ".join(words)
    return f"{title[: MAX_TITLE - 1]}…"


def _last(questions: Sequence[str]) -> str:
    return questions[-1] if questions else ""


def _nothing(_questions: Sequence[str]) -> list[str]:
    return []


_REPLIES: Mapping[str, Callable[[Sequence[str]], str | list[str]]] = {
    "title": _title,
    "tags": _nothing,
    "follow_ups": _nothing,
    "queries": lambda questions: [_last(questions)] if questions else [],
    "prompt": _last,
    "text": lambda _: "",  # what a person goes on to type is not guessed
}


def _as_json(reply: Mapping[str, str | list[str]]) -> str:
    """Write JSON that survives Open WebUI's pages, which make double quotes of all others before they parse it."""
    return json.dumps(reply).replace("'", "\\u0027").replace("`", "\\u0060")
