// Log lines as a virtual list: of one trace, of a search, and live.

import { add, h } from "./dom.js";
import { local, utc } from "./format.js";
import { Rows } from "./rows.js";
import { line } from "./text.js";
import { level, pairs } from "./waterfall.js";

/**
 * A list of log documents.
 *
 * @param {(index: number) => object|undefined} at the document of a row; `{gap}` is a sentence
 * @param {(index: number) => void} pick a row was chosen
 */
export function logRows(at, pick, label = "Log lines") {
  const rows = new Rows({
    height: 22, role: "listbox", rowRole: "option", label, pick,
    draw(element, index) {
      const log = at(index);
      element.replaceChildren();
      if (!log) return;
      if (log.gap) {
        element.className = "r l gap";
        add(element, [h("span.warn.el", log.gap)]);
        return;
      }
      const word = level(log);
      element.className = `r l ${word}`;
      element.setAttribute("aria-label", line(`${word.toLowerCase()}, ${log.service}: ${log.message ?? ""}`, 400));
      add(element, [
        h("time.t3", { datetime: utc(log.time_unix_nano), title: utc(log.time_unix_nano) }, local(log.time_unix_nano, true)),
        h("span.lv", word), h("span.t2.svc.el", line(log.service, 60)),
        h("span.el", line(log.message ?? "", 600), " ", h("span.k", pairs(log))),
        h("span.tr", log.trace?.trace_id ? "trace ↵" : ""),
      ]);
    },
  });
  rows.element.classList.add("tail");
  rows.element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !rows.count) return;
    const page = Math.max(1, Math.floor(rows.element.clientHeight / rows.height) - 1);
    const moves = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 };
    if (event.key in moves) rows.select(Math.min(rows.count - 1, Math.max(0, rows.selected + moves[event.key])));
    else if (event.key === "Enter" && rows.selected >= 0) pick(rows.selected, event);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return rows;
}
