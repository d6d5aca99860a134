// The page that shows the chat widget, and the line that puts it into a page.

import { address, knownKey, sendForJson, takeKeyFromAddress } from "./api.js";
import { copyButton, element, wireSkipLink } from "./dom.js";
import { failureNotice, wireForgetKey } from "./problems.js";

const notice = document.getElementById("notice");
const open = document.getElementById("open");
const chat = document.querySelector("whence-chat"); // the script before this one has added it

/** Let the chat be opened once the service answers, with the key of this tab where one is needed. */
async function tryOut() {
  open.disabled = true;
  try {
    await sendForJson("v1/chat/suggestions");
  } catch (error) {
    notice.replaceChildren(failureNotice(error, tryOut));
    return;
  }
  const key = knownKey();
  if (key !== null) chat.dataset.key = key;
  notice.replaceChildren();
  open.disabled = false;
}

function snippetView() {
  const words = `<script src="${address("widget.js")}"\n`
    + '        data-key="whence_pub_…"\n'
    + '        data-title="Ask the docs" async></script>\n';
  return element("div", { class: "curl" },
    element("pre", { tabindex: "0" }, element("code", {}, words)), copyButton("Copy", words));
}

function policyView() {
  const { origin } = address("widget.js");
  return element("pre", { tabindex: "0" },
    element("code", {}, `Content-Security-Policy: script-src ${origin}; connect-src ${origin}`));
}

document.getElementById("snippet").append(snippetView());
document.getElementById("policy").append(policyView());
open.addEventListener("click", () => chat.open());
takeKeyFromAddress();
wireSkipLink();
wireForgetKey();
tryOut();
