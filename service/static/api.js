// Talking to the service: addresses, the key, and problems (RFC 9457).

import { keep, recall } from "./storage.js";

const KEY = "whence-key";
const FOR_PAGES = /^whence_pub_[0-9a-f_]+$/;

/** Something that the service, or the way to it, did not do. */
export class Problem extends Error {
  /**
   * @param {string} code of the service's own, or `offline` or `unreadable`.
   * @param {string} detail for people.
   * @param {{status?: number, retryAfter?: number|null, requestId?: string}} more `retryAfter` in seconds.
   */
  constructor(code, detail, { status = 0, retryAfter = null, requestId = "" } = {}) {
    super(detail);
    Object.assign(this, { code, status, retryAfter, requestId });
  }

  static async of(response) {
    const said = await response.json().catch(() => ({}));
    const detail = said.detail ?? `The service answered with status ${response.status}.`;
    return new Problem(said.code ?? "unreadable", detail, {
      status: response.status,
      retryAfter: seconds(response.headers.get("Retry-After")),
      requestId: said.request_id ?? "",
    });
  }
}

/** Return the address of a path below the service's own, whatever prefix a proxy gives it. */
export function address(path, query = {}) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  return url;
}

/** Return the path of a document's id; its slashes stay. */
export function documentPath(id) {
  return id.split("/").map(encodeURIComponent).join("/");
}

/** Return the key that this tab knows, null for none. */
export function knownKey() {
  return recall("sessionStorage", KEY);
}

/** Remember the key until the tab is closed; null forgets it. */
export function rememberKey(key) {
  keep("sessionStorage", KEY, key);
}

/**
 * Take a key over from the address, where the chat in somebody's page has put it, and take it out of sight. It stands
 * behind the `#`, which is never sent. Only a key that is public anyway is taken, and never in place of another kind.
 */
export function takeKeyFromAddress() {
  const here = new URL(location.href);
  const given = new URLSearchParams(here.hash.slice(1)).get("key");
  if (given === null) return;
  here.hash = "";
  history.replaceState(history.state, "", here);
  if (FOR_PAGES.test(given) && FOR_PAGES.test(knownKey() ?? given)) rememberKey(given);
}

/**
 * Send a request. It names this origin, though our pages tell nobody else: a key for pages is taken from ours as well.
 *
 * @returns {Promise<Response>} of a status below 300.
 * @throws {Problem} for any other, and when there is no way to the service.
 */
export async function send(path, { method = "GET", query, json, signal } = {}) {
  const headers = new Headers();
  const key = knownKey();
  if (key !== null) headers.set("Authorization", `Bearer ${key}`);
  if (json !== undefined) headers.set("Content-Type", "application/json");
  const body = json === undefined ? undefined : JSON.stringify(json);
  let response;
  try {
    response = await fetch(address(path, query), { method, headers, body, signal, referrerPolicy: "origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("offline", navigator.onLine
      ? "The service cannot be reached. It may have been stopped, or the network may be down."
      : "This device is not connected to a network.");
  }
  if (!response.ok) throw await Problem.of(response);
  return response;
}

/** Send a request and read the JSON that comes back. */
export async function sendForJson(path, options) {
  return JSON.parse(await sendForText(path, options));
}

/** Send a request and read the text that comes back, every character of it: a byte order mark is one, too. */
export async function sendForText(path, options) {
  const response = await send(path, options);
  try {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(await response.arrayBuffer());
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("offline", "The connection was lost before all had come.");
  }
}

function seconds(retryAfter) {
  if (retryAfter === null) return null;
  const given = /^\d+$/.test(retryAfter) ? Number(retryAfter) : (Date.parse(retryAfter) - Date.now()) / 1000;
  return Number.isFinite(given) ? Math.max(0, Math.ceil(given)) : null;
}
