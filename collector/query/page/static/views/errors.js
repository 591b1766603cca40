// Errors: failures that mean the same, as groups.

import { ask } from "../parts/api.js";
import { button, choice, fill, h, icon, place } from "../parts/dom.js";
import { ago, count, many, word } from "../parts/format.js";
import { cuts, empty, failure, rowLink, table } from "../parts/table.js";
import { line } from "../parts/text.js";

const COLUMNS = [
  { text: "", kind: "w" }, { text: "Error", width: "70%" }, { text: "Count", kind: "num w" }, { text: "Last seen", kind: "num w hm" },
  { text: "First in range", kind: "num w hm" }, { text: "Services", kind: "hm", width: "30%" },
];

export async function show({ main, query, since, signal, change, command, title }) {
  title("Errors");
  const kind = query.kind === "spans" ? "spans" : "logs";
  const order = query.order === "frequent" ? "frequent" : "recent";
  const service = query.service ?? "";
  const equal = ["collector errors --since", since, kind === "spans" && "--kind spans", `--order ${order}`, service && `--service ${word(service)}`].filter(Boolean).join(" ");
  command(equal);
  const list = h("div");
  main.append(h("div.head", h("h1", "Errors"),
    choice("Kind", [["logs", "Logged"], ["spans", "Failed spans"]], kind, (key) => change({ kind: key }, true)),
    choice("Order", [["recent", "Latest"], ["frequent", "Most frequent"]], order, (key) => change({ order: key }, true)),
    h("span.sp"),
    h("input.field", { type: "search", "aria-label": "service", placeholder: "service", value: service, on: { change: (event) => change({ service: event.target.value.trim() }, true) } })),
    h("section.panel", { "aria-label": "Groups of failures" }, list));
  let all = [];
  async function page(cursor) {
    try {
      const { json, took_ms } = await ask("api/v1/errors", { since, kind, order, service, limit: 50, cursor }, { signal });
      all = [...all, ...(json.errors ?? [])];
      command(equal, `${many(all.length, "group")} · ${many(all.reduce((sum, each) => sum + each.count, 0), "failure")} · answered in ${Math.round(took_ms)} ms`);
      fill(list, all.length ? table("Groups of failures", COLUMNS, all.map(row)) : empty(`Nothing failed in the last ${since}${service ? ` in ${service}` : ""}.`), cuts(json),
        json.next && h("div.pad", button("More", () => page(json.next))));
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(list, failure(error));
    }
  }
  function row(group) {
    const services = group.services ?? [];
    const name = h("div.el", group.type && h("b", line(group.type, 120), ": "), h(group.type ? "span" : "b", line(group.message, 300)));
    const to = group.trace_id ? place(["trace", group.trace_id]) : place(["find", (group.message || group.type).slice(0, 200)], { since });
    return [icon("fail"), h("div", { title: group.message }, rowLink(to, name), h("div.el.t3.small", group.trace_id ? `latest trace ${group.trace_id}` : "no trace; its log records")),
      h("span.b", count(group.count)), ago(group.last_unix_nano), ago(group.first_unix_nano),
      h("div.el.t2", services.slice(0, 2).join(", "), services.length > 2 ? ` +${services.length - 2}` : "")];
  }
  await page();
}
