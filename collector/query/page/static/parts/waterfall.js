// The waterfall: spans, queue waits and log lines as rows of one virtual list.

import { add, h, icon } from "./dom.js";
import { duration } from "./format.js";
import { attribute, rowsOf } from "./model.js";
import { Rows } from "./rows.js";
import { scaleOf } from "./scale.js";
import { line, value } from "./text.js";

const HEIGHT = 22;
const LEVELS = { DEBUG: "DEBUG", INFO: "INFO", WARNING: "WARN", ERROR: "ERROR", CRITICAL: "CRIT" };
const SEGMENTS = 40;

/** The level of a log document as a row's class and word. */
export function level(log) {
  return LEVELS[log.level] ?? "INFO";
}

/** `key=value` of a log document; what its span says already is left out. */
export function pairs(log, span = {}, most = 300) {
  const parts = [];
  let length = 0;
  if (log.exception?.type) parts.push(`${log.exception.type}: ${line(log.exception.message ?? "", 120)}`);
  for (const [key, found] of Object.entries(log.attributes ?? {})) {
    if (span.attributes && span.attributes[key] === found) continue;
    const part = `${key}=${line(value(found), 80)}`;
    parts.push(part);
    length += part.length;
    if (length > most) break;
  }
  return parts.join(" ");
}

function percent(part) {
  return `${(part * 100).toFixed(4)}%`;
}

export class Waterfall {
  /**
   * @param {object} model of `model.js`
   * @param {(row: object) => void} picked a row became the selected one
   */
  constructor(model, picked) {
    this.model = model;
    this.picked = picked;
    this.closed = new Set();
    this.whole = new Set();
    this.folded = true;
    this.rows = new Rows({ height: HEIGHT, role: "tree", rowRole: "treeitem", label: "Spans and log lines", draw: (row, index) => this.draw(row, index), pick: (index, event) => this.click(index, event) });
    this.axis = h("div.axis");
    this.head = h("div.wfh", { "aria-hidden": "true" }, h("div", "Span"), h("div.num", "Duration"), this.axis);
    this.element = h("div.wf", this.head, this.rows.element);
    this.rows.element.addEventListener("keydown", (event) => this.key(event));
    this.rescale();
    this.relist();
  }

  rescale() {
    this.scale = scaleOf(this.model, this.folded);
    this.axis.replaceChildren();
    for (const [place, ms] of this.scale.ticks) {
      this.axis.append(h("span", { style: { left: percent(place) } }, ms ? `${duration(Math.abs(ms))}` : "0"));
    }
    for (const [from, to] of this.scale.folds) {
      const left = this.scale.x(from);
      this.axis.append(h("i.foldhead.hat", { title: `${duration(to - from)} without work`, style: { left: percent(left), width: percent(this.scale.x(to) - left) } }));
    }
  }

  relist() {
    this.list = rowsOf(this.model, this.closed, this.whole);
    this.rows.reset(this.list.length);
  }

  /** Fold the pauses, or show them to scale. */
  fold(on) {
    this.folded = on;
    this.rescale();
    this.rows.reset(this.list.length);
  }

  draw(element, index) {
    const row = this.list[index];
    const indent = 14 * Math.min(row.depth, 12) + 4 * Math.max(0, Math.min(row.depth, 40) - 12);
    element.replaceChildren();
    element.setAttribute("aria-level", String(row.depth + 1));
    element.removeAttribute("aria-expanded");
    const track = h("div.t");
    for (const [from, to] of this.scale.folds) {
      const left = this.scale.x(from);
      track.append(h("div.foldband", { style: { left: percent(left), width: percent(this.scale.x(to) - left) } }));
    }
    const name = h("div.n", { style: { "--in": `${indent}px` } });
    element.className = `r ${row.kind}`;
    this[row.kind](element, row, name, track);
  }

  span(element, row, name, track) {
    const { span: each } = row;
    const { span } = each;
    const parent = this.model.spans[each.parent];
    const closable = each.last > each.index || each.logs.length > 0;
    const open = !this.closed.has(each.index);
    if (closable) element.setAttribute("aria-expanded", String(open));
    const left = this.scale.x(each.start);
    const width = this.scale.x(each.end) - left;
    const kind = each.failed ? "fail" : each.critical ? "crit" : "";
    track.append(h(kind ? `div.bar.${kind}` : "div.bar", { style: { left: `min(${percent(left)}, calc(100% - 2px))`, width: percent(width), ...this.dim(each, left, width) } }));
    const text = duration(each.end - each.start);
    track.append(h("span.lab", { style: left + width < 0.85 ? { left: percent(left + width) } : { right: percent(1 - left) } }, text));
    const orphan = each.orphan && span.parent_span_id;
    const retries = attribute(span, "retries");
    add(name, [
      h("span.tw", { "aria-hidden": "true" }, closable ? (open ? "▾" : "▸") : ""),
      each.failed && icon("fail"),
      each.backwards && icon("warn", "clock: ends before it starts"),
      h(each.failed || each.depth === 0 ? "span.el.b" : "span.el", { title: span.name }, line(span.name, 300)),
      span.kind === "CONSUMER" && retries !== undefined && h("span.t2", `attempt ${Number(retries) + 1}`),
      (!parent || parent.span.service !== span.service) && h("span.s", line(span.service, 80)),
      orphan && h("span.s.warn", `parent ${span.parent_span_id.slice(0, 8)}… is not stored`),
      !open && each.last > each.index && h("span.s", `+${each.last - each.index}`),
    ]);
    element.append(name, h("div.d", text), track);
    element.setAttribute("aria-label", line(`${each.failed ? "failed, " : ""}${span.name}, ${span.service}, ${text}, starts at ${duration(each.start)}`, 400));
  }

