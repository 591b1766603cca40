// What is known about the selected row of a trace: exception, own frames, attributes, events, links.

import { copying, h, icon, place } from "./dom.js";
import { duration, when } from "./format.js";
import { attribute } from "./model.js";
import { clean, line, value } from "./text.js";
import { exceptionOf, frames } from "./verdict.js";

const MOST_STACK = 50_000;
const MOST_ENTRIES = 300;

function entries(title, found) {
  const all = Object.entries(found ?? {});
  if (!all.length) return null;
  const shown = all.slice(0, MOST_ENTRIES);
  return h("section", h("div.row", h("h3", title), h("span.t3", String(all.length))),
    h("dl.kv", shown.flatMap(([key, each]) => [h("dt", { title: key }, line(key, 120)), h("dd", { title: value(each) }, line(value(each)))])),
    all.length > shown.length && h("p.t3", `${all.length - shown.length} more are in Raw`));
}

/** An exception with its frames: own ones open, those of libraries folded. */
export function stack(exception) {
  const all = frames(exception.stack);
  const own = all.filter((frame) => frame.own).reverse();
  const library = all.length - own.length;
  return h("section", h("h3", "Exception"),
    h("div.err.b.wraps", line(`${exception.type}${exception.type && exception.message ? ": " : ""}${exception.message}`)),
    own.slice(0, 20).map((frame) => h("div.frame",
      h("div.fh", h("span.mono.el", { title: frame.file }, `${short(frame.file)}:${frame.line}`), h("span.t2.el", frame.function), h("span.sp"), h("span.t3", "your code")),
      frame.code && h("div.src", h("div.hit", frame.code)))),
    exception.stack && !own.length && all.length > 0 && h("p.t3", "No frame of your own code."),
    library > 0 && h("p.t3", `${library} library ${library === 1 ? "frame" : "frames"} left out`),
    exception.stack && h("details.frame", h("summary.fh", "Whole stack"), h("pre.src", { most: MOST_STACK }, exception.stack)));
}

/** The last three parts of a path. */
export function short(file) {
  return file.split(/[\\/]/).slice(-3).join("/");
}

function spanSide(row, model, show) {
  const { span: each } = row;
  const { span } = each;
  const exception = exceptionOf(each);
  const parent = model.spans[each.parent];
  const starts = each.children.map((index) => model.spans[index]).filter((child) => child.span.kind === "CONSUMER");
  const go = (to) => h("button.link", { type: "button", on: { click: () => show(to) } }, line(to.span.name, 80));
  const queue = attribute(span, "queue");
  return [
    h("section", h("div.row", icon(each.failed ? "fail" : "none"), h("h2.el", { title: span.name }, line(span.name, 300)), h("span.sp"), copying("Copy id", span.span_id)),
      h("div.t2.small", [span.service, span.kind, `starts +${duration(each.start)}`, `${duration(each.end - each.start)}, own ${duration(each.own)}`].filter(Boolean).join(" · "))),
    each.backwards && h("section.warn", "Clock: this span ends before it starts."),
    exception && stack(exception),
    (parent || starts.length > 0 || each.wait > 0) && h("section", h("h3", "Came from and started"),
      parent && h("div.row.small", h("span.t3", span.kind === "CONSUMER" ? "enqueued by" : "called by"), go(parent), h("span.t2.el", parent.span.service)),
      each.wait > 0 && h("div.row.small", h("span.t3", "waited"), h("span", `${duration(each.wait)} in queue ${queue ?? "—"}`)),
      starts.slice(0, 20).map((child) => h("div.row.small", h("span.t3", "started"), go(child), h("span.t2.el", child.span.service)))),
    entries("Attributes", span.attributes),
    entries("Ids", span.context),
    (span.events ?? []).length > 0 && h("section", h("h3", "Events"), span.events.slice(0, 50).map((event) => h("div.small",
      h("div.row", when(event.time_unix_nano, true), h("span.b.el", line(event.name, 200))),
      Object.entries(event.attributes ?? {}).filter(([key]) => key !== "exception.stacktrace").slice(0, 20)
        .map(([key, found]) => h("div.mono.t2.el", `${key}=${line(value(found), 300)}`))))),
    (span.links ?? []).length > 0 && h("section", h("h3", "Links"), span.links.slice(0, 50).map((link) =>
      h("div.row.small", h("a.link.mono", { href: place(["trace", link.trace_id], { span: link.span_id }) }, link.trace_id)))),
    entries("Resource", span.resource),
    h("section", h("dl.kv", h("dt", "span id"), h("dd", span.span_id), h("dt", "started"), h("dd", when(span.start_unix_nano, true)), span.status_message && [h("dt", "status"), h("dd", { title: span.status_message }, line(span.status_message))])),
  ];
}

function logSide(row) {
  const { log } = row;
  return [
    h("section", h("div.row", h("h2", "Log record"), h("span.chip", log.level), h("span.sp"), copying("Copy text", log.message ?? "")),
      h("div.t2.small.row", log.service, when(log.time_unix_nano, true), log.logger_name && h("span.el", log.logger_name))),
    h("section", h("pre.message", { most: 20_000 }, log.message ?? "")),
    log.exception && stack({ type: log.exception.type ?? "", message: log.exception.message ?? "", stack: log.exception.stacktrace ?? "" }),
    entries("Attributes", log.attributes),
    entries("Ids", log.context),
    log.file_path && h("section", h("span.mono.small", clean(`${log.file_path}:${log.line_number ?? "?"}`), " ", log.function_name ?? "")),
    entries("Resource", log.resource),
  ];
}

/** The panel's content for a row; `show(span)` selects another. */
export function side(row, model, show) {
  if (!row) return [h("section.t3", "Select a row.")];
  return row.kind === "log" ? logSide(row) : spanSide(row, model, show);
}
