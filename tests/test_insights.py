"""The insights: questions that ask the same are one group, and the groups tell what the documents lack."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from handbook import Handbook
from live import serving
from question_pairs import DIFFERENT, NEARLY_SAME, SAME

from index.build import sync
from index.embeddings import Embeddings, Encoder
from index.generations import Home
from service import insights
from service.feedback import Complaint, MissedQuestion
from service.insights import THRESHOLD, UNRELATED, Group, Insights, group, threshold_for

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class CountingEncoder:
    """An encoder that notes down what it encodes."""

    def __init__(self, encoder: Encoder) -> None:
        self.identity = encoder.identity
        self.tokenizer = encoder.tokenizer
        self.encode_documents = encoder.encode_documents
        self.encoded: list[str] = []
        self._encoder = encoder

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        """Encode questions."""
        self.encoded += texts
        return self._encoder.encode_queries(texts)


def at(*degrees: float) -> Embeddings:
    """Return unit vectors at angles in the plane."""
    angles = np.radians(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def missed(text: str, count: int = 1, *, unanswered: int | None = None, hours: float = 0) -> MissedQuestion:
    """Return a question that was missed at some hours after noon."""
    unanswered = count if unanswered is None else unanswered
    moment = NOON + timedelta(hours=hours)
    return MissedQuestion(text, count, unanswered, count - unanswered, moment, moment)


def test_questions_join_the_most_similar_leader_that_is_near_enough() -> None:
    # 40 degrees are a similarity of 0.77. The question at 35 is near to both leaders, and nearer to that at 60.
    assert group(at(0, 60, 35, 200), [5, 4, 1, 1], threshold=0.76) == [[0], [1, 2], [3]]


def test_the_largest_count_leads_and_the_largest_sum_comes_first() -> None:
    embeddings = at(0, 90, 5, 92, 180)
    assert group(embeddings, [2, 1, 3, 5, 4], threshold=0.9) == [[3, 1], [2, 0], [4]]


def test_no_chain_of_small_steps_joins_what_is_far_apart() -> None:
    assert group(at(0, 20, 40, 60), [1, 1, 1, 1], threshold=0.9) == [[0, 1], [2, 3]]


def test_equal_counts_keep_their_order() -> None:
    assert group(at(0, 90, 180), [1, 1, 1], threshold=0.9) == [[0], [1], [2]]
    assert group(at(0, 0, 0), [1, 1, 1], threshold=0.9) == [[0, 1, 2]]


def test_a_similarity_of_just_the_threshold_joins() -> None:
    embeddings = np.array([[1, 0], [0.75, math.sqrt(1 - 0.75**2)]], dtype=np.float32)
    assert group(embeddings, [1, 1], threshold=0.75) == [[0, 1]]
    assert group(embeddings, [1, 1], threshold=0.76) == [[0], [1]]


def test_one_question_is_one_group_and_none_is_none() -> None:
    assert group(at(7), [1], threshold=0.8) == [[0]]
    assert group(np.empty((0, 2), dtype=np.float32), [], threshold=0.8) == []


def test_the_threshold_tells_the_same_question_from_another_one(encoder: Encoder) -> None:
    texts = list(dict.fromkeys(text for pair in (*NEARLY_SAME, *SAME, *DIFFERENT) for text in pair))
    embeddings = dict(zip(texts, encoder.encode_queries(texts), strict=True))

    def grouped(pairs: Sequence[tuple[str, str]]) -> int:
        return sum(float(embeddings[first] @ embeddings[second]) >= THRESHOLD for first, second in pairs)

    # Of 50, 45 and 46: the figures of the module.
    assert [grouped(NEARLY_SAME), grouped(SAME), grouped(DIFFERENT)] == [48, 9, 2]


def test_paraphrases_are_one_group_and_neighbours_are_not(encoder: Encoder) -> None:
    questions = [
        missed("How do I cancel my subscription?", 9),
        missed("What does error 403 mean?", 7),
        missed("Do you ship to Canada?", 6),
        missed("How do I renew my subscription?", 5),
        missed("What does error 500 mean?", 4),
        missed("Do you ship to Australia?", 3),
        missed("I want to end my subscription, what do I have to do?", 2),
        missed("I get a 403 error, why?", 2),
        missed("do you deliver to canada"),
        missed("cancel subscription"),
    ]
    groups = Insights().groups(questions, encoder)
    assert [[wording.text for wording in each.wordings] for each in groups] == [
        [
            "How do I cancel my subscription?",
            "I want to end my subscription, what do I have to do?",
            "cancel subscription",
        ],
        ["What does error 403 mean?", "I get a 403 error, why?"],
        ["Do you ship to Canada?", "do you deliver to canada"],
        ["How do I renew my subscription?"],
        ["What does error 500 mean?"],
        ["Do you ship to Australia?"],
    ]
    assert [each.count for each in groups] == [12, 9, 7, 5, 4, 3]


def test_the_threshold_of_the_default_model_is_the_measured_one(encoder: Encoder) -> None:
    assert threshold_for(encoder.encode_queries(UNRELATED)) == pytest.approx(THRESHOLD, abs=5e-4)


def test_a_model_that_calls_everything_similar_gets_the_same_groups(encoder: Encoder) -> None:
    def crowded(embeddings: Embeddings) -> Embeddings:
        """Move all embeddings towards one direction, which makes each similarity x become (x + 3) / 4."""
        return np.hstack([embeddings, np.full((len(embeddings), 1), math.sqrt(3), dtype=np.float32)]) / 2

    texts = [text for pair in (*NEARLY_SAME[:6], *DIFFERENT[:6]) for text in pair]
    embeddings = encoder.encode_queries(texts)
    unrelated = crowded(encoder.encode_queries(UNRELATED))
    assert threshold_for(unrelated) == pytest.approx((THRESHOLD + 3) / 4, abs=5e-4)
    found = group(crowded(embeddings), [1] * len(texts), threshold=threshold_for(unrelated))
    assert found == group(embeddings, [1] * len(texts), threshold=THRESHOLD)


def test_a_question_is_encoded_once(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = CountingEncoder(encoder)
    grouping = Insights()
    first, second = missed("Is tea free?"), missed("Where is the lost property office?")
    assert grouping.groups([], counting) == []
    assert counting.encoded == []
    grouping.groups([first], counting)
    grouping.groups([second, first], counting)
    assert sorted(counting.encoded) == sorted([first.text, second.text, *UNRELATED])
    monkeypatch.setattr(insights, "MAX_REMEMBERED", 1)
    grouping.groups([second], counting)  # the least recently used is forgotten
    grouping.groups([first], counting)
    assert counting.encoded.count(first.text) == 2
    assert counting.encoded.count(second.text) == 1


def test_a_group_adds_up_its_wordings() -> None:
    found = Group(
        (missed("a", 3, unanswered=2, hours=5), missed("b", 2, unanswered=0, hours=1), missed("c", hours=3))
    )
    assert (found.question, found.count, found.unanswered, found.thumbed_down) == ("a", 6, 3, 3)
    assert (found.first, found.last) == (NOON + timedelta(hours=1), NOON + timedelta(hours=5))


def test_a_group_tells_its_own_complaints() -> None:
    complaints = [
        Complaint("a", "wrong", "tea.md", 1),
        Complaint("b", "old", "milk.md", 3),
        Complaint("b", "wrong", None, 1),
        Complaint("z", "not ours", "z.md", 9),
        Complaint("a", None, "sugar.md", 2),
        Complaint("a", "late", "tea.md", 1),
    ]
    found = Group((missed("a"), missed("b")))
    assert found.reasons(complaints, at_most=10) == ["wrong", "old", "late"]
    assert found.reasons(complaints, at_most=2) == ["wrong", "old"]
    assert found.documents(complaints, at_most=10) == ["milk.md", "tea.md", "sugar.md"]
    assert found.documents(complaints, at_most=1) == ["milk.md"]


# Over HTTP


@pytest.fixture
def handbook_home(home: Home, encoder: Encoder) -> Path:
    """A home with the handbook."""
    sync(home, [Handbook()], encoder)
    return home.path


@pytest.fixture(scope="module")
def client(encoder: Encoder, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service over the handbook that was asked before."""
    home = Home(tmp_path_factory.mktemp("insights"))
    sync(home, [Handbook()], encoder)
    with serving(home.path, cache_folder) as client:
        yield client


