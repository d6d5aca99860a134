// What the browser keeps for us; where it keeps nothing, a choice holds for the page and no longer.

const forPage = new Map();

/** Return what is kept under a name, null for nothing. */
export function recall(store, name) {
  try {
    return globalThis[store].getItem(name);
  } catch {
    return forPage.get(name) ?? null;
  }
}

/** Keep a text under a name; null forgets it. */
export function keep(store, name, text) {
  try {
    if (text === null) globalThis[store].removeItem(name);
    else globalThis[store].setItem(name, text);
  } catch {
    forPage.set(name, text);
  }
}
