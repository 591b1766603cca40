// The sentence on top of a trace, and the stack behind it.
//
// The cause is the latest failed span below which nothing failed; it is reported under the name of the
// work that it broke: the nearest failed SERVER or CONSUMER span around it in the same service.

import { attemptsOf, attribute } from "./model.js";
import { duration } from "./format.js";

const LIBRARY = /site-packages|dist-packages|[\\/]lib[\\/]python\d|<frozen |<string>|^<[^>]*>$/;
const FRAME = /^\s*File "([^"\n]{1,400})", line (\d{1,9})(?:, in ([^\n]{1,200}))?$/;
const MOST_FRAMES = 200;

/** Python's traceback as frames, the innermost last; none when it is not one. */
export function frames(stack) {
  const found = [];
  const lines = String(stack ?? "").slice(-200_000).split("\n");
  for (let index = 0; index < lines.length; index++) {
    const match = lines[index].length < 800 && FRAME.exec(lines[index]);
    if (/^(During handling of|The above exception was)/.test(lines[index])) found.length = 0;
    if (!match) continue;
    const next = lines[index + 1] ?? "";
    const code = FRAME.test(next.slice(0, 800)) || !/^\s{4}/.test(next) ? "" : next.trim();
    found.push({ file: match[1], line: match[2], function: match[3] ?? "", code, own: !LIBRARY.test(match[1]) });
  }
  return found.slice(-MOST_FRAMES);
}

/** The exception of a span: its event, else one of its log lines, else its status. */
export function exceptionOf(each) {
  const event = [...(each.span.events ?? [])].reverse().find((one) => one.name === "exception");
  if (event) {
    const found = event.attributes ?? {};
    return { type: found["exception.type"] ?? "", message: found["exception.message"] ?? "", stack: found["exception.stacktrace"] ?? "" };
  }
  const log = [...each.logs].reverse().find((one) => one.exception);
  if (log) return { type: log.exception.type ?? "", message: log.exception.message ?? "", stack: log.exception.stacktrace ?? "" };
  if (!each.failed) return null;
  const type = attribute(each.span, "error.type") ?? "";
  return { type: String(type), message: each.span.status_message ?? "", stack: "" };
}

/** The last frame of the application's own code. */
export function ownFrame(stack) {
  const all = frames(stack);
  return all.findLast((frame) => frame.own) ?? null;
}

/** @returns {{failed: boolean, sentence: string, span: object|null, exception: object|null, frame: object|null, subject: object|null}} */
export function verdict(model) {
  const { spans } = model;
  const below = new Uint8Array(spans.length);
  for (let index = spans.length - 1; index >= 0; index--) {
    if ((spans[index].failed || below[index]) && spans[index].parent >= 0) below[spans[index].parent] = 1;
  }
  const leaves = spans.filter((each) => each.failed && !below[each.index]);
  if (leaves.length) {
    const leaf = leaves.reduce((a, b) => (b.start > a.start ? b : a));
    let subject = leaf;
    for (let up = leaf; up && up.span.service === leaf.span.service; up = spans[up.parent]) {
      if (!up.failed) break;
      subject = up;
      if (up.span.kind === "SERVER" || up.span.kind === "CONSUMER") break;
    }
    const chain = [];
    for (let up = leaf; up; up = up === subject ? null : spans[up.parent]) chain.unshift(up);
    // The outermost that has an exception of its own says what the work died of.
    const source = chain.find((each) => each.span.events?.some((one) => one.name === "exception")) ?? chain.find((each) => exceptionOf(each)?.type) ?? subject;
    const exception = exceptionOf(source);
    const retries = Number(attribute(subject.span, "retries")) || 0;
    const name = attribute(subject.span, "task") ?? subject.span.name;
    const after = retries ? ` after ${retries} ${retries === 1 ? "retry" : "retries"}` : "";
    const why = exception?.type || exception?.message || "";
    return { failed: true, sentence: `${name} failed${after}${why ? `: ${why}` : ""}`, span: source, subject, exception, frame: ownFrame(exception?.stack) };
  }
  const root = spans[0];
  if (!root) {
    const logs = model.trace.logs?.length ?? 0;
    return { failed: false, sentence: `${logs} log ${logs === 1 ? "record" : "records"} without spans`, span: null, subject: null, exception: null, frame: null };
  }
  const errors = spans.flatMap((each) => each.logs.filter((log) => (log.severity_number ?? 0) >= 17).map((log) => [each, log]));
  const waited = spans.reduce((most, each) => (each.wait > (most?.wait ?? 0) ? each : most), null);
  const slow = spans.reduce((most, each) => (each.critical && each.own > (most?.own ?? -1) ? each : most), null);
  let sentence = `${root.span.name} took ${duration(model.until - model.from)}`;
  if (waited && waited.wait > (model.until - model.from) / 5) sentence += `, ${duration(waited.wait)} of it in queue ${attribute(waited.span, "queue") ?? "—"}`;
  else if (slow && slow !== root && slow.own > 0) sentence += `, ${duration(slow.own)} of it in ${slow.span.name}`;
  if (errors.length) sentence += `; ${errors.length} logged ${errors.length === 1 ? "error" : "errors"}`;
  const span = errors[0]?.[0] ?? slow ?? root;
  const exception = errors.length ? exceptionOf(span) : null;
  return { failed: false, sentence, span, subject: span, exception, frame: ownFrame(exception?.stack) };
}

/** "attempt 4 of 4", of a task with more than one. */
export function attemptOf(model, span) {
  const all = attemptsOf(model, span);
  const place = all.indexOf(span);
  return all.length > 1 && place >= 0 ? `attempt ${place + 1} of ${all.length}` : "";
}
