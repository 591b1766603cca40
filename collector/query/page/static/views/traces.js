// Traces: the list with filters, a page at a time.

import { button, choice, fill, h } from "../parts/dom.js";
import { word } from "../parts/format.js";
import { cuts, empty, failure } from "../parts/table.js";
import { recent, traceTable } from "../parts/traces.js";

export async function show({ main, query, since, signal, change, command, title }) {
  title("Traces");
  const mode = ["failed", "slow"].includes(query.show) ? query.show : "all";
  const { service = "", operation = "" } = query;
  const flags = [mode === "failed" && "--errors", mode === "slow" && "--slowest", service && `--service ${word(service)}`, operation && `--operation ${word(operation)}`].filter(Boolean);
  command(["collector traces --since", since, ...flags].join(" "));
  const list = h("div");
  const wanted = { since, errors: mode === "failed", slow: mode === "slow", service, operation, limit: 100 };
  const field = (key, label) => h("input.field", { type: "search", "aria-label": label, placeholder: label, value: query[key] ?? "", on: { change: (event) => change({ [key]: event.target.value.trim() }, true) } });
  main.append(h("div.head", h("h1", "Traces"), choice("Which traces", [["all", "All"], ["failed", "Failed"], ["slow", "Slow"]], mode, (key) => change({ show: key === "all" ? "" : key }, true)), h("span.sp"), field("service", "service"), field("operation", "operation")),
    h("section.panel", { "aria-label": "Traces" }, list));
  let all = [];
  async function page(cursor) {
    try {
      const found = await recent({ ...wanted, cursor }, signal);
      all = [...all, ...(found.traces ?? [])];
      fill(list, all.length ? traceTable(all) : empty(`No such trace in the last ${since}. Choose a longer range above.`), cuts(found),
        found.next && h("div.pad", button("Older", () => page(found.next))));
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(list, failure(error));
    }
  }
  await page();
}
