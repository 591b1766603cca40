// Services and their operations: rate, failures, percentiles.

import { ask } from "../parts/api.js";
import { button, choice, fill, h, icon, place } from "../parts/dom.js";
import { ago, count, duration, many, rate, share, word } from "../parts/format.js";
import { cuts, empty, failure, panel, rowLink, table } from "../parts/table.js";
import { line } from "../parts/text.js";

const OPERATIONS = [
  { text: "", kind: "w" }, { text: "Operation", width: "60%" }, { text: "Service", kind: "hm", width: "40%" }, { text: "Rate", kind: "num w" }, { text: "Failed", kind: "num w" },
  { text: "p50", kind: "num w hm" }, { text: "p95", kind: "num w" }, { text: "p99", kind: "num w hm" }, { text: "Max", kind: "num w hm" }, { text: "Last", kind: "num w hm" },
];
const SERVICES = [{ text: "", kind: "w" }, { text: "Service", width: "100%" }, { text: "Requests", kind: "num w" }, { text: "Failed", kind: "num w" }, { text: "Errors logged", kind: "num w hm" }];
const ORDERS = [["count", "Busiest"], ["errors", "Most failures"], ["slow", "Slowest"], ["name", "Name"]];

export async function show({ main, query, since, signal, change, command, title }) {
  title("Services");
  const service = query.service ?? "";
  const order = ORDERS.some(([key]) => key === query.order) ? query.order : "count";
  const kind = query.kind === "all" ? "all" : "entry";
  command(["collector operations --since", since, service && `--service ${word(service)}`, order !== "count" && `--order ${order}`, kind === "all" && "--all"].filter(Boolean).join(" "));
  const operations = h("div");
  const services = h("div");
  main.append(h("div.head", h("h1", service ? line(service, 100) : "Services"), service && h("a.btn.sm", { href: place(["services"], { since }) }, "All services"),
    h("span.sp"), choice("Kind", [["entry", "Requests and tasks"], ["all", "Every span"]], kind, (key) => change({ kind: key }, true)), choice("Order", ORDERS, order, (key) => change({ order: key }, true))),
    h("div.grid.cols.home", panel("Operations", null, operations), panel("Services", null, services)));
  const guarded = async (where, work) => {
    try {
      await work();
    } catch (error) {
      if (error.name !== "AbortError") fill(where, failure(error));
    }
  };
  let all = [];
  async function page(cursor) {
    const { json } = await ask("api/v1/operations", { since, service, order, kind, limit: 100, cursor }, { signal });
    all = [...all, ...(json.operations ?? [])];
    fill(operations, all.length ? table("Operations", OPERATIONS, all.map((each) => [
      icon(each.errors ? "fail" : "none"),
      h("div", rowLink(place(["traces"], { service: each.service, operation: each.name, since }), h("div.el.b", { title: each.name }, line(each.name, 200)))),
      h("div.el.t2", line(each.service, 100)), rate(each.rate_per_s ?? 0, 1).join(""), h(each.errors ? "span.err.b" : "span.t3", each.errors ? share(each.errors / each.count) : "0"),
      h("span.t2", duration(each.p50_ms ?? 0)), duration(each.p95_ms ?? 0), h("span.t2", duration(each.p99_ms ?? 0)), h("span.t2", duration(each.max_ms ?? 0)), ago(each.last_unix_nano)])) : empty(`No ${kind === "all" ? "span" : "request or task"} in the last ${since}.`), cuts(json),
      json.next && h("div.pad", button("More", () => guarded(operations, () => page(json.next)))));
  }
  async function names() {
    const { json } = await ask("api/v1/services", { since }, { signal });
    const found = json.services ?? [];
    fill(services, found.length ? table("Services", SERVICES, found.map((each) => [
      icon(each.errors ? "fail" : "none"),
      h("div", rowLink(place(["services"], { service: each.name, since }), h("div.el.b", line(each.name, 100))), h("div.el.t3.small", `${many(each.spans ?? 0, "span")} · `, ago(each.last_unix_nano))),
      count(each.requests ?? 0), h(each.errors ? "span.err" : "span.t3", count(each.errors ?? 0)), h(each.error_logs ? "span.err" : "span.t3", count(each.error_logs ?? 0))])) : empty(`No service in the last ${since}.`), cuts(json));
  }
  await Promise.all([guarded(operations, () => page()), guarded(services, names)]);
}