def unanswered(client: httpx.Client, **wanted: int) -> dict[str, Any]:
    """Return the insights."""
    response = client.get("/v1/insights/unanswered", params=wanted)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_what_people_miss_is_grouped_and_ranked(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder, question_log_days=30) as client:
        check_what_is_missed(client)
    # The log outlives the service.
    with serving(handbook_home, cache_folder, question_log_days=30) as client:
        assert [each["count"] for each in unanswered(client)["groups"]] == [4, 3, 1]


def check_what_is_missed(client: httpx.Client) -> None:
    """Ask and complain, and see that the insights tell it."""
    refund, again, price = "Can I get a refund?", "How can I get a refund?", "What does the blender cost?"
    answers = client.post("/v1/ask/batch", json={"questions": [refund, refund, again, price]}).json()["answers"]
    assert [answer["answered"] for answer in answers] == [False] * 4
    red = client.get("/v1/ask", params={"q": "What does the red light mean?"}).json()
    assert red["answered"]
    citation = red["answer"]["citation"]
    said = {
        "question": red["question"],
        "rating": "down",
        "answered": True,
        "generation": red["generation"],
        "citation": {"document": citation["document"]["id"], "start": citation["start"], "end": citation["end"]},
    }
    for reason in ("It blinks.", "It blinks.", "It is green.", None):
        assert client.post("/v1/feedback", json={**said, "reason": reason}).status_code == 201
    told = {"question": again, "rating": "down", "answered": False, "reason": "I want my money!"}
    assert client.post("/v1/feedback", json=told).status_code == 201

    found = unanswered(client)
    assert (found["groups_found"], found["wordings"], found["wordings_grouped"]) == (3, 4, 4)
    assert (found["asked"], found["unanswered"]) == (5, 4)
    lights, money, blender = found["groups"]
    assert lights["question"] == red["question"]
    assert (lights["count"], lights["unanswered"], lights["thumbed_down"]) == (4, 0, 4)
    assert lights["reasons"] == ["It is green.", "It blinks."]
    assert lights["documents"] == ["router.md"]
    assert (lights["answered"], lights["confidence"]) == (True, red["confidence"])
    assert lights["nearest"] == red["passages"][0]
    assert lights["generation"] == red["generation"]
    assert money["question"] == refund
    assert money["wordings"] == [refund, again]
    assert (money["count"], money["unanswered"], money["thumbed_down"]) == (3, 3, 1)
    assert money["reasons"] == ["I want my money!"]
    assert (money["answered"], money["documents"]) == (False, [])
    assert money["nearest"] == answers[0]["passages"][0]
    assert money["first"] <= money["last"]
    assert datetime.fromisoformat(money["last"]).utcoffset() == timedelta(0)
    assert (blender["question"], blender["count"]) == (price, 1)

    first = unanswered(client, limit=1)
    assert [each["question"] for each in first["groups"]] == [red["question"]]
    assert first["groups_found"] == 3


