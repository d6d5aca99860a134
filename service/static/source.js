// The page that shows a document as it was indexed, with a quote marked.

import { Problem, address, documentPath, send, sendForJson, sendForText, takeKeyFromAddress } from "./api.js";
import {
  announce, awayLink, button, copyButton, documentId, element, foreign, icon, webAddress, wireSkipLink,
} from "./dom.js";
import { askAddress, linesFromTo, sourceAddress } from "./place.js";
import { failureNotice, wireForgetKey } from "./problems.js";
import { onKeys } from "./shortcuts.js";
import { countCodePoints, lineBreaksBefore, unitsAt } from "./text.js";
import { TextView } from "./textview.js";

const PATIENCE_MS = 150;
const KEPT_MS = 60_000; // for the browser to save a download
const WIDE = matchMedia("(min-width: 68rem)"); // the contents have room beside the text
const CHANGED = "This document has changed since it was cited. What is marked stands at the cited place now, and may "
  + "not be what was quoted.";
const main = document.getElementById("source");
const back = document.getElementById("back");
const given = new URLSearchParams(location.search);

async function show() {
  const opening = () => main.replaceChildren(element("p", { class: "aside" }, "Opening the document…"));
  const waiting = setTimeout(opening, PATIENCE_MS);
  try {
    const path = `v1/documents/${documentPath(idInAddress())}`;
    const [described, text] = await Promise.all([sendForJson(path), sendForText(`${path}/text`)]);
    render(described, text);
  } catch (error) {
    main.replaceChildren(failureNotice(error, show));
  } finally {
    clearTimeout(waiting);
  }
}

function idInAddress() {
  const { pathname } = address("documents/");
  try {
    const id = decodeURIComponent(location.pathname.slice(pathname.length));
    if (id !== "") return id;
  } catch {
    // Not percent-encoded UTF-8, which no id is.
  }
  throw new Problem("document_unknown", "The address does not name a document.", { status: 404 });
}

function render(described, text) {
  const { quote, complaint } = quoteInAddress(described, text);
  document.title = `${described.title} – Whence`;
  const view = new TextView(text, quote);
  const [download, downloadProblem] = downloadLink(described);
  main.replaceChildren(
    element("header", { class: "about" },
      foreign(described.title, "h1"),
      element("p", { class: "where aside" }, documentId(described.id), ` · ${kindOf(described)}`),
      complaint === null ? null : element("p", { class: "notice" }, complaint),
      element("div", { class: "actions" },
        quote === null ? null : button(`Go to ${quote.lines}`, () => view.goToQuote(), { class: "primary" }),
        quote === null ? null : copyButton("Copy with citation", quotation(described, text, quote)),
        download,
        webAddress(described.uri) ? awayLink(described.uri, "Original page") : null,
      ),
      downloadProblem,
      details(described),
    ),
    element("div", { class: "reading" },
      contents(described.outline, text, view),
      element("section", { "aria-label": "Text" },
        text === "" ? element("p", { class: "aside" }, "This document has no text.") : view.element),
    ),
  );
  document.getElementById("here").textContent = described.title;
  announce(quote === null ? described.title : `${described.title}, marked: ${quote.lines}`);
  if (quote !== null) view.goToQuote();
}

/**
 * Find the quote that the address points to.
 *
 * @returns {{quote: {start: number, end: number, lines: string}|null, complaint: string|null}} positions in UTF-16
 *   units; the complaint says what is wrong with the address.
 */
function quoteInAddress(described, text) {
  if (!given.has("start") && !given.has("end")) return { quote: null, complaint: null };
  const [first, last] = ["start", "end"].map(positionInAddress);
  const [start, end] = [first, last].map((position) => unitsAt(text, position));
  if (!(first < last) || end === null) return { quote: null, complaint: outside(text) };
  const line = lineBreaksBefore(text, start) + 1;
  const lines = linesFromTo(line, line + lineBreaksBefore(text.slice(start, end), end - start));
  const isAsCited = described.sha256.startsWith(given.get("sha256") ?? "");
  return { quote: { start, end, lines }, complaint: isAsCited ? null : CHANGED };
}

