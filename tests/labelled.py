"""Questions about the handbook, with the documents that answer them; and some that nothing there answers."""

from __future__ import annotations

import json
from pathlib import Path

ROUTER, TIPS, KETTLE = "router.md", "guide/router reset & tips (ä).md", "kettle.md"
DISHWASHER, TOASTER, WARRANTY = "dishwasher.html", "toaster.pdf", "warranty.md"
ANSWERABLE = {
    "How do I reset the router?": [ROUTER, TIPS],
    "What does the red light mean?": [ROUTER],
    "What does the blue light mean?": [ROUTER],
    "What is the café network called?": [ROUTER],
    "Where is the password of the café network?": [ROUTER],
    "For how many seconds do I hold the button of the router?": [ROUTER, TIPS],
    "What is lost when I reset the router?": [ROUTER, TIPS],
    "Where should I put the router so that it reaches further?": [TIPS],
    "Does a router reach further on a shelf?": [TIPS],
    "How often should I descale the kettle?": [KETTLE],
    "With what do I fill the kettle to descale it?": [KETTLE],
    "How many times do I rinse the kettle?": [KETTLE],
    "How hot does the lid of the kettle get?": [KETTLE],
    "How far may I fill the kettle?": [KETTLE],
    "Where is the filter of the dishwasher?": [DISHWASHER],
    "How do I clean the dishwasher's filter?": [DISHWASHER],
    "Should I use salt in the dishwasher?": [DISHWASHER],
    "How often do I empty the crumb tray?": [TOASTER],
    "Which level of browning is right for frozen bread?": [TOASTER],
    "Is a humming toaster normal?": [TOASTER],
    "What should I do about a rattling toaster?": [TOASTER],
    "How long does the warranty last?": [WARRANTY],
    "What do I send in with the appliance under warranty?": [WARRANTY],
    "crumb tray of the toaster": [TOASTER],
}
UNANSWERABLE = (
    "Who won the world cup in 1998?",
    "What is the capital of Mongolia?",
    "How does photosynthesis work?",
    "Which wine goes with salmon?",
    "When was the Treaty of Westphalia signed?",
    "What is the boiling point of nitrogen?",
    "How do I change the oil of a car?",
    "Who wrote War and Peace?",
    "What does the green light of the washing machine mean?",
    "How much does a new router cost?",
    "Which kettle is the quietest?",
    "Can the toaster be repaired in Berlin?",
)


def write_labels(path: Path) -> Path:
    """Write them as labels, and return the path."""
    labels = [*ANSWERABLE.items(), *((question, []) for question in UNANSWERABLE)]
    lines = [json.dumps({"question": question, "documents": documents}) for question, documents in labels]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
