// Live: new log records as they are stored. The stream is read as it comes into a ring of 5,000 lines;
// once a frame the visible rows are drawn, so a thousand lines a second cost what one screen costs.

import { open, parse, Refused } from "../parts/api.js";
import { button, choice, fill, h, place } from "../parts/dom.js";
import { count, word } from "../parts/format.js";
import { logRows } from "../parts/logs.js";
import { line, value } from "../parts/text.js";

const RING = 5000;
const LEVELS = ["debug", "info", "warning", "error"];
const LAST_DELAY_S = 30;

export async function show({ main, query, signal, change, command, title, keys, say, closing }) {
  title("Live");
  const level = LEVELS.includes(query.level) ? query.level : "debug";
  const { service = "", text = "" } = query;
  command(["collector tail", level !== "debug" && `--level ${level}`, service && `--service ${word(service)}`, text && `--text ${word(text)}`].filter(Boolean).join(" "), "following");
  main.className = "full";
  let ring = [];
  let held = null;
  let out = 0;
  let came = 0;
  let waiting = 0;
  let dirty = false;
  const note = h("span.el", "connecting");
  const speed = h("span.t2", "0 lines/s");
  const pause = button("", () => hold(!held));
  const rows = logRows((index) => (held ?? ring)[index], (index) => {
    rows.select(index);
    const log = (held ?? ring)[index];
    if (log.trace?.trace_id) location.hash = place(["trace", log.trace.trace_id], { span: log.trace.span_id });
  }, "New log lines");
  const field = (key, label) => h("input.field", { type: "search", "aria-label": label, placeholder: label, value: query[key] ?? "", on: { change: (event) => change({ [key]: event.target.value.trim() }, true) } });
  fill(main, h("div.tools", h("h1", "Live"), choice("Least level", LEVELS.map((each) => [each, each]), level, (key) => change({ level: key === "debug" ? "" : key }, true)),
    field("service", "service"), field("text", "text"), h("span.sp"), speed, pause), h("div.strip", note, h("span.sp"), h("span.t3.hm", "newest at the bottom")), rows.element);
  hold(false);
  keys({ " ": () => hold(!held) });

  /** Stop or go on; what comes while it stands goes into the ring. */
  function hold(on) {
    held = on ? [...ring] : null;
    waiting = 0;
    fill(pause, on ? h("b", "Go on") : h("b", "Pause"), h("kbd", "space"));
    pause.setAttribute("aria-pressed", String(on));
    dirty = true;
    if (on) say("paused");
  }
  rows.element.addEventListener("wheel", (event) => { if (event.deltaY < 0 && !held) hold(true); }, { passive: true });

  function take(found) {
    if (found.log) {
      came += 1;
      waiting += 1;
    }
    const row = found.log ? slim(found.log) : found.gap || found.trouble ? { gap: found.gap || found.trouble } : null;
    if (row) ring.push(row);
    if (ring.length > RING * 1.2) {
      out += ring.length - RING;
      ring = ring.slice(-RING);
    }
    dirty = true;
  }
  let frame = requestAnimationFrame(function draw() {
    frame = requestAnimationFrame(draw);
    if (!dirty) return;
    dirty = false;
    const shown = held ?? ring;
    rows.reset(shown.length);
    if (!held) rows.element.scrollTop = rows.element.scrollHeight;
  });
  const clock = setInterval(() => {
    speed.textContent = `${count(came)} lines/s`;
    came = 0;
    const parts = [];
    if (held) parts.push(`paused; ${count(waiting)} new lines wait`);
    if (out) parts.push(`${count(out)} older lines left this view; all are stored`);
    if (!trouble) note.textContent = parts.join(" · ") || "following";
  }, 1000);
  closing(() => {
    cancelAnimationFrame(frame);
    clearInterval(clock);
    rows.close();
  });

  let trouble = "";
  let position = "";
  let delay_s = 1;
  follow();

  async function follow() {
    while (!signal.aborted) {
      try {
        const params = { level: level === "debug" ? "" : level, service, text, ...(position ? { cursor: position } : { lines: 200 }) };
        const response = await open("api/v1/tail", params, signal);
        if (!response.ok) {
          const said = await response.json().catch(() => ({}));
          throw new Refused(response.status, said.error ?? `status ${response.status}`, said.parameter, Number(response.headers.get("retry-after")) || 0);
        }
        trouble = "";
        note.textContent = "following";
        for await (const each of pieces(response.body, signal)) {
          if (each.position) position = each.position;
          take(each);
          delay_s = 1;
        }
        trouble = "the stream ended";
      } catch (error) {
        if (error.name === "AbortError" || signal.aborted) return;
        trouble = error.message;
        if (error.status === 400) {
          note.textContent = line(`${error.parameter ?? ""}: ${error.message}`, 300);
          return;
        }
        delay_s = Math.max(delay_s, error.retryS ?? 0);
      }
      note.textContent = line(`${trouble}; trying again in ${delay_s} s`, 300);
      await new Promise((resolve) => { setTimeout(resolve, delay_s * 1000); });
      delay_s = Math.min(LAST_DELAY_S, delay_s * 2);
    }
  }
}

/** What a line shows of a record: a ring of whole records could be gigabytes. */
function slim(log) {
  const attributes = Object.entries(log.attributes ?? {}).slice(0, 20).map(([key, found]) => [key.slice(0, 100), value(found).slice(0, 100)]);
  return {
    time_unix_nano: log.time_unix_nano, level: log.level, severity_number: log.severity_number, service: log.service.slice(0, 100),
    message: (log.message ?? "").slice(0, 1000), attributes: Object.fromEntries(attributes),
    exception: log.exception && { type: (log.exception.type ?? "").slice(0, 200), message: (log.exception.message ?? "").slice(0, 200) },
    trace: { trace_id: log.trace?.trace_id, span_id: log.trace?.span_id },
  };
}

/** The JSON objects of a body with one a line. */
async function* pieces(body, signal) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    while (!signal.aborted) {
      const { value: text, done } = await reader.read();
      if (done) return;
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const each of lines) if (each) yield parse(each);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