def test_questions_are_not_logged_unless_it_is_switched_on(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder) as client:
        assert not client.get("/v1/ask", params={"q": "Can I get a refund?"}).json()["answered"]
        found = unanswered(client)
        assert found == {
            "groups": [],
            "groups_found": 0,
            "wordings": 0,
            "wordings_grouped": 0,
            "asked": None,
            "unanswered": None,
        }
        told = {"question": "Can I get a refund?", "rating": "up", "answered": False}
        assert client.post("/v1/feedback", json=told).status_code == 201
        assert [(each["question"], each["count"]) for each in unanswered(client)["groups"]] == [
            ("Can I get a refund?", 1)
        ]


@pytest.mark.parametrize(
    "wanted", [{"limit": 0}, {"limit": 101}, {"limit": "many"}, {"days": 0}, {"days": 3_651}, {"from": "1970-01-01"}]
)
def test_what_cannot_be_wanted_is_refused(client: httpx.Client, wanted: dict[str, Any]) -> None:
    response = client.get("/v1/insights/unanswered", params=wanted)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    (error,) = response.json()["errors"]
    assert error["pointer"] == f"query/{next(iter(wanted))}"


def test_many_may_want_the_insights_while_others_ask(client: httpx.Client) -> None:
    before = unanswered(client)["wordings"]
    for number in range(30):
        told = {"question": f"Is room {number} free on day {number * 7}?", "rating": "down", "answered": False}
        assert client.post("/v1/feedback", json=told).status_code == 201
    with ThreadPoolExecutor(8) as pool:
        wanted = [pool.submit(unanswered, client, limit=100) for _ in range(8)]
        asked = [pool.submit(client.get, "/v1/ask", params={"q": "What does the red light mean?"}) for _ in range(20)]
        assert [future.result().status_code for future in asked] == [200] * 20
        assert {future.result()["wordings"] for future in wanted} == {before + 30}


def test_a_client_that_leaves_early_leaves_the_service_well(client: httpx.Client) -> None:
    for number in range(60):
        told = {"question": f"Which {number} parts has thing {number * 31}?", "rating": "down", "answered": False}
        assert client.post("/v1/feedback", json=told).status_code == 201
    with pytest.raises(httpx.ReadTimeout):
        client.get("/v1/insights/unanswered", params={"limit": 100}, timeout=httpx.Timeout(30, read=0.002))
    assert unanswered(client, limit=1)["wordings"] >= 60
