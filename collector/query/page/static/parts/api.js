// Questions to the port that this page came from. The token, when one is needed, is kept in the tab
// and sent as a header; it is never part of an address. Paths are relative, so that the page works
// behind a proxy with a prefix.

import { token } from "./token.js";

/** An answer that is none: its status, the server's sentence, the parameter, when to ask again. */
export class Refused extends Error {
  constructor(status, reason, parameter = "", retryS = 0) {
    super(reason);
    Object.assign(this, { status, parameter, retryS });
  }
}

/** What is said when nothing answers. */
export const AWAY = "the collector does not answer; is it running?";

/** Seconds of waiting that a `Retry-After` asks for. */
function later(response) {
  return Number(response.headers.get("retry-after")) || 0;
}

/** Nanoseconds do not fit into a number: their digits become a string. */
export function parse(text) {
  const kept = text.replace(/"([a-zA-Z_]*[nN]ano)":(\d{16,20})(?=[,}])/g, '"$1":"$2"');
  if (!/[:[,]-?\d{16,}/.test(kept)) return JSON.parse(kept);
  return JSON.parse(kept, (_key, value, context) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "") ? context.source : value);
}

/** Ask, with the token; asks the reader for it when the port does. */
export async function open(path, params = {}, signal) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) {
    for (const each of Array.isArray(value) ? value : [value]) {
      if (each !== undefined && each !== null && each !== "") query.append(key, each);
    }
  }
  const address = query.size ? `${path}?${query}` : path;
  for (;;) {
    const used = token.get();
    const headers = used ? { Authorization: `Bearer ${used}` } : {};
    let response;
    try {
      response = await fetch(address, { headers, signal, cache: "no-store", redirect: "error" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, AWAY, "", 2);
    }
    if (response.status !== 401) return response;
    await token.ask(used);
    signal?.throwIfAborted();
  }
}

/**
 * The JSON of an answer, with `took_ms` and `text`.
 *
 * Throws `Refused` for everything but success; `accept` names further statuses that are answers.
 */
export async function ask(path, params = {}, { signal, accept = [] } = {}) {
  const began = performance.now();
  const response = await open(path, params, signal);
  const text = await response.text();
  let json;
  try {
    json = parse(text);
  } catch {
    json = { error: text.slice(0, 300) || "an answer that is no JSON" };
  }
  if (!response.ok && !(accept.includes(response.status) && !json.error)) {
    throw new Refused(response.status, json.error ?? json.message ?? `status ${response.status}`, json.parameter, later(response));
  }
  return { json, text, status: response.status, took_ms: performance.now() - began };
}