  /** Own time full, time in children dimmed. */
  dim(each, left, width) {
    if (!each.covered.length || each.covered.length > SEGMENTS || width <= 0) return {};
    const stops = [];
    for (const [from, to] of each.covered) {
      const a = percent((this.scale.x(from) - left) / width);
      const b = percent((this.scale.x(to) - left) / width);
      stops.push(`var(--c) ${a}`, `var(--dim) ${a}`, `var(--dim) ${b}`, `var(--c) ${b}`);
    }
    return { "background-image": `linear-gradient(90deg, ${stops.join(", ")})`, "background-color": "transparent" };
  }

  wait(element, row, name, track) {
    const { span: each } = row;
    const queue = attribute(each.span, "queue");
    const left = this.scale.x(each.start - each.wait);
    const text = duration(each.wait);
    track.append(h("div.bar.hat", { style: { left: percent(left), width: percent(this.scale.x(each.start) - left) } }));
    add(name, [h("span.tw"), icon("wait"), h("span.t2.el", `waiting in queue ${queue ?? ""}`)]);
    element.append(name, h("div.d", text), track);
    element.setAttribute("aria-label", `waiting in queue ${queue ?? ""}, ${text}`);
  }

  log(element, row, name, track) {
    const { log } = row;
    const word = level(log);
    element.classList.add(word);
    name.classList.add("wide");
    add(name, [h("span.lv", word), h("span.m.el", line(log.message ?? "", 600)), h("span.mono.t3.el", pairs(log, row.span?.span))]);
    track.append(h("i.dot", { style: { left: percent(this.scale.x(row.at)) } }));
    element.append(name, track);
    element.setAttribute("aria-label", line(`${word.toLowerCase()}: ${log.message ?? ""}`, 400));
  }

  more(element, row, name, track) {
    name.classList.add("wide");
    add(name, [h("span.lv"), h("span.link", `+ ${row.left.toLocaleString("en")} lines`)]);
    element.append(name, track);
    element.setAttribute("aria-label", `${row.left} more lines`);
  }

  click(index, event) {
    const row = this.list[index];
    this.pick(index);
    if (row.kind === "more") this.toggle(index);
    else if (event.target.closest(".tw") && row.kind === "span") this.toggle(index);
  }

  pick(index) {
    if (index < 0 || index >= this.list.length) return;
    this.rows.select(index);
    this.picked(this.list[index]);
  }

  toggle(index, open) {
    const row = this.list[index];
    if (row.kind === "more") this.whole.add(row.span.index);
    else {
      const closed = this.closed.has(row.span.index);
      if (open === undefined ? closed : open) this.closed.delete(row.span.index);
      else this.closed.add(row.span.index);
    }
    this.relist();
  }

  /** Open the way to a span and select it in the upper third. */
  show(span) {
    for (let up = span; up; up = this.model.spans[up.parent]) this.closed.delete(up.index);
    this.relist();
    const index = this.list.findIndex((row) => row.kind === "span" && row.span === span);
    this.rows.select(index, true);
    this.picked(this.list[index]);
  }

  /** Select the next or the previous failed span or error line. */
  failed(step) {
    for (let index = this.rows.selected + step; index >= 0 && index < this.list.length; index += step) {
      const row = this.list[index];
      if ((row.kind === "span" && row.span.failed) || (row.kind === "log" && (row.log.severity_number ?? 0) >= 17)) {
        this.pick(index);
        return true;
      }
    }
    return false;
  }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const at = this.rows.selected;
    const row = this.list[at];
    const page = Math.max(1, Math.floor(this.rows.element.clientHeight / HEIGHT) - 1);
    const moves = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 };
    if (event.key in moves) this.pick(Math.min(this.list.length - 1, Math.max(0, at + moves[event.key])));
    else if (event.key === "ArrowRight" && row) {
      if (row.kind === "more" || (row.kind === "span" && this.closed.has(row.span.index))) this.toggle(at, true);
      else this.pick(at + 1);
    } else if (event.key === "ArrowLeft" && row) {
      if (row.kind === "span" && !this.closed.has(row.span.index) && (row.span.last > row.span.index || row.span.logs.length)) this.toggle(at, false);
      else this.pick(this.list.findLastIndex((other, place) => place < at && other.kind === "span" && other.depth < row.depth));
    } else if (event.key === "Enter" && row?.kind === "more") this.toggle(at);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  close() {
    this.rows.close();
  }
}
