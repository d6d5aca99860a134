"""What Open WebUI sends to an external web search, and expects of it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, RootModel

from index.answers import CitedPassage
from service.addresses import Link
from service.schemas.base import Schema


class WebSearchJson(BaseModel):
    """A search of Open WebUI."""

    # Another version of Open WebUI may send more.
    model_config = ConfigDict(extra="ignore", frozen=True)

    query: str = Field(description="1 to 4,000 characters.", examples=["How much memory did Pingora save?"])
    count: int | None = Field(None, description="Results wanted, 1 to 100; 5 unless the service is set otherwise.")


class WebResultJson(Schema):
    """A passage."""

    link: str = Field(description="Opens the document at the passage.")
    title: str
    snippet: str = Field(description="Exact words.")

    @classmethod
    def of(cls, passage: CitedPassage, link: Link) -> WebResultJson:
        """Convert from the library's record."""
        citation = passage.citation
        return cls(link=link(citation.url), title=citation.document.title, snippet=passage.text)


class WebResultsJson(RootModel[list[WebResultJson]]):
    """Passages, best first; none when the documents do not answer."""
