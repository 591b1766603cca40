// The one box: any id, a traceparent, or text. It says which kind it found by where it goes.

import { h, place } from "./dom.js";
import { ask, Refused } from "./api.js";

const TRACEPARENT = /\b[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\b/i;
const TRACE = /\b[0-9a-f]{32}\b/i;
const UUID = /\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b/i;
const SPAN = /^[0-9a-f]{16}$/i;
const LONGEST_ID = 1024;
const WEEK_S = 7 * 86_400; // the longest range of a TraceQL search

/** What to look for in a pasted text: the text, then an id inside of a line, a URL or a stack. */
export function candidates(text) {
  const plain = text.trim();
  const parent = TRACEPARENT.exec(plain);
  if (parent) return [{ id: parent[1], span: parent[2] }];
  const found = plain.length <= LONGEST_ID && !/[\n\r]/.test(plain) ? [{ id: plain }] : [];
  for (const pattern of [TRACE, UUID]) {
    const inside = pattern.exec(plain.slice(0, 100_000))?.[0];
    if (inside && inside !== plain) found.push({ id: inside });
  }
  return found;
}

/** The place that a text means, and the kind of id it was. */
export async function find(text, signal) {
  const plain = text.trim();
  for (const { id, span } of candidates(text)) {
    const { json, status } = await ask(`api/v1/trace/${encodeURIComponent(id)}`, {}, { signal, accept: [404] });
    if (status === 200) return { kind: kindOf(id, json), to: place(["trace", id], { span }) };
  }
  if (SPAN.test(plain)) {
    const trace = await traceOf(plain.toLowerCase(), signal);
    if (trace) return { kind: "span", to: place(["trace", trace], { span: plain.toLowerCase() }) };
  }
  return { kind: "text", to: place(["find", plain.slice(0, LONGEST_ID)], { since: "24h" }) };
}

/** As what an id occurs in an answer. */
export function kindOf(id, answer) {
  const forms = new Set([id, ...(answer.searched?.ids ?? [])]);
  for (const trace of answer.traces ?? []) {
    if (forms.has(trace.trace_id)) return "trace";
    for (const [key, values] of Object.entries(trace.context ?? {})) if (values.some((value) => forms.has(value))) return key.replace(/_id$/, "").replaceAll("_", " ");
  }
  for (const log of answer.logs ?? []) for (const [key, value] of Object.entries(log.context ?? {})) if (forms.has(value)) return key.replace(/_id$/, "").replaceAll("_", " ");
  return "id";
}

/** The trace of a span id: asked in TraceQL over the last week. */
async function traceOf(span, signal) {
  const now = Math.floor(Date.now() / 1000);
  try {
    const { json } = await ask("api/search", { q: `{ span:id = "${span}" }`, limit: 1, start: now - WEEK_S + 60, end: now + 60 }, { signal });
    return json.traces?.[0]?.traceID?.padStart(32, "0") ?? null;
  } catch (error) {
    if (error instanceof Refused) return null;
    throw error;
  }
}

/** The box: `element`, and `focus()`. */
export function box(say) {
  let asking = null;
  const note = h("span.boxnote", { id: "box-note" });
  const input = h("input", { type: "search", "aria-label": "Any id, traceparent or text", "aria-describedby": "box-note", placeholder: "Any id, traceparent or text", spellcheck: "false", autocomplete: "off" });
  const go = async (event) => {
    event.preventDefault();
    const text = input.value;
    if (!text.trim()) return;
    asking?.abort();
    asking = new AbortController();
    note.textContent = "looking …";
    try {
      const { kind, to } = await find(text, asking.signal);
      note.textContent = kind === "text" ? "no such id: as text" : `found as ${kind}`;
      say(note.textContent);
      if (location.hash === to) dispatchEvent(new HashChangeEvent("hashchange"));
      else location.hash = to;
      input.blur();
    } catch (error) {
      if (error.name !== "AbortError") note.textContent = error.message;
    }
  };
  input.addEventListener("input", () => { note.textContent = ""; });
  input.addEventListener("paste", (event) => {
    // An input drops line ends; a pasted stack or line is looked at whole.
    const text = event.clipboardData?.getData("text") ?? "";
    const inside = /[\n\r]/.test(text) ? candidates(text)[0]?.id : null;
    if (inside) {
      event.preventDefault();
      input.value = inside;
    }
  });
  input.addEventListener("keydown", (event) => { if (event.key === "Escape") input.blur(); });
  const element = h("form.box", { role: "search", on: { submit: go } }, input, note, h("kbd", { "aria-hidden": "true" }, "/"));
  return { element, focus: () => { input.focus(); input.select(); } };
}
