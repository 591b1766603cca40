// Logs: records whose message contains a text, with the filters of `/api/v1/logs`.

import { ask } from "../parts/api.js";
import { button, choice, fill, h, place } from "../parts/dom.js";
import { many, word } from "../parts/format.js";
import { logRows } from "../parts/logs.js";
import { side } from "../parts/side.js";
import { cuts, empty, failure } from "../parts/table.js";
import { line } from "../parts/text.js";

const LEVELS = ["debug", "info", "warning", "error"];

export async function show({ main, id, query, since, signal, change, command, title, closing }) {
  const text = id.slice(0, 1024);
  const level = LEVELS.includes(query.level) ? query.level : "debug";
  const service = query.service ?? "";
  title(text ? `“${text}” in logs` : "Logs");
  const equal = ["collector logs", text && `--text ${word(text)}`, `--since ${since}`, level !== "debug" && `--level ${level}`, service && `--service ${word(service)}`].filter(Boolean).join(" ");
  command(equal);
  main.className = "full";
  const aside = h("aside.side", { "aria-label": "Selected record" }, h("section.t3", "Select a record."));
  const body = h("div.body");
  const more = h("span");
  fill(main, h("div.tools", h("h1.el", text ? `“${line(text, 200)}”` : "Logs"), more, h("span.sp"),
    h("input.field", { type: "search", "aria-label": "service", placeholder: "service", value: service, on: { change: (event) => change({ service: event.target.value.trim() }, true) } }),
    choice("Least level", LEVELS.map((each) => [each, each]), level, (key) => change({ level: key === "debug" ? "" : key }, true))),
    h("div.split", h("div.left", body), aside));
  let all = [];
  const rows = logRows((index) => all[index], (index, event) => {
    rows.select(index);
    const log = all[index];
    fill(aside, log.trace?.trace_id && h("section", h("a.link", { href: place(["trace", log.trace.trace_id], { span: log.trace.span_id }) }, "Open its trace")), side({ kind: "log", log }));
    if (event.key === "Enter" && log.trace?.trace_id) location.hash = place(["trace", log.trace.trace_id], { span: log.trace.span_id });
  });
  closing(() => rows.close());
  async function page(cursor) {
    try {
      const { json, took_ms } = await ask("api/v1/logs", { text, since, level: level === "debug" ? "" : level, service, limit: 500, cursor }, { signal });
      all = [...all, ...(json.logs ?? [])];
      command(equal, `${many(all.length, "record")} · answered in ${Math.round(took_ms)} ms`);
      fill(more, h("span.t3", many(all.length, "record"), json.next ? ", the newest " : " "), json.next && button("Older", () => page(json.next)));
      if (!all.length) fill(body, empty(`No record${text ? " contains this" : ""} in the last ${since}. Choose a longer range above.`));
      else {
        if (!rows.element.isConnected) fill(body, rows.element);
        rows.reset(all.length);
        if (rows.selected < 0) rows.element.focus({ preventScroll: true });
      }
      main.querySelectorAll(".cut").forEach((each) => each.remove());
      body.append(...cuts(json));
    } catch (error) {
      if (error.name !== "AbortError") fill(body, failure(error));
    }
  }
  await page();
}
