// One id: the verdict, the attempts, the waterfall opened at the error, all its lines, the raw answer.

import { ask } from "../parts/api.js";
import { kindOf } from "../parts/box.js";
import { add, button, choice, copying, fill, h, icon, place } from "../parts/dom.js";
import { duration, many, millis, when, word } from "../parts/format.js";
import { logRows } from "../parts/logs.js";
import { attemptsOf, attribute, build, linesOf } from "../parts/model.js";
import { short, side } from "../parts/side.js";
import { cuts } from "../parts/table.js";
import { line } from "../parts/text.js";
import { attemptOf, exceptionOf, verdict } from "../parts/verdict.js";
import { Waterfall } from "../parts/waterfall.js";

const MOST_RAW = 1_000_000;
const FRESH_MS = 30_000; // a trace with something younger may still be arriving
const DELAYS_S = [1, 2, 4, 8, 16];

export async function show(context) {
  const { main, id, signal, title } = context;
  title(id);
  main.append(h("p.t3.pad", "loading"));
  const answer = await fetched(id, signal);
  draw(context, answer);
  follow(context, answer);
}

function fetched(id, signal) {
  return ask(`api/v1/trace/${encodeURIComponent(id)}`, {}, { signal, accept: [404] });
}

/** Ask again while the trace is young; what came since is drawn, with the same row at the same place. */
async function follow(context, answer) {
  const { id, signal, main, query, say } = context;
  let size = answer.text.length;
  for (const delay of DELAYS_S) {
    if (Date.now() - newest(answer.json) > FRESH_MS) return;
    await new Promise((resolve) => { setTimeout(resolve, delay * 1000); });
    if (signal.aborted) return;
    try {
      answer = await fetched(id, signal);
    } catch {
      return; // the view shows what it has
    }
    if (answer.text.length === size || document.hidden) continue;
    size = answer.text.length;
    const scrolled = main.querySelector(".rows")?.scrollTop;
    Object.assign(query, Object.fromEntries(new URLSearchParams(location.hash.split("?")[1] ?? "")));
    draw(context, answer);
    const rows = main.querySelector(".rows");
    if (rows && scrolled !== undefined) rows.scrollTop = scrolled;
    say("more of the trace arrived");
  }
}

/** When the newest record of an answer happened, in milliseconds. */
function newest(json) {
  const ends = (json.traces ?? []).map((trace) => millis(trace.start_unix_nano) + (trace.duration_ms ?? 0));
  return Math.max(0, ...ends, ...(json.logs ?? []).slice(-1).map((log) => millis(log.time_unix_nano)));
}

function draw(context, answer) {
  const { main, id, query, command, closing } = context;
  const { json } = answer;
  context.undo?.();
  context.undo = null;
  closing(() => context.undo?.());
  command(`collector trace ${word(id)}`, `${many((json.traces ?? []).reduce((sum, each) => sum + (each.span_count ?? 0), 0), "span")} · answered in ${Math.round(answer.took_ms)} ms`);
  if (answer.status === 404) return unknown(main, json);
  const traces = (json.traces ?? []).map((trace) => ({ trace, model: build(trace) }));
  for (const each of traces) each.verdict = verdict(each.model);
  if (!traces.length) traces.push(loose(json));
  const failed = traces.findLastIndex((each) => each.verdict.failed);
  const named = traces.findIndex((each) => each.trace.trace_id === query.trace);
  const held = traces.findIndex((each) => query.span && each.model.spans.some((span) => span.span.span_id === query.span));
  const chosen = [named, held, failed].find((place_) => place_ >= 0) ?? traces.length - 1;
  one(context, answer, traces, chosen);
}

/** Log records that carry the id and belong to no trace, as a trace without spans. */
function loose(json) {
  const logs = json.logs ?? [];
  const trace = { trace_id: "", start_unix_nano: logs[0]?.time_unix_nano ?? "0", duration_ms: 0, services: [...new Set(logs.map((log) => log.service))], context: {}, logs };
  const model = build(trace);
  return { trace, model, verdict: verdict(model) };
}

