// Questions to begin with, made of the headings of the first documents.

import { documentPath, sendForJson } from "./api.js";
import { button, element, foreign } from "./dom.js";

const DOCUMENTS = 6; // looked at
const EXAMPLES = 4; // shown
const WORDS = { least: 2, most: 7 }; // of a heading that says enough and not too much
const ASKS = /^(how|when|where)( not)? to\b|\?$/i;
const SAYS_LITTLE = /^(why|what|who|which|how|about|table of contents|key takeaways)\b/i;
const NUMBERING = /^\s*(?:(?:section|chapter|part)\s+)?(?:\d+(?:\.\d+)*|[ivxlc]+)\s*[.):—–-]\s*/i;

/**
 * Offer questions while nothing has been asked, or say that there is nothing to ask.
 *
 * @param {function(string): void} ask is called with the question that was chosen.
 * @throws {Problem} the documents cannot be listed.
 */
export async function examplesView(ask, signal) {
  const { documents } = await sendForJson("v1/documents", { query: { limit: DOCUMENTS }, signal });
  if (documents.length === 0) return noDocuments();
  // One that was deleted meanwhile gives no example.
  const described = await Promise.allSettled(
    documents.map(({ id }) => sendForJson(`v1/documents/${documentPath(id)}`, { signal })));
  const found = described.filter(({ status }) => status === "fulfilled").map(({ value }) => value);
  const questions = spread(found.map(questionsOf)).slice(0, EXAMPLES);
  if (questions.length === 0) return element("div");
  return element("section", { class: "examples", "aria-labelledby": "examples-title" },
    element("h2", { id: "examples-title", class: "eyebrow" }, "For example"),
    element("ul", {}, ...questions.map((question) =>
      element("li", {}, button(foreign(question), () => ask(question), { class: "example" })))),
  );
}

function noDocuments() {
  return element("section", { class: "notice" },
    element("h2", {}, "There are no documents yet"),
    element("p", {}, "Add a folder of them on the machine that this runs on:"),
    element("pre", {}, element("code", {}, "whence index docs/")),
    element("p", {}, "Or send them over HTTP: ", element("a", { href: "docs" }, "how that is done"), "."),
  );
}

/** Make questions of a document's headings. */
function questionsOf({ title, outline }) {
  return outline
    .filter(({ text }) => text !== title)
    .map(({ text }) => text.replace(NUMBERING, "").replace(/[.:!]+$/, "").trim())
    .filter(isTelling)
    .map(asQuestion);
}

function isTelling(heading) {
  const words = heading.split(/\s+/).length;
  return words >= WORDS.least && words <= WORDS.most && (ASKS.test(heading) || !SAYS_LITTLE.test(heading));
}

function asQuestion(heading) {
  if (ASKS.test(heading)) return heading.endsWith("?") ? heading : `${heading}?`;
  return `What about ${heading.replace(/^(The|An?)(?= )/, (article) => article.toLowerCase())}?`;
}

/** Take the first of each list, then the second of each, and so on, each once. */
function spread(lists) {
  const longest = Math.max(0, ...lists.map((list) => list.length));
  const inTurn = Array.from({ length: longest }, (_, place) => lists.map((list) => list[place])).flat();
  return [...new Set(inTurn.filter((question) => question !== undefined))];
}
