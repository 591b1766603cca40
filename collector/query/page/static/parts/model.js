// A trace as the page needs it: flat arrays made from the answer of `/api/v1/trace/ID`, no element.
//
// Offsets are milliseconds from the trace's start (differences of BigInt, so nothing is rounded away).
// All walks are loops over rows in reading order with their depth; a chain of 10,000 spans is a list.

const LOGS_AT_ONCE = 20;
const FIRST_LOGS = 5;
const OWN_KEYS = { retries: "celery.task.retries", wait: "celery.task.wait_ms", task: "celery.task.name", queue: "messaging.destination.name", id: "celery.task.id" };

function offset(nanos, origin) {
  return Number(BigInt(nanos) - origin) / 1e6;
}

/** Attribute of a span, of the names that telemetry writes. */
export function attribute(span, key) {
  return span.attributes?.[OWN_KEYS[key] ?? key];
}

/** Spans with depth, parent, offsets, own time; then the critical path. */
export function build(trace) {
  const spans = [];
  const stack = [];
  let origin = trace.start_unix_nano ? BigInt(trace.start_unix_nano) : 0n;
  for (const row of trace.rows ?? []) {
    const depth = row.depth ?? 0;
    const span = row.span;
    const start = offset(span.start_unix_nano, origin);
    const end = offset(span.end_unix_nano, origin);
    const index = spans.length;
    stack.length = Math.min(stack.length, depth);
    const parent = depth > 0 ? stack[depth - 1] ?? -1 : -1;
    stack[depth] = index;
    const wait = Number(attribute(span, "wait"));
    spans.push({
      index, depth, parent, span, start, end: Math.max(start, end), backwards: end < start,
      failed: span.status === "ERROR", orphan: row.orphan ?? false, logs: row.logs ?? [],
      wait: span.kind === "CONSUMER" && wait > 0 ? wait : 0, children: [], own: 0, covered: [], critical: false, last: index,
    });
    if (parent >= 0) spans[parent].children.push(index);
  }
  for (let index = spans.length - 1; index >= 0; index--) {
    const each = spans[index];
    if (each.parent >= 0) spans[each.parent].last = Math.max(spans[each.parent].last, each.last);
    each.covered = covered(each, spans);
    each.own = Math.max(0, each.end - each.start - each.covered.reduce((sum, [from, to]) => sum + to - from, 0));
  }
  const from = Math.min(0, ...spans.slice(0, 1).map((each) => each.start), ...spans.filter((each) => each.wait).map((each) => each.start - each.wait));
  const until = spans.reduce((most, each) => Math.max(most, each.end), trace.duration_ms ?? 0);
  critical(spans);
  return { trace, origin, spans, from, until: Math.max(until, from + 0.001) };
}

/** The parts of a span in which one of its children runs, merged. */
function covered(parent, spans) {
  const parts = [];
  const sorted = parent.children.map((index) => spans[index]).sort((a, b) => a.start - b.start);
  for (const child of sorted) {
    const start = Math.max(child.start, parent.start);
    const end = Math.min(child.end, parent.end);
    if (end <= start) continue;
    const before = parts[parts.length - 1];
    if (before && start <= before[1]) before[1] = Math.max(before[1], end);
    else parts.push([start, end]);
  }
  return parts;
}

/** Mark what the end of the trace waited for: from each end back to the child that ended last before. */
function critical(spans) {
  const roots = spans.filter((each) => each.parent < 0);
  if (!roots.length) return;
  const waiting = [roots.reduce((a, b) => (b.end > a.end ? b : a))];
  while (waiting.length) {
    const each = waiting.pop();
    each.critical = true;
    let cursor = Infinity;
    for (const child of each.children.map((index) => spans[index]).sort((a, b) => b.end - a.end)) {
      if (child.end > cursor || child.end - child.start <= 0) continue;
      waiting.push(child);
      cursor = child.start;
    }
  }
}

/**
 * Rows to draw, in reading order: spans, what they waited, their log lines.
 *
 * @param {Set<number>} closed spans whose descendants and lines are hidden
 * @param {Set<number>} whole spans of which all lines are shown
 */
export function rowsOf(model, closed, whole) {
  const rows = [];
  const { spans, trace } = model;
  for (let index = 0; index < spans.length; index++) {
    const each = spans[index];
    if (each.wait) rows.push({ kind: "wait", depth: each.depth, span: each });
    rows.push({ kind: "span", depth: each.depth, span: each });
    if (closed.has(index)) {
      index = each.last;
      continue;
    }
    const shown = whole.has(index) ? each.logs : few(each.logs);
    for (const log of shown) rows.push(logRow(model, log, each.depth + 1, each));
    if (shown.length < each.logs.length) rows.push({ kind: "more", depth: each.depth + 1, span: each, left: each.logs.length - shown.length });
  }
  for (const log of trace.logs ?? []) rows.push(logRow(model, log, 0, null));
  return rows;
}

function logRow(model, log, depth, span) {
  return { kind: "log", depth, log, span, at: offset(log.time_unix_nano, model.origin) };
}

function few(logs) {
  if (logs.length <= LOGS_AT_ONCE) return logs;
  return logs.filter((log, place) => place < FIRST_LOGS || (log.severity_number ?? 0) >= 13).slice(0, 200);
}

/** Every log line of a trace by time, with its span. */
export function linesOf(model) {
  const found = [];
  for (const each of model.spans) for (const log of each.logs) found.push(logRow(model, log, 0, each));
  for (const log of model.trace.logs ?? []) found.push(logRow(model, log, 0, null));
  return found.sort((a, b) => a.at - b.at);
}

/** The attempts of the task that a span belongs to, by number. */
export function attemptsOf(model, span) {
  const id = span && (attribute(span.span, "id") ?? span.span.context?.task_id);
  if (!id) return [];
  return model.spans
    .filter((each) => each.span.kind === "CONSUMER" && (attribute(each.span, "id") ?? each.span.context?.task_id) === id)
    .sort((a, b) => a.start - b.start);
}
