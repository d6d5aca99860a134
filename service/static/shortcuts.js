// Keys without a modifier. They can be switched off, because speech input and a cat on the keyboard press them, too.

import { keep, recall } from "./storage.js";

const OFF = "whence-shortcuts-off";

/**
 * Act on keys that are pressed outside of fields.
 *
 * @param {Object<string, function(KeyboardEvent): (boolean|void)>} actions by `KeyboardEvent.key`; one that returns
 *   false leaves the key to the browser.
 */
export function onKeys(actions) {
  document.addEventListener("keydown", (event) => {
    const action = Object.hasOwn(actions, event.key) ? actions[event.key] : null;
    if (action === null || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input, textarea, select, dialog")) return;
    if (event.key.length === 1 && areOff()) return;
    if (action(event) !== false) event.preventDefault();
  });
}

/** Let the dialog that explains the keys open, and switch them off and on. */
export function wireShortcutsDialog() {
  const dialog = document.getElementById("shortcuts-dialog");
  const box = document.getElementById("shortcuts-on");
  box.checked = !areOff();
  box.addEventListener("change", () => keep("localStorage", OFF, box.checked ? null : "yes"));
  document.getElementById("shortcuts").addEventListener("click", () => dialog.showModal());
}

function areOff() {
  return recall("localStorage", OFF) !== null;
}
