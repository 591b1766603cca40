// The list of recent traces, and the table that shows it on home and in Traces.

import { ask, Refused } from "./api.js";
import { h, icon, place } from "./dom.js";
import { count, duration, when } from "./format.js";
import { rowLink, table } from "./table.js";
import { line } from "./text.js";

const RANGES_S = { m: 60, h: 3600, d: 86_400 };

/** `15m` in seconds. */
export function seconds(range) {
  const [, number, unit] = /^(\d+)([mhd])$/.exec(range) ?? [null, "1", "h"];
  return Number(number) * RANGES_S[unit];
}

/**
 * Recent traces: of `/api/v1/traces`; a version without it is asked in TraceQL.
 *
 * @param {{since: string, errors?: boolean, slow?: boolean, service?: string, operation?: string, limit?: number, cursor?: string}} wanted
 */
export async function recent(wanted, signal) {
  const { since, errors, slow, service, operation, limit = 50, cursor } = wanted;
  try {
    const params = { since, limit, service, operation, cursor, errors: errors ? "true" : "", order: slow ? "slowest" : "" };
    return (await ask("api/v1/traces", params, { signal })).json;
  } catch (error) {
    if (!(error instanceof Refused) || error.status !== 404) throw error;
  }
  const said = (name, text) => `${name} = "${text.replace(/[\\"]/g, "\\$&")}"`;
  const conditions = [errors && "status = error", service && said("resource.service.name", service), operation && said("name", operation)].filter(Boolean);
  const now = Math.floor(Date.now() / 1000);
  const { json } = await ask("api/search", { q: `{ ${conditions.join(" && ")} }`, limit, start: now - seconds(since) + 60, end: now + 60 }, { signal });
  const traces = (json.traces ?? []).map((each) => {
    const services = Object.entries(each.serviceStats ?? {}).map(([name, found]) => ({ name, spans: found.spanCount ?? 0, errors: found.errorCount ?? 0 }));
    return {
      trace_id: String(each.traceID).padStart(32, "0"), service: each.rootServiceName ?? "", name: each.rootTraceName ?? "",
      start_unix_nano: each.startTimeUnixNano, duration_ms: each.durationMs ?? 0, services,
      spans: services.reduce((sum, one) => sum + one.spans, 0), errors: services.reduce((sum, one) => sum + one.errors, 0),
    };
  });
  if (slow) traces.sort((a, b) => b.duration_ms - a.duration_ms);
  return { traces };
}

/** The table of traces. */
export function traceTable(traces) {
  const columns = [
    { text: "", kind: "w" }, { text: "Time", kind: "w hm" }, { text: "Operation", width: "40%" }, { text: "Service", kind: "hm", width: "18%" },
    { text: "What happened", kind: "hm", width: "30%" }, { text: "Spans", kind: "num w hm" }, { text: "Trace", kind: "w hm" }, { text: "Duration", kind: "num w" },
  ];
  return table("Traces", columns, traces.map((each) => {
    const failed = (each.errors ?? 0) > 0 || each.status === "ERROR";
    const others = (each.services ?? []).map((one) => one.name).filter((name) => name !== each.service);
    const broken = (each.services ?? []).filter((one) => one.errors).map((one) => one.name);
    const matched = each.matched?.status === "ERROR" && each.matched.name !== each.name ? `in ${each.matched.name}` : broken.length ? `in ${broken.join(", ")}` : "";
    const what = failed
      ? h("span.err", line(`${count(each.errors ?? 1)} failed ${matched}`, 200))
      : h("span.t3", line(others.length ? `through ${others.slice(0, 3).join(", ")}` : "", 200));
    return [
      icon(failed ? "fail" : "none"), when(each.start_unix_nano),
      h("div", rowLink(place(["trace", each.trace_id]), h("div.el.b", { title: each.name ?? "" }, line(each.name || "(root not stored)", 200))), h("div.nm.el", h("span.t3", line(each.service ?? "", 60)), failed && h("span.err", " · failed"))),
      h("div.el.t2", line(each.service ?? "", 100)), h("div.el", what), h("span.t2", count(each.spans ?? 0)),
      h("span.mono.t3", { title: each.trace_id }, each.trace_id.slice(0, 8)), h(failed ? "span.err.b" : "span", duration(each.duration_ms)),
    ];
  }));
}
