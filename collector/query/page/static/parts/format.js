// Numbers and times in words. Nanoseconds since 1970 do not fit into a number; they are kept as the
// digits that came (`api.js`) and become BigInt only here.

import { h } from "./dom.js";

/** A duration in milliseconds: 340 µs, 4.2 ms, 548 ms, 1.2 s, 4 m 02 s, 2 h 10 m, 3 d. */
export function duration(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return "—";
  if (ms === 0) return "0 ms";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 60) return `${s.toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} m ${String(Math.floor(s % 60)).padStart(2, "0")} s`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${String(Math.floor((s % 3600) / 60)).padStart(2, "0")} m`;
  return `${Math.floor(s / 86400)} d`;
}

/** A count: 9,999, then 12.4k, 1.2M. */
export function count(n) {
  if (n < 10_000) return Math.round(n).toLocaleString("en");
  return n < 1e6 ? `${(n / 1e3).toFixed(1)}k` : `${(n / 1e6).toFixed(1)}M`;
}

/** So many of something in so many seconds: 12/s, 3.4/min, 7/h. */
export function rate(n, seconds) {
  const most = (value) => (value < 10 ? String(Math.round(value * 10) / 10) : count(value));
  if (!n) return ["0", "/min"];
  if (n / seconds >= 1) return [most(n / seconds), "/s"];
  return (n / seconds) * 60 >= 1 ? [most((n / seconds) * 60), "/min"] : [most((n / seconds) * 3600), "/h"];
}

/** "1 span", "2 spans". */
export function many(n, word) {
  return `${count(n)} ${word}${n === 1 ? "" : "s"}`;
}

/** A share of 1: 8.2 %, <0.1 %. */
export function share(part) {
  if (!part) return "0 %";
  return part < 0.001 ? "<0.1 %" : `${(part * 100).toFixed(1)} %`;
}

/** Milliseconds since 1970 of nanoseconds. */
export function millis(nanos) {
  return Number(BigInt(nanos ?? 0) / 1_000_000n);
}

/** The instant in UTC with all its digits, RFC 3339. */
export function utc(nanos) {
  const whole = BigInt(nanos ?? 0);
  const date = new Date(Number(whole / 1_000_000n));
  if (Number.isNaN(date.getTime())) return "a time out of range";
  return `${date.toISOString().slice(0, 19)}.${String(whole % 1_000_000_000n).padStart(9, "0")}Z`;
}

/** The instant in the reader's zone; with `fine`, to the millisecond. */
export function local(nanos, fine = false) {
  const date = new Date(millis(nanos));
  if (Number.isNaN(date.getTime())) return "—";
  const two = (n) => String(n).padStart(2, "0");
  const now = new Date();
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}`;
  if (date.toDateString() === now.toDateString()) {
    const part = fine ? `.${String(date.getMilliseconds()).padStart(3, "0")}` : "";
    return `${clock}:${two(date.getSeconds())}${part}`;
  }
  const names = { weekday: "short", day: "numeric", month: "short" };
  if (date.getFullYear() !== now.getFullYear()) names.year = "numeric";
  return `${date.toLocaleDateString("en-GB", names).replaceAll(",", "")} ${clock}`;
}

/** A time: the reader's zone as text, UTC on hover. */
export function when(nanos, fine = false) {
  if (!nanos || nanos === "0") return h("span", "—");
  return h("time.mono.t2", { datetime: utc(nanos), title: utc(nanos) }, local(nanos, fine));
}

/** How long ago, with the time on hover. */
export function ago(nanos) {
  const ms = Date.now() - millis(nanos);
  if (ms > 86_400_000) return when(nanos);
  const text = ms < 1000 ? "now" : `${duration(Math.floor(ms / 1000) * 1000).replace(".0 s", " s")} ago`;
  return h("time", { datetime: utc(nanos), title: `${local(nanos)} · ${utc(nanos)}` }, text);
}

/** A word of a command line, quoted when a shell would read it otherwise. */
export function word(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${String(text).replaceAll("'", `'\\''`)}'`;
}
