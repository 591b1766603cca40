// Home: what just happened. Each panel asks its own route and fails alone.

import { ask } from "../parts/api.js";
import { button, choice, fill, h, icon, place } from "../parts/dom.js";
import { every } from "../parts/every.js";
import { ago, count, many, rate, share, when } from "../parts/format.js";
import { cuts, empty, failure, panel, rowLink } from "../parts/table.js";
import { line } from "../parts/text.js";
import { recent, seconds, traceTable } from "../parts/traces.js";
import { level } from "../parts/waterfall.js";

const FILL = "pip install otelier\nOTEL_SERVICE_NAME=shop-api opentelemetry-instrument python app.py";
const AGAIN_S = 4;

export async function show({ main, query, since, signal, change, command, title, say }) {
  title("Home");
  const mode = ["failed", "slow"].includes(query.show) ? query.show : "all";
  command(`collector traces --since ${since}${mode === "failed" ? " --errors" : mode === "slow" ? " --slowest" : ""}`, "new traces come by themselves");
  const kpis = h("div.kpis");
  const list = h("div", { "aria-live": "off" });
  const note = h("span.t3", "newest first");
  const fresh = h("span");
  const errors = h("div");
  const services = h("div");
  const lines = h("div");
  const modes = choice("Which traces", [["all", "All"], ["failed", "Failed"], ["slow", "Slow"]], mode, (key) => change({ show: key === "all" ? "" : key }, true));
  main.append(h("h1.unseen", "What just happened"), kpis, h("div.grid.cols.home",
    h("div.grid", panel("Just now", [note, h("span.sp"), fresh, modes], list)),
    h("div.grid", panel("Needs attention", h("a.link.small", { href: place(["errors"]) }, "all errors"), errors), panel("Services", null, services), panel("Latest warnings and errors", h("a.link.small", { href: place(["live"]) }, "live"), lines))));

  let shown = "";
  function draw(found) {
    shown = marks(found);
    fresh.replaceChildren();
    fill(list, found.traces?.length ? traceTable(found.traces) : empty(mode === "failed" ? `No failed trace in the last ${since}.` : `No trace in the last ${since}. A first one comes with:`, mode === "failed" ? "" : FILL), cuts(found));
  }
  async function traces() {
    const found = await recent({ since, errors: mode === "failed", slow: mode === "slow", limit: 50 }, signal);
    // Nothing moves under the hand: while the pointer or the focus is in the list, new rows wait.
    const held = shown && (list.matches(":hover") || list.contains(document.activeElement));
    if (!held) return marks(found) === shown ? undefined : draw(found);
    const known = new Set(shown.split(" "));
    const news = marks(found).split(" ").filter((mark) => mark && !known.has(mark)).length;
    if (news) fill(fresh, button(`${news} new, show`, () => { draw(found); say("list updated"); }));
  }
  async function groups() {
    const { json } = await ask("api/v1/errors", { since, limit: 8, order: "recent" }, { signal });
    fill(errors, json.errors?.length ? h("ul.attn", json.errors.map((group) => h("li", icon("fail"),
      rowLink(group.trace_id ? place(["trace", group.trace_id]) : place(["errors"], { since }), h("span.el.b", line(group.type || group.message, 200))),
      h("span.b", count(group.count)),
      h("div.s.el", line(group.type ? group.message : "", 200), " ", h("span.t3", (group.services ?? []).join(", "), " · ", ago(group.last_unix_nano)))))) : empty(`Nothing failed in the last ${since}.`));
  }
  async function known() {
    const { json } = await ask("api/v1/services", { since }, { signal });
    const all = json.services ?? [];
    const total = (key) => all.reduce((sum, each) => sum + (each[key] ?? 0), 0);
    const spans = total("spans");
    const figure = (label, text, unit, detail, bad) => h("div.kpi", h("div.lb", label), h("div.v", h(bad ? "span.err" : "span", text), unit && h("small", unit)), h("div.dt", detail));
    fill(kpis,
      figure("Requests and tasks", ...rate(total("requests"), seconds(since)), `${count(total("requests"))} in the last ${since}`),
      figure("Failed spans", share(spans ? total("errors") / spans : 0), "", `${count(total("errors"))} of ${count(spans)}`, total("errors") > 0),
      figure("Logged errors", count(total("error_logs")), "", `of ${count(total("logs"))} log records`, total("error_logs") > 0),
      figure("Services", String(all.length), "", all.length ? "heard in this range" : "none in this range"));
    fill(services, all.length ? h("ul.attn", all.slice(0, 12).map((each) => h("li", icon(each.errors || each.error_logs ? "fail" : "none"),
      rowLink(place(["services"], { service: each.name, since }), h("span.el.b", line(each.name, 100))),
      h(each.errors ? "span.err" : "span.t3", each.errors ? `${count(each.errors)} failed` : many(each.requests ?? 0, "request")),
      h("div.s.t3", `${many(each.spans ?? 0, "span")} · ${many(each.logs ?? 0, "log record")} · `, ago(each.last_unix_nano))))) : empty(`No service in the last ${since}.`), cuts(json));
  }
  async function latest() {
    const { json } = await ask("api/v1/logs", { since, level: "warning", limit: 8 }, { signal });
    fill(lines, json.logs?.length ? h("ul.attn", json.logs.map((log) => h("li", icon((log.severity_number ?? 0) >= 17 ? "fail" : "warn", level(log).toLowerCase()),
      rowLink(log.trace?.trace_id ? place(["trace", log.trace.trace_id], { span: log.trace.span_id }) : place(["find", (log.message ?? "").slice(0, 200)]), h("span.el", line(log.message ?? "", 200))),
      when(log.time_unix_nano), h("div.s.t3", line(log.service, 80))))) : empty(`No warning in the last ${since}.`));
  }
  const dead = new Set();
  async function panels() {
    await Promise.all([[list, traces], [errors, groups], [services, known], [lines, latest]].map(async ([where, work]) => {
      if (dead.has(work)) return;
      try {
        await work();
      } catch (error) {
        if (error.name === "AbortError") return;
        if (error.status === 404) dead.add(work);
        fill(where, failure(error));
      }
    }));
  }
  await panels();
  every(AGAIN_S, signal, panels);
}

function marks(found) {
  return (found.traces ?? []).map((each) => `${each.trace_id}:${each.spans}`).join(" ");
}
