// Where a quote stands, in words and as an address; the words are those of the command line.

import { address, documentPath } from "./api.js";

const TOLD = 16; // hexadecimal digits of the digest that an address carries

/** Say how sure an answer is. */
export function sureness(confidence) {
  if (confidence >= 0.9) return "Very likely the answer";
  return confidence >= 0.7 ? "Likely the answer" : "Possibly the answer";
}

/** Write a probability as a percentage; nothing is certain or impossible. */
export function percent(ratio) {
  if (ratio < 0.01) return "less than 1 %";
  if (ratio > 0.99) return "more than 99 %";
  return `${Math.round(ratio * 100)} %`;
}

/** Return the headings below the document's own title. */
export function headingsOf(citation) {
  return citation.headings.filter((heading) => heading !== citation.document.title);
}

/** Say on which page or lines a quote stands. */
export function linesOf(citation) {
  if (citation.page !== null) return `page ${citation.page}`;
  return linesFromTo(citation.first_line, citation.last_line);
}

/** Say which lines. */
export function linesFromTo(first, last) {
  return first === last ? `line ${first}` : `lines ${first}–${last}`;
}

/** Say where a quote stands: title, headings below it, page or lines, document. */
export function placeOf(citation) {
  const path = [citation.document.title, ...headingsOf(citation)].join(" › ");
  return `${path}, ${linesOf(citation)} (${citation.document.id})`;
}

/** Return the address of a question, at one of its passages if a rank is given. */
export function askAddress(question, rank = null) {
  const url = address("./", { q: question });
  if (rank !== null) url.hash = `passage-${rank}`;
  return url.href;
}

/**
 * Return the address of the page that shows the source with a quote marked.
 *
 * @param {object} citation the quote.
 * @param {{q?: string, passage?: number}} from the question and the rank of its passage, where the page leads back.
 */
export function sourceAddress(citation, from = {}) {
  const { document: cited, start, end } = citation;
  const query = { start, end, sha256: cited.sha256.slice(0, TOLD), ...from };
  return address(`documents/${documentPath(cited.id)}`, query).href;
}

/** Return a quote with its place and address, as it is pasted into a text. */
export function quotation(citation) {
  return `“${citation.quote}”\n— ${placeOf(citation)}\n${sourceAddress(citation)}\n`;
}
