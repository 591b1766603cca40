// Time to width. Gaps in which nothing of the trace runs (a queue, a delay) are folded: short spans
// would vanish beside them. A gap folds when it is at least a tenth of the trace, and only when those
// gaps together are more than 40 % of it; each then takes a few per cent of the width.

const LEAST = 0.1;
const TOGETHER = 0.4;

/** The gaps between spans, as [from, to]. */
function gaps(model) {
  const found = [];
  let end = model.from;
  let place = 0;
  for (const each of [...model.spans].sort((a, b) => a.start - b.start)) {
    // A root that only waits for others does not hide their pauses: leaves say what runs.
    if (each.children.length && each.own < (each.end - each.start) * 0.01) continue;
    if (each.start > end && (place || each.start > end)) found.push([end, each.start]);
    end = Math.max(end, each.end);
    place += 1;
  }
  return found;
}

/** A scale: `x(ms)` from 0 to 1, `folds`, and `ticks` as [place, text of ms]. */
export function scaleOf(model, folded) {
  const { from, until } = model;
  const all = until - from;
  const big = gaps(model).filter(([start, end]) => end - start >= all * LEAST);
  const sum = big.reduce((total, [start, end]) => total + end - start, 0);
  const folds = folded && sum > all * TOGETHER ? big : [];
  const longest = Math.max(0, ...folds.map(([start, end]) => end - start));
  let widths = folds.map(([start, end]) => (end - start === longest ? 0.13 : 0.06));
  const wide = widths.reduce((a, b) => a + b, 0);
  if (wide > TOGETHER) widths = widths.map((width) => (width * TOGETHER) / wide);
  const rest = 1 - widths.reduce((a, b) => a + b, 0);
  const active = all - (folds.length ? sum : 0) || 1;
  const unit = rest / active;

  function x(ms) {
    let done = 0;
    let before = from;
    for (let index = 0; index < folds.length; index++) {
      const [start, end] = folds[index];
      if (ms <= start) break;
      done += (start - before) * unit;
      if (ms < end) return done + ((ms - start) / (end - start)) * widths[index];
      done += widths[index];
      before = end;
    }
    return Math.min(1, Math.max(0, done + (ms - before) * unit));
  }

  const ticks = [[0, from]];
  if (folds.length) for (const [, end] of folds) ticks.push([x(end), end]);
  else for (const part of [0.25, 0.5, 0.75]) ticks.push([part, from + all * part]);
  return { x, folds, ticks: ticks.filter(([place], index) => !index || (place - ticks[index - 1][0] > 0.07 && place < 0.94)), possible: sum > all * TOGETHER };
}
