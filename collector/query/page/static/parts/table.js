// A table of at most a few hundred rows; rows that lead somewhere have one link, which is the row's name.

import { h } from "./dom.js";

/**
 * A table.
 *
 * @param {string} caption for who does not see it
 * @param {{text: string, kind?: string, width?: string}[]} columns `kind` are classes: "num w hm"
 * @param {Array[]} rows cells in the order of the columns
 */
export function table(caption, columns, rows) {
  const classes = (column) => (column.kind ?? "").split(" ").filter(Boolean).map((each) => `.${each}`).join("");
  return h("table", h("caption.unseen", caption),
    h("thead", h("tr", columns.map((column) => h(`th${classes(column)}`, { scope: "col", style: column.width ? { width: column.width } : {} }, column.text || h("span.unseen", "State"))))),
    h("tbody", rows.map((cells) => h("tr", cells.map((cell, index) => h(`td${classes(columns[index])}`, cell))))));
}

/** The link of a row; `j` and `k` go from one to the next. */
export function rowLink(href, ...kids) {
  return h("a.rowlink", { href, "data-row": true }, kids);
}

/** A panel with a head. */
export function panel(title, extra, ...kids) {
  return h("section.panel", { "aria-label": title }, h("header", h("h2", title), extra), kids);
}

/** What stands where nothing is: why, and a command that would fill it. */
export function empty(why, command) {
  return h("div.pad.empty", h("p.t2", why), command && h("pre.cmds", command));
}

/** Sentences about what an answer left out. */
export function cuts(answer) {
  return (answer.cut ?? []).map((sentence) => h("p.cut", sentence));
}

const AGAIN = new Set([0, 429, 503]);
const LEAST_S = 5;

/**
 * A panel's failure: the sentence of the server, and the other panels live on. What may pass is asked
 * again: the view is opened anew, when the sentence is still there by then.
 */
export function failure(error) {
  if (AGAIN.has(error.status)) return waiting(error, Math.max(LEAST_S, error.retryS));
  const missing = error.status === 404;
  return h("div.pad", { role: missing ? "note" : "alert" }, missing
    ? h("p.t3", "Not available on this version of the collector.")
    : h("p.err", error.parameter ? `${error.parameter}: ${error.message}` : error.message));
}

function waiting(error, seconds) {
  const left = h("p.t3", `trying again in ${seconds} s`);
  const made = h("div.pad", { role: "alert" }, h("p.err", error.message), left);
  let rest = seconds;
  const timer = setInterval(() => {
    rest -= 1;
    left.textContent = `trying again in ${rest} s`;
    if (rest > 0 && made.isConnected) return;
    clearInterval(timer);
    if (made.isConnected) dispatchEvent(new HashChangeEvent("hashchange"));
  }, 1000);
  return made;
}
