"""LaTeX: sections, paragraphs, lists, tables and verbatim text of the body."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pylatexenc.latex2text import LatexNodes2Text  # type: ignore[import-untyped]

from index.documents import BlockKind, Content, MetadataValue, Span
from index.readers.blocks import Blocks, visible
from index.readers.limits import Limits
from index.readers.text import canonical_text

_LEVELS = {
    "part": 1,
    "chapter": 1,
    "section": 2,
    "subsection": 3,
    "subsubsection": 4,
    "paragraph": 5,
    "subparagraph": 6,
    "frametitle": 3,
    "title": 1,
}
_CODE = frozenset(["verbatim", "Verbatim", "lstlisting", "minted", "alltt", "tikzpicture", "filecontents"])
_LISTS = frozenset(["itemize", "enumerate", "description", "compactitem", "compactenum", "thebibliography"])
_TABLES = frozenset(["tabular", "tabularx", "tabulary", "longtable", "array", "tabbing", "supertabular"])
_MATHS = frozenset(["equation", "align", "gather", "multline", "eqnarray", "displaymath", "math", "cases", "split"])
_QUOTES = frozenset(["quote", "quotation", "verse", "displayquote"])
_WITH_ARGUMENTS = frozenset(["minipage", "multicols", "subfigure", "wrapfigure", "column", "adjustbox"])

_BEGIN_DOCUMENT = re.compile(r"^[^%\n]*?\\begin\s*\{document\}", re.MULTILINE)
_END_DOCUMENT = re.compile(r"^[^%\n]*?(?=\\end\s*\{document\})", re.MULTILINE)
_TOKEN = re.compile(
    r"\\(?P<edge>begin|end)\s*\{(?P<environment>[^{}\n]*)\}"
    r"|\\(?P<macro>part|chapter|(?:sub){0,2}section|(?:sub)?paragraph|frametitle|title|caption)"
    r"\*?\s*(?:\[[^\]]{0,500}\]\s*)?(?=\{)"
    r"|\\(?P<other>par|item|newpage|clearpage|maketitle)(?![a-zA-Z])"
    r"|(?P<escaped>\\.)"
    r"|(?P<comment>%.*)"
    r"|(?P<blank>\n[ \t]*\n\s*)"
)
_TITLE, _AUTHOR = (
    re.compile(rf"^[^%\n]*?\\{macro}\s*(?:\[[^\]]{{0,500}}\]\s*)?(?=\{{)", re.MULTILINE)
    for macro in ("title", "author")
)
_BRACE = re.compile(r"\\.|[{}]|\n[ \t]*\n", re.DOTALL)
_ITEM = re.compile(r"\\(?:(?P<edge>begin|end)\s*\{[^{}\n]*\}|(?P<item>(?:bib)?item)(?![a-zA-Z]))|\\.|%.*", re.DOTALL)
_ROW_END = re.compile(
    r"\\(?:(?P<edge>begin|end)\s*\{[^{}\n]*\}|(?P<row>(?:\\|tabularnewline)\*?(?:\[[^\]]{0,500}\])?))|\\."
)
_RULES = re.compile(
    r"(?:\s|\\(?:hline|toprule|midrule|bottomrule|endhead|endfirsthead|endfoot|endlastfoot)(?![a-zA-Z])"
    r"|\\c(?:line|midrule)(?:\([^)]{0,50}\))?\{[^}]{0,50}\})+"
)
_SETTING = re.compile(
    r"(?:\s|\\(?:label|centering|includegraphics|vspace|hspace|input|include|bibliography|bibliographystyle|noindent"
    r"|tableofcontents|listoffigures|listoftables|pagestyle|thispagestyle|setcounter|setlength|small|footnotesize"
    r"|scriptsize|large|appendix|usepackage|documentclass|newcommand|renewcommand|smallskip|medskip|bigskip"
    r"|date|hfill|vfill)(?![a-zA-Z])\*?(?:\[[^\]]{0,500}\])?(?:\{[^{}]{0,500}\})*)+"
)
_PLACEMENT = re.compile(r"\s*\[[htbpHc!]{1,6}\]")
_OPTIONS = re.compile(r"[ \t]*(?:\[[^\]]{0,500}\]|\{[^{}\n]*\})*")
_FIRST_ARGUMENTS = re.compile(r"(?:\s*\[[^\]]{0,500}\])?(?:\s*\{(?:[^{}]|\{[^{}]*\})*\})?")
_TRAILING_COMMENT = re.compile(r"(?<!\\)%[^\n]*\s*\Z")
_CLOCK = re.compile(r"\\(?:today|maketitle)(?![a-zA-Z])")  # they would stand for the date of reading


def read_latex(data: bytes, limits: Limits) -> Content:
    """Read LaTeX; the canonical text is the file with its commands.

    The preamble but for its title, whole-line comments and drawing or layout commands are in no block, and
    nothing is included from another file. Equations belong to the paragraph they stand in.
    """
    text = canonical_text(data, limits)
    body = _body(text)
    parser = _Parser(text)
    title = _argument(_TITLE, text, (0, body[0]))
    if title:
        parser.add_heading("title", title)
    parser.read(body)
    author = _argument(_AUTHOR, text, (0, len(text)))
    metadata: dict[str, MetadataValue] = {"author": _words(text[slice(*author)])} if author else {}
    return parser.blocks.content(metadata=metadata)


def _body(text: str) -> Span:
    """Return where the body of the document is; a file without preamble is all body."""
    begin = _BEGIN_DOCUMENT.search(text)
    start = begin.end() if begin else 0
    end = _END_DOCUMENT.search(text, start)
    return start, end.end() if end else len(text)


def _argument(macro: re.Pattern[str], text: str, region: Span) -> Span | None:
    match = macro.search(text, *region)
    return _group(text, match.end(), region[1]) if match else None


def _group(text: str, start: int, end: int) -> Span:
    """Return the span within the braces that open at an offset; an unclosed group ends with its line."""
    depth = 0
    for brace in _BRACE.finditer(text, start, end):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return start + 1, brace.start()
        if brace[0].isspace():
            break
    line_end = text.find("\n", start, end)
    return start + 1, line_end if line_end >= 0 else end


def _words(latex: str) -> str:
    """Return what a piece of LaTeX shows."""
    try:
        return " ".join(str(LatexNodes2Text().latex_to_text(_CLOCK.sub("", latex))).split())
    except (RecursionError, AttributeError, LookupError, TypeError, ValueError):  # as on a command cut short
        return latex


@dataclass(frozen=True)
class _Environment:
    """An environment: its name, what is inside, and where the text after it begins."""

    name: str
    inside: Span
    after: int


class _Parser:
    """Collects paragraphs between the commands that end them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.blocks = Blocks(text)
        self._kind = BlockKind.PARAGRAPH

    def read(self, region: Span) -> None:
        """Add the blocks of a region."""
        position, end = region
        paragraph = position
        while (token := _TOKEN.search(self.text, position, end)) is not None:
            position = token.end()
            if token["escaped"] or self._is_inline(token):
                continue
            self._add_paragraph(paragraph, token.start())
            position = paragraph = min(self._take(token, end), end)
        self._add_paragraph(paragraph, end)

    def _is_inline(self, token: re.Match[str]) -> bool:
        """Whether a token does not end the paragraph: an equation, or a comment behind text."""
        if token["environment"] is not None:
            return token["environment"].rstrip("*") in _MATHS
        line_start = self.text.rfind("\n", 0, token.start()) + 1
        return token["comment"] is not None and bool(self.text[line_start : token.start()].strip())

    def _add_paragraph(self, start: int, end: int) -> None:
        settings = _SETTING.match(self.text, start, end)
        start = settings.end() if settings else start
        comment = _TRAILING_COMMENT.search(self.text, start, end)
        span = (start, comment.start() if comment else end)
        if any(character.isalnum() for character in self.text[slice(*span)]):
            self.blocks.add(self._kind, span)

    def _take(self, token: re.Match[str], end: int) -> int:
        """Add what a token begins; returns where the text goes on."""
        if token["macro"]:
            span = _group(self.text, token.end(), end)
            if token["macro"] == "caption":
                self.blocks.add(BlockKind.CAPTION, span)
            else:
                self.add_heading(token["macro"], span)
            return span[1] + 1
        if token["edge"] == "begin":
            return self._take_environment(token, end)
        if token["edge"] == "end" and token["environment"] in _QUOTES:
            self._kind = BlockKind.PARAGRAPH
        return token.end()

    def add_heading(self, macro: str, span: Span) -> None:
        """Add a heading of the level that a command stands for."""
        self.blocks.add_heading(span, _LEVELS[macro], _words(self.text[slice(*span)]))

    def _take_environment(self, token: re.Match[str], end: int) -> int:
        name = token["environment"].rstrip("*")
        if name in _CODE | _LISTS | _TABLES | {"comment"}:
            environment = self._environment(token, name, end)
            self._add_environment(environment)
            return environment.after
        if name == "abstract":
            self.blocks.add_heading(token.span("environment"), _LEVELS["section"], "Abstract")
        if name in _QUOTES:
            self._kind = BlockKind.QUOTE
        if name == "frame" and self.text[token.end() : token.end() + 1] == "{":
            title = _group(self.text, token.end(), end)
            self.add_heading("frametitle", title)
            return title[1] + 1
        skipped = (_OPTIONS if name in _WITH_ARGUMENTS else _PLACEMENT).match(self.text, token.end())
        return skipped.end() if skipped else token.end()

    def _environment(self, token: re.Match[str], name: str, end: int) -> _Environment:
        """Find the end of an environment; one that is never closed ends with its region."""
        edges = re.compile(rf"\\(begin|end)\s*\{{{re.escape(name)}\*?\}}")
        depth = 1
        for edge in edges.finditer(self.text, token.end(), end):
            if name not in _CODE or edge[1] == "end":
                depth += 1 if edge[1] == "begin" else -1
            if depth == 0:
                return _Environment(name, (token.end(), edge.start()), edge.end())
        return _Environment(name, (token.end(), end), end)

    def _add_environment(self, environment: _Environment) -> None:
        start, end = environment.inside
        if environment.name in _CODE:
            options = _OPTIONS.match(self.text, start, end)
            self.blocks.add(BlockKind.CODE, (options.end() if options else start, end))
        elif environment.name in _LISTS:
            self._add_list(start, end)
        elif environment.name in _TABLES:
            self._add_table(start, end)

    def _add_list(self, start: int, end: int) -> None:
        starts: list[int] = []
        depth = 0
        for match in _ITEM.finditer(self.text, start, end):
            depth += {"begin": 1, "end": -1}.get(match["edge"] or "", 0)
            if match["item"] and depth == 0:
                starts.append(match.start())
        items = list(zip(starts, [*starts[1:], end], strict=False))
        before = starts[0] if starts else end
        self._add_paragraph(start, before)
        self.blocks.add_parts(BlockKind.LIST, items)

    def _add_table(self, start: int, end: int) -> None:
        arguments = _FIRST_ARGUMENTS.match(self.text, start, end)
        start = arguments.end() if arguments else start
        rows: list[Span] = []
        depth = 0
        for match in _ROW_END.finditer(self.text, start, end):
            depth += {"begin": 1, "end": -1}.get(match["edge"] or "", 0)
            if match["row"] and depth == 0:
                rows.append((start, match.start()))
                start = match.end()
        rows.append((start, end))
        trimmed = [row for row in map(self._without_rules, rows) if visible(self.text, *row)]
        self.blocks.add_parts(BlockKind.TABLE, trimmed, header_rows=int(len(trimmed) > 1))

    def _without_rules(self, row: Span) -> Span:
        rules = _RULES.match(self.text, *row)
        return (rules.end() if rules else row[0]), row[1]
