// Building the page. What a document says becomes text nodes and nothing else, so that it can never act.

const SVG = "http://www.w3.org/2000/svg";

// Drawn in a square of 16, as lines.
const ICONS = {
  copy: "M5.5 5.5h8v8h-8z M10.5 5.5v-3h-8v8h3",
  up: "M5 7.5 8 2c1.4 0 1.9 1 1.6 2.2L9 6.5h4.2c.9 0 1.4.8 1.1 1.6l-1.4 4.6c-.2.5-.6.8-1.1.8H5z M5 7.5H2v6h3",
  down: "M5 8.5 8 14c1.4 0 1.9-1 1.6-2.2L9 9.5h4.2c.9 0 1.4-.8 1.1-1.6l-1.4-4.6c-.2-.5-.6-.8-1.1-.8H5z M5 8.5H2v-6h3",
  away: "M6 3.5H3v9.5h9.5v-3 M9 2.5h4.5V7 M13.5 2.5 7.5 8.5",
  load: "M8 2v8.5 M4.5 7.5 8 11l3.5-3.5 M2.5 13.5h11",
  back: "M13.5 8h-11 M6.5 4l-4 4 4 4",
};

/**
 * Make an element.
 *
 * @param {string} tag its name.
 * @param {Object<string, *>} attributes written by us, never names out of a document; a function is a listener
 *   (`onclick`), true an attribute without a value, and null, undefined and false are left out.
 * @param {...(Node|string|null)} children strings become text nodes.
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Make a picture that only repeats what the words beside it say. */
export function icon(name, { isAfter = false } = {}) {
  const picture = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  picture.setAttribute("viewBox", "0 0 16 16");
  picture.setAttribute("class", isAfter ? "icon after" : "icon");
  picture.setAttribute("aria-hidden", "true");
  path.setAttribute("d", ICONS[name]);
  picture.append(path);
  return picture;
}

/** Make a button that looks like its words. */
export function button(words, onclick, { picture = null, ...attributes } = {}) {
  const looks = { type: "button", class: "quiet", ...attributes };
  return element("button", { ...looks, onclick }, picture && icon(picture), words);
}

/** Make words out of a document whose writing direction must not turn what stands around them. */
export function foreign(words, tag = "bdi", attributes = {}) {
  return element(tag, { dir: "auto", ...attributes }, words);
}

/** Make the id of a document; it is a path, which goes from left to right in any alphabet. */
export function documentId(id) {
  return foreign(id, "code", { dir: "ltr" });
}

/** Return an address that may become a link, null for anything but http and https. */
export function webAddress(address) {
  const url = typeof address === "string" && URL.canParse(address) ? new URL(address) : null;
  return url && ["http:", "https:"].includes(url.protocol) ? url.href : null;
}

/** Make a link to somebody else's page. */
export function awayLink(address, words) {
  return element("a", { href: address, rel: "noopener noreferrer external" }, words, icon("away", { isAfter: true }));
}

/** Let the link that skips the header work beside a `<base>`, against which its `#main` would be resolved. */
export function wireSkipLink() {
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("main").focus();
  });
}

/** Say something to those who listen to the page. */
export function announce(words) {
  document.getElementById("status").textContent = words;
}

/** Put a text on the clipboard; false when the browser does not allow it. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // there is no clipboard object off https and localhost
  }
}

function copyBySelection(text) {
  const before = document.activeElement;
  const area = element("textarea", { class: "hidden", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  before?.focus({ preventScroll: true });
  return copied;
}

/** Make a button that copies a text and says so. */
export function copyButton(words, text) {
  const made = button(words, async () => {
    const outcome = (await copy(text)) ? "Copied" : "Your browser does not let this page copy";
    made.lastChild.data = outcome;
    announce(outcome);
    setTimeout(() => (made.lastChild.data = words), 2000);
  }, { picture: "copy" });
  return made;
}