function unknown(main, json) {
  const { searched = {} } = json;
  const range = (what, found) => found && h("p.t2", `${what} from `, when(found.oldest_unix_nano), " to ", when(found.newest_unix_nano));
  fill(main, h("div.head", h("h1", "Nothing has this id")), h("section.panel.pad",
    h("p.mono.wraps", json.id), h("p.t2", `Searched as ${(searched.kinds ?? []).map((kind) => kind.replaceAll("_", " ")).join(", ")}.`),
    range("Spans are stored", searched.spans), range("Log records are stored", searched.logs), !searched.spans && !searched.logs && h("p.t2", "The store is empty."),
    h("p", h("a.link", { href: place(["find", json.id], { since: "24h" }) }, "Look for it as text"))));
}

function one(context, answer, traces, chosen) {
  const { main, id, query, change, title, keys, say } = context;
  const { json } = answer;
  const { trace, model, verdict: found } = traces[chosen];
  title(found.sentence);
  main.className = "full";
  const panelSide = h("aside.side", { "aria-label": "Selected row", tabindex: "-1" });
  const jump = (to) => { tab("timeline"); waterfall.show(to); };
  const picked = (row) => {
    fill(panelSide, side(row, model, jump));
    if (row?.kind === "span") change({ span: row.span.span.span_id });
  };
  const waterfall = new Waterfall(model, picked);
  const lines = linesOf(model);
  const logs = logRows((index) => lines[index].log, (index) => {
    logs.select(index);
    fill(panelSide, side(lines[index], model, jump));
  }, "Log lines of the whole trace");
  const body = h("div.body");
  const split = h("div.split", h("div.left", tools(), body), panelSide);
  fill(main, head(), story(), split);
  context.undo = () => { waterfall.close(); logs.close(); };
  tab(["logs", "raw"].includes(query.tab) ? query.tab : model.spans.length ? "timeline" : "logs");
  const wanted = model.spans.find((each) => each.span.span_id === query.span) ?? found.span;
  if (wanted) waterfall.show(wanted);
  else fill(panelSide, side(lines[0], model, jump));
  if (model.spans.length && !query.tab) waterfall.rows.element.focus({ preventScroll: true });
  keys({
    n: () => failing(1), p: () => failing(-1),
    s: () => pauses(!waterfall.folded),
    ...Object.fromEntries(traces.slice(0, 9).map((_, index) => [String(index + 1), () => change({ trace: traces[index].trace.trace_id, span: "" }, true)])),
  });

  function failing(step) {
    tab("timeline");
    if (!waterfall.failed(step)) say("no further failure");
  }
  function pauses(on) {
    waterfall.fold(on);
    split.querySelector(".tools").replaceWith(tools());
    tab(body.dataset.tab);
  }
  function head() {
    const kind = kindOf(id, json);
    const attempt = found.subject ? attemptOf(model, found.subject) : "";
    const worker = found.subject && attribute(found.subject.span, "celery.worker.hostname");
    return h("div.verdict",
      h("div.what", icon(found.failed ? "fail" : "none"), h("h1.el", { title: found.sentence }, line(found.sentence, 400))),
      h("div.row.acts", copying("CLI command", () => `collector trace ${word(id)}`), copying("Link", () => location.href), copying("JSON", () => answer.text),
        trace.trace_id && copying("OTLP/JSON", async () => (await ask(`api/traces/${trace.trace_id}`, {})).text),
        button("Next failed (n)", () => failing(1))),
      h("div.why", found.exception?.message && h("span.el.said", line(found.exception.message, 300)),
        found.frame && h("span", "at ", h("span.mono", `${short(found.frame.file)}:${found.frame.line}`), found.frame.function && [" in ", h("span.mono", found.frame.function)]),
        found.subject && h("span", [worker ? `${found.subject.span.service} on ${worker}` : found.subject.span.service, attempt].filter(Boolean).join(", ")),
        kind !== "trace" && h("span.t3", `${kind} `, h("span.mono", id)),
        trace.trace_id && h("span.t3", "trace ", h("span.mono", trace.trace_id)),
        h("span.t3", when(trace.start_unix_nano, true), ` · ${duration(trace.duration_ms)} · ${(trace.services ?? []).join(", ")}`)),
      cuts(json),
      traces.length > 1 && h("ol.others", { "aria-label": "Traces of this id" }, traces.slice(0, 50).map((each, index) => h("li",
        h("a.row", { href: place(["trace", id], { trace: each.trace.trace_id }), "data-row": true, "aria-current": index === chosen ? "true" : null },
          index < 9 ? h("kbd", String(index + 1)) : null, icon(each.verdict.failed ? "fail" : "none"), h("span.el", line(each.verdict.sentence, 200)), when(each.trace.start_unix_nano))))));
  }
  function story() {
    const attempts = found.subject ? attemptsOf(model, found.subject) : [];
    if (attempts.length < 2 && !attempts[0]?.wait) return h("div");
    const steps = [];
    const publisher = model.spans[attempts[0].parent];
    const box = (each, label, text, failedStep) => h(`button.step${failedStep ? ".fail" : ""}${each === found.subject ? ".now" : ""}`, { type: "button", on: { click: () => jump(each) } },
      h("span.row", icon(failedStep ? "fail" : "ok"), h("span.b", label), h("span.t2", duration(each.end - each.start))), h("span.t3.el", text));
    if (publisher) steps.push(box(publisher, "Published", line(publisher.span.name, 60), publisher.failed));
    let before = publisher?.end;
    attempts.slice(-20).forEach((each, index) => {
      const pause = each.wait || (before === undefined ? 0 : each.start - before);
      if (pause > 0) steps.push(h("div.gap", `${duration(pause)}${each.wait ? " in queue" : ""}`, h("i.hat")));
      steps.push(box(each, String(attempts.length - Math.min(20, attempts.length) + index + 1), line(exceptionOf(each)?.type || attribute(each.span, "celery.task.state") || each.span.name, 60), each.failed));
      before = each.end;
    });
    return h("div.story", h("h2", attempts.length > 1 ? "Attempts" : "Task"), h("div.steps", steps));
  }
  function tools() {
    const tabs = [["timeline", "Timeline"], ["logs", `Logs ${lines.length.toLocaleString("en")}`], ["raw", "Raw"]];
    return h("div.tools", h("div.tabs", { role: "tablist", "aria-label": "Parts of the trace" }, tabs.map(([key, text]) =>
      h("button", { type: "button", role: "tab", id: `tab-${key}`, "data-tab": key, on: { click: () => tab(key, true) } }, text))),
      h("span.sp"), h("div.leg.hm", h("span", h("i.c-crit"), "critical path"), h("span", h("i.c-fail"), "failed"), h("span", h("i.c-bar"), "other"), h("span", h("i.hat"), "waiting")),
      waterfall.scale.possible || waterfall.scale.folds.length ? choice("Pauses", [["fold", "Folded"], ["scale", "To scale"]], waterfall.folded ? "fold" : "scale", (key) => pauses(key === "fold")) : null);
  }
  function tab(key, chosenByHand = false) {
    for (const each of split.querySelectorAll("[role=tab]")) each.setAttribute("aria-selected", String(each.dataset.tab === key));
    if (body.dataset.tab === key && body.firstChild) return;
    body.dataset.tab = key;
    if (chosenByHand) change({ tab: key === "timeline" ? "" : key });
    if (key === "timeline") fill(body, waterfall.element);
    else if (key === "logs") {
      fill(body, logs.element);
      logs.reset(lines.length);
    } else fill(body, raw());
    if (key === "timeline") waterfall.rows.later();
  }
  function raw() {
    const text = answer.text;
    let shown = text.slice(0, MOST_RAW);
    if (text.length <= MOST_RAW) shown = JSON.stringify(JSON.parse(text), null, 1);
    return add(h("div.raw", { tabindex: "0", role: "region", "aria-label": "The answer as JSON" }), [
      text.length > MOST_RAW && h("p.cut", `the first ${MOST_RAW.toLocaleString("en")} of ${text.length.toLocaleString("en")} characters; the whole is: curl ${location.origin}/api/v1/trace/${encodeURIComponent(id)}`),
      h("pre", { most: MOST_RAW }, shown)]);
  }
}
