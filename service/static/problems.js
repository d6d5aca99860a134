// What a person sees when something did not work, and how it goes on from there.

import { Problem, knownKey, rememberKey } from "./api.js";
import { announce, button, element } from "./dom.js";

const TITLES = {
  offline: "No connection",
  key_required: "A key is needed",
  key_unknown: "This key is not known",
  key_expired: "This key has expired",
  scope_missing: "This key is not for asking",
  origin_refused: "Not allowed from this page",
  invalid_question: "This cannot be asked",
  rate_exceeded: "Asked too often",
  overloaded: "Too many questions at once",
  deadline: "It took too long",
  starting: "Whence is starting",
  document_unknown: "There is no such document",
};
// Where the service speaks to programs.
const DETAILS = {
  key_required: "This service answers those who have a key. Whoever runs it can give you one.",
};
const WANT_A_KEY = new Set(["key_required", "key_unknown", "key_expired", "scope_missing"]);
const ASKS_AGAIN = new Set(["starting"]); // nothing was refused: it only has to be waited for
const TIMEOUT = 408, TOO_MANY = 429, SERVER_ERROR = 500;

/**
 * Show what went wrong.
 *
 * @param {Error} error a problem; anything else is a mistake of the page, which the console is told of as well.
 * @param {function(): void} retry does it again.
 * @returns {HTMLElement} to be put where the answer would have been.
 */
export function failureNotice(error, retry) {
  if (error instanceof Problem) return problemNotice(error, retry);
  reportError(error);
  return problemNotice(new Problem("page", `This page has made a mistake: ${error.message}`), retry);
}

function problemNotice(problem, retry) {
  const title = TITLES[problem.code] ?? "Something went wrong";
  const detail = DETAILS[problem.code] ?? problem.message;
  announce(`${title}. ${detail}`);
  return element("section", { class: "notice problem", "data-code": problem.code },
    element("h2", {}, title),
    element("p", {}, detail),
    remedy(problem, retry),
    problem.requestId ? element("p", { class: "aside" }, "Request ", element("code", {}, problem.requestId)) : null,
  );
}

function remedy(problem, retry) {
  const isForOtherPages = problem.code === "origin_refused" && knownKey() !== null;
  if (WANT_A_KEY.has(problem.code) || isForOtherPages) return keyForm(retry);
  return mayPass(problem) ? retryButton(problem, retry) : null;
}

/** Return whether the same request may go better later. */
function mayPass({ status }) {
  return status === 0 || status === TIMEOUT || status === TOO_MANY || status >= SERVER_ERROR;
}

/** Show the button that forgets the key while there is one. */
export function wireForgetKey() {
  const forget = document.getElementById("forget-key");
  forget.hidden = knownKey() === null;
  forget.addEventListener("click", () => {
    rememberKey(null);
    location.reload();
  });
}

function keyForm(retry) {
  const input = element("input", {
    id: "key", type: "password", autocomplete: "off", spellcheck: "false", required: true, pattern: "\\s*[!-~]+\\s*",
    title: "A key is letters, digits and signs without a space", placeholder: "whence_…",
  });
  const use = (event) => {
    event.preventDefault();
    rememberKey(input.value.trim());
    document.getElementById("forget-key").hidden = false;
    retry();
  };
  return element("form", { class: "key", onsubmit: use },
    element("label", { for: "key" }, "Key"),
    element("div", { class: "row" }, input, element("button", { class: "primary" }, "Use this key")),
    element("p", { class: "aside" }, "It is kept in this tab only, until the tab is closed."),
  );
}

/** Make a button that waits as long as the service asked for, and then can be pressed. */
function retryButton(problem, retry) {
  const words = "Try again";
  const made = button(words, retry, { class: "primary" });
  let left = problem.retryAfter ?? 0;
  if (problem.code === "offline") addEventListener("online", () => made.isConnected && retry(), { once: true });
  const tick = () => {
    made.disabled = left > 0;
    made.textContent = left > 0 ? `${words} in ${left} s` : words;
    if (left > 0) setTimeout(tick, 1000);
    else if (ASKS_AGAIN.has(problem.code) && made.isConnected) retry();
    left -= 1;
  };
  if (left > 0) tick();
  return element("p", {}, made);
}
