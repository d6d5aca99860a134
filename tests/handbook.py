"""A small corpus in which the answers are known: Markdown, a web page with its address, a document with pages."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from sources_in_memory import markdown_document

from index.documents import BlockKind, Content, Document
from index.readers.builder import ContentBuilder
from index.readers.limits import Limits
from index.sources import Rejected, Unchanged

RESET = (
    "To reset the router, hold the button on its back for ten seconds until the blue light goes out, then wait two "
    "minutes before you plug the cable in again. All passwords are lost when you do so, and the name of the "
    "network is the one printed on the label."
)
TEXTS = {
    "kettle.md": """---
product: kettle
year: 2023
tags: [kitchen, safety]
---
# Kettle

## Descaling

Descale the kettle every three months. Fill it with equal parts of water and vinegar, and boil it twice.
Rinse it three times before you make tea.

## Safety

The handle stays cool, but the lid gets hot: 95 °C. Never fill the kettle above the line marked MAX.
""",
    "router.md": f"""---
product: router
year: 2024
beta: true
---
# Router

## Lights

The red light means that there is no power. The blue light means that the router is connected.

## Reset

{RESET}

## Wi-Fi – naïve café edition 🦀

The café network is called “Straße 7”. Its password is on the receipt. 東京タワーの下にあります。
""",
    "guide/router reset & tips (ä).md": f"""---
product: router
year: 2025
---
# Tips

{RESET.upper()}

## Reach

A router on a shelf reaches further than one on the floor.
""",
    "warranty.md": """# Warranty

The warranty of every appliance lasts two years. Send the receipt with the appliance to the address below.
""",
}
ADDRESS = "https://example.org/dishwasher?lang=en#top"


@dataclass(frozen=True)
class Handbook:
    """The corpus as a source."""

    key: str = "handbook"
    prefix: str = ""
    is_bundled: bool = False

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Unchanged | Rejected]:
        """Yield its documents."""
        for doc_id, text in TEXTS.items():
            yield markdown_document(doc_id, text)
        yield _dishwasher()
        yield _toaster()


def _dishwasher() -> Document:
    text = (
        "# Dishwasher\n\nThe filter of the dishwasher sits under the lower basket - turn it to the left, lift it out "
        "and rinse it under warm water, once a month or whenever the plates come out with crumbs.\n\nUse salt."
    )
    return replace(markdown_document("dishwasher.html", text), uri=ADDRESS, media_type="text/html")


def _toaster() -> Document:
    """Return a document of three pages, with a line of page furniture that repeats its best sentence."""
    builder = ContentBuilder(Limits())
    builder.add(BlockKind.HEADING, "Toaster", level=1, page=1)
    builder.add(BlockKind.PARAGRAPH, "Crumbs fall into a tray. Empty the crumb tray of the toaster weekly.", page=1)
    builder.add(BlockKind.PARAGRAPH, "Empty the crumb tray of the toaster weekly", page=2, furniture=True)
    builder.add(BlockKind.HEADING, "Browning", level=2, page=2)
    builder.add(BlockKind.PARAGRAPH, "Level four of the browning dial suits frozen bread.", page=2)
    builder.add(BlockKind.HEADING, "Noise", level=2, page=3)
    builder.add(BlockKind.PARAGRAPH, "A humming toaster is normal; a rattling one wants repair.", page=3)
    content: Content = builder.content()
    sha256 = hashlib.sha256(content.text.encode()).hexdigest()
    return Document("toaster.pdf", "Toaster", "application/pdf", sha256, len(content.text), content)
