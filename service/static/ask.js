// The page on which people ask. What is asked stands in its address, to be shared, reloaded and gone back to.

import { answerView, summary } from "./answer.js";
import { sendForJson } from "./api.js";
import { announce, element, wireSkipLink } from "./dom.js";
import { examplesView } from "./examples.js";
import { askAddress } from "./place.js";
import { failureNotice, wireForgetKey } from "./problems.js";
import { onKeys, wireShortcutsDialog } from "./shortcuts.js";

const PATIENCE_MS = 150; // an answer that comes sooner is shown without saying that it is being looked for
const form = document.getElementById("ask");
const box = document.getElementById("question");
const result = document.getElementById("result");
let running = new AbortController();

/** Do something and show what came of it, unless something else was begun meanwhile. */
async function show(work, retry) {
  running.abort();
  const { signal } = (running = new AbortController());
  const waiting = setTimeout(() => result.replaceChildren(loadingView()), PATIENCE_MS);
  result.setAttribute("aria-busy", "true");
  let view;
  try {
    view = await work(signal);
  } catch (error) {
    if (signal.aborted) return;
    view = failureNotice(error, retry);
  } finally {
    clearTimeout(waiting);
  }
  if (signal.aborted) return;
  result.replaceChildren(view);
  result.removeAttribute("aria-busy");
}

/** Answer a question, and go to the passage that the address names. */
async function answer(question) {
  document.title = `${question} – Whence`;
  document.body.classList.add("has-asked");
  await show(async (signal) => {
    const found = await sendForJson("v1/ask", { method: "POST", json: { question }, signal });
    announce(summary(found));
    return answerView(found);
  }, () => answer(question));
  document.getElementById(location.hash.slice(1))?.closest("article")?.focus();
}

async function welcome() {
  document.title = "Whence";
  document.body.classList.remove("has-asked");
  result.replaceChildren();
  announce("");
  await show((signal) => examplesView(ask, signal), welcome);
}

/** Ask a question that is not in the address yet. */
function ask(question) {
  const target = askAddress(question);
  history[target === location.href ? "replaceState" : "pushState"](null, "", target);
  showAddress();
}

/** Show what the address says. */
function showAddress() {
  const question = questionInAddress();
  box.value = question;
  return question === "" ? welcome() : answer(question);
}

function questionInAddress() {
  return (new URLSearchParams(location.search).get("q") ?? "").trim();
}

function loadingView() {
  announce("Looking in the documents");
  return element("div", { class: "loading" },
    element("p", { class: "aside" }, "Looking in the documents…"),
    ...["long", "long", "short"].map((length) => element("span", { class: `bone ${length}`, "aria-hidden": "true" })),
  );
}

function article(rank) {
  return result.querySelector(`article[data-rank="${rank}"]`);
}

/** Return the rank of the passage that something is in, 0 for none. */
function rankOf(node) {
  return Number(node.closest("article[data-rank]")?.dataset.rank ?? 0);
}

function focusedRank() {
  return rankOf(document.activeElement);
}

function move(step) {
  const target = article(Math.max(1, focusedRank() + step));
  target?.focus();
  return target !== null;
}

function focusBox() {
  box.focus();
  box.select();
}

function openSource(event) {
  if (!event.target.matches("article[data-rank]")) return false;
  event.target.querySelector("a.source").click();
  return true;
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const question = box.value.trim();
  if (question === "") return box.focus();
  if (matchMedia("(pointer: coarse)").matches) box.blur(); // the keyboard on the screen would cover the answer
  ask(question);
});

box.addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    form.requestSubmit();
  } else if (event.key === "ArrowDown" && box.selectionStart === box.value.length) {
    if (move(1)) event.preventDefault();
  } else if (event.key === "Escape") {
    box.blur();
  }
});

// From a source, "back" in the browser leads to the passage that it was opened from.
result.addEventListener("click", (event) => {
  const rank = event.target.closest("a.source") ? rankOf(event.target) : 0;
  if (rank > 0) history.replaceState(null, "", askAddress(questionInAddress(), rank));
});

onKeys({
  "/": focusBox,
  j: () => move(1),
  k: () => move(-1),
  ArrowDown: () => focusedRank() > 0 && move(1),
  ArrowUp: () => focusedRank() > 0 && move(-1),
  Enter: openSource,
  Escape: () => focusedRank() > 0 && focusBox(),
});
addEventListener("popstate", showAddress);
wireSkipLink();
wireForgetKey();
wireShortcutsDialog();
showAddress();
