// An answer and its passages as a person sees them.

import { awayLink, copyButton, documentId, element, foreign, webAddress } from "./dom.js";
import { feedbackRow } from "./feedback.js";
import { headingsOf, linesOf, percent, placeOf, quotation, sourceAddress, sureness } from "./place.js";
import { flowing, unitsAt } from "./text.js";

/** Show what a question got: the answer, or that there is none, and the passages. */
export function answerView(answer) {
  return element("div", { class: "answered" },
    answer.answered ? answerSection(answer) : notFoundSection(answer),
    answer.passages.length > 0 ? passagesSection(answer) : null,
    element("p", { class: "aside made" }, `Generation ${answer.generation}, ${answer.took_ms} ms`),
  );
}

/** Say in a sentence what a question got, for those who listen. */
export function summary(answer) {
  const found = answer.passages.length === 1 ? "1 passage" : `${answer.passages.length} passages`;
  if (!answer.answered) return `Not found in the documents. ${found} near it.`;
  const { text, citation } = answer.answer;
  return `${sureness(answer.confidence)}: ${text} From ${placeOf(citation)}. ${found}.`;
}

function answerSection(answer) {
  const { text, citation } = answer.answer;
  return element("section", { class: "answer", "aria-labelledby": "answer-title" },
    element("h2", { id: "answer-title", class: "hidden" }, "Answer"),
    confidenceLine(answer.confidence),
    element("figure", {},
      foreign(flowing(text), "blockquote", { class: "quote" }),
      element("figcaption", {},
        sourceLink(citation, { q: answer.question }, [foreign(citation.document.title)]),
        element("p", { class: "aside" }, ...placeLine(citation))),
    ),
    element("div", { class: "actions" }, copyButton("Copy with citation", quotation(citation)), feedbackRow(answer)),
  );
}

function notFoundSection(answer) {
  const near = answer.passages.length > 0
    ? `These passages come nearest; the first is ${percent(answer.confidence)} likely to answer.`
    : "Nothing in them comes near it.";
  return element("section", { class: "answer not-found", "aria-labelledby": "answer-title" },
    element("h2", { id: "answer-title" }, "Not found in the documents"),
    element("p", {}, near),
    element("div", { class: "actions" }, feedbackRow(answer)),
  );
}

function confidenceLine(confidence) {
  return element("p", { class: "confidence" },
    bar(confidence),
    element("span", {}, sureness(confidence)),
    element("span", { class: "aside" }, percent(confidence)),
  );
}

function passagesSection(answer) {
  return element("section", { class: answer.answered ? null : "nearest", "aria-labelledby": "passages-title" },
    element("h2", { id: "passages-title", class: "eyebrow" }, answer.answered ? "Passages" : "Nearest passages"),
    element("ol", { class: "passages" },
      ...answer.passages.map((passage) => element("li", {}, passageArticle(passage, answer.question)))),
  );
}

function passageArticle(passage, question) {
  const { citation } = passage;
  const from = { q: question, passage: passage.rank };
  const title = `passage-${passage.rank}`;
  return element("article", { class: "passage", tabindex: "-1", "aria-labelledby": title, "data-rank": passage.rank },
    element("header", {},
      element("span", { class: "rank" }, element("span", { class: "hidden" }, "Passage "), String(passage.rank)),
      element("h3", { id: title }, sourceLink(citation, from, [foreign(citation.document.title)])),
      scoreBar(passage.score),
    ),
    element("p", { class: "where aside" }, ...placeLine(citation)),
    element("blockquote", { class: "quote", dir: "auto" }, ...marked(passage)),
    element("div", { class: "actions" },
      copyButton("Copy with citation", quotation(citation)),
      webAddress(citation.url) ? awayLink(citation.url, "Original page") : null,
      scoresDetails(passage),
    ),
    passage.also_in.length > 0 ? alsoIn(passage.also_in, from) : null,
  );
}

/** Return the text of a passage with its highlights marked. */
function marked(passage) {
  const shown = flowing(passage.text);
  const pieces = [];
  let end = 0;
  for (const highlight of passage.highlights) {
    const start = unitsAt(passage.text, highlight.start);
    pieces.push(shown.slice(end, start));
    end = unitsAt(passage.text, highlight.end);
    pieces.push(element("mark", {}, shown.slice(start, end)));
  }
  return [...pieces, shown.slice(end)];
}

function placeLine(citation) {
  const headings = headingsOf(citation);
  return [
    ...(headings.length > 0 ? [...joined(headings), " · "] : []),
    linesOf(citation), " · ", documentId(citation.document.id),
  ];
}

function pathOf(citation) {
  return joined([citation.document.title, ...headingsOf(citation)]);
}

function joined(headings) {
  return headings.flatMap((heading, number) => (number > 0 ? [" › ", foreign(heading)] : [foreign(heading)]));
}

function sourceLink(citation, from, words) {
  return element("a", { class: "source", href: sourceAddress(citation, from) }, ...words);
}

function scoreBar(score) {
  const name = element("span", { class: "hidden" }, "Score ");
  return element("span", { class: "score" }, bar(score), name, score.toFixed(2));
}

/** Make a bar that repeats a number which stands beside it. */
function bar(ratio) {
  const made = element("span", { class: "bar", "aria-hidden": "true" });
  made.style.setProperty("--ratio", String(ratio));
  return made;
}

function scoresDetails(passage) {
  const { dense, lexical, sentence } = passage.scores;
  const { start, end, document: cited } = passage.citation;
  const rows = [
    ["Score", passage.score, "of 0 to 1: all of these in one sum"],
    ["Meaning of the passage", dense, "cosine similarity to the question"],
    ["Meaning of its best sentence", sentence, "cosine similarity to the question"],
    ["Words", lexical, "BM25 of the words of the question"],
    ["Place", `${start}–${end}`, "code points of the text"],
    ["SHA-256", cited.sha256, "of the source file"],
  ];
  return element("details", { class: "scores" },
    element("summary", {}, "Scores"),
    element("dl", {}, ...rows.map(([name, value, meaning]) => element("div", {},
      element("dt", {}, name),
      element("dd", {}, element("code", {}, String(value)), element("span", { class: "aside" }, meaning)),
    ))),
  );
}

function alsoIn(citations, from) {
  return element("div", { class: "also" },
    element("h4", {}, "Also in"),
    element("ul", {}, ...citations.map((citation) => element("li", {},
      sourceLink(citation, from, [...pathOf(citation), ", ", linesOf(citation)]), " ",
      documentId(citation.document.id),
    ))),
  );
}