function positionInAddress(name) {
  const position = given.get(name) ?? "";
  return /^\d{1,15}$/.test(position) ? Number(position) : NaN;
}

function outside(text) {
  const place = `characters ${given.get("start") ?? "?"} to ${given.get("end") ?? "?"}`;
  const length = countCodePoints(text).toLocaleString("en");
  return `Nothing is marked: the address points to ${place}, and this document has ${length}. `
    + "It may have changed since it was cited.";
}

function quotation(described, text, { start, end, lines }) {
  const citation = { document: described, start: Number(given.get("start")), end: Number(given.get("end")) };
  const place = `${described.title}, ${lines} (${described.id})`;
  return `“${text.slice(start, end)}”\n— ${place}\n${sourceAddress(citation)}\n`;
}

function kindOf({ media_type: type, size, pages }) {
  const length = pages ? `, ${inUnits(pages, "page")}` : "";
  return `${type}, ${sizeOf(size)}${length}`;
}

function sizeOf(bytes) {
  if (bytes < 1000) return inUnits(bytes, "byte");
  return bytes < 1e6 ? `${(bytes / 1e3).toPrecision(3)} kB` : `${(bytes / 1e6).toPrecision(3)} MB`;
}

function inUnits(count, unit) {
  return `${count} ${unit}${count === 1 ? "" : "s"}`;
}

/** Make the link to the original bytes. A browser that follows it by itself sends no key, and shows no problem. */
function downloadLink({ id }) {
  const path = `v1/documents/${documentPath(id)}/original`;
  const problem = element("div");
  const download = async () => {
    try {
      const response = await send(path);
      const href = URL.createObjectURL(await response.blob());
      element("a", { href, download: id.split("/").at(-1) }).click();
      setTimeout(() => URL.revokeObjectURL(href), KEPT_MS);
      problem.replaceChildren();
    } catch (error) {
      problem.replaceChildren(failureNotice(error, download));
    }
  };
  const onclick = (event) => {
    event.preventDefault();
    download();
  };
  return [element("a", { href: address(path).href, onclick }, icon("load"), "Download the original"), problem];
}

function details({ sha256, source, metadata, generation }) {
  const rows = [
    ...Object.entries(metadata).map(([name, value]) => [foreign(name), value]),
    ["Kind of source", source],
    ["SHA-256 of the file", sha256],
    ["Generation", generation],
  ];
  return element("details", {},
    element("summary", {}, "About this document"),
    element("dl", {}, ...rows.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), metadataValue(value)))),
  );
}

function metadataValue(value) {
  const words = typeof value === "string" ? value : JSON.stringify(value);
  return element("dd", {}, webAddress(value) ? awayLink(webAddress(value), words) : foreign(words));
}

function contents(outline, text, view) {
  if (outline.length < 2) return null;
  const quoted = outline.findLast(({ start }) => start <= Number(given.get("start") ?? -1));
  const entries = outline.map((entry) => {
    const go = () => view.goTo(unitsAt(text, entry.start));
    const looks = { class: "quiet entry", "aria-current": entry === quoted && "location" };
    const item = element("li", {}, button(foreign(entry.text), go, looks));
    item.style.setProperty("--level", String(entry.level));
    return item;
  });
  return element("details", { class: "contents", open: WIDE.matches },
    element("summary", {}, "Contents"), element("ol", {}, ...entries));
}

/** Lead back to the question and its passage. */
function wireBack() {
  const question = given.get("q");
  if (question) {
    back.href = askAddress(question, given.get("passage"));
    back.replaceChildren("Back to ", foreign(`“${question}”`));
  }
  back.prepend(icon("back"));
}

onKeys({ Escape: () => back.click(), "/": () => location.assign(address("./")) });
takeKeyFromAddress();
wireSkipLink();
wireForgetKey();
wireBack();
show();
