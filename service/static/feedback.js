// Thumbs up or down for what a question got, the latter with a reason.

import { sendForJson } from "./api.js";
import { announce, button, element } from "./dom.js";

const REASONS = {
  answered: ["Not what was asked", "Incomplete", "Out of date"],
  unanswered: ["The documents do say it", "The documents should say it"],
};
const LONGEST_REASON = 2000; // characters that the service takes

/** Ask whether an answer helped. What is sent names the quote by its place and holds no text of a document. */
export function feedbackRow(answer) {
  const row = element("div", { class: "feedback" });
  const send = async (rating, reason) => {
    try {
      await sendForJson("v1/feedback", { method: "POST", json: report(answer, rating, reason) });
      settle(row, "Thank you. This is kept for those who look after the documents.");
    } catch (problem) {
      settle(row, `This was not kept: ${problem.message}`);
    }
  };
  row.append(
    element("span", {}, "Did this help?"),
    button("Yes", () => send("up"), { picture: "up" }),
    button("No", () => row.replaceWith(reasonForm(row, answer.answered, send)), { picture: "down" }),
  );
  return row;
}

function report(answer, rating, reason) {
  const { question, answered, generation } = answer;
  const citation = (answer.answer ?? { citation: answer.passages[0]?.citation }).citation;
  return {
    question, rating, answered, generation,
    ...(reason ? { reason } : {}),
    ...(citation ? { citation: { document: citation.document.id, start: citation.start, end: citation.end } } : {}),
  };
}

function reasonForm(row, isAnswered, send) {
  const placeholder = "In your own words";
  const words = element("input", { type: "text", id: "reason", autocomplete: "off", placeholder });
  const choices = REASONS[isAnswered ? "answered" : "unanswered"].map((reason) =>
    element("label", { class: "choice" }, element("input", { type: "radio", name: "why", value: reason }), reason));
  const form = element("form", { class: "feedback reasons" },
    element("fieldset", {}, element("legend", {}, "What was wrong?"), ...choices),
    element("label", { class: "hidden", for: "reason" }, placeholder),
    element("div", { class: "row" }, words, element("button", { class: "primary" }, "Send"),
      button("Cancel", () => form.replaceWith(row))),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const reason = [new FormData(form).get("why"), words.value.trim()].filter(Boolean).join(": ");
    form.replaceWith(row);
    send("down", reason.slice(0, LONGEST_REASON));
  });
  setTimeout(() => form.querySelector("input").focus());
  return form;
}

function settle(row, words) {
  row.replaceChildren(element("span", {}, words));
  announce(words);
}
