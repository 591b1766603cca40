// Celery tasks: what became of them, waited against ran.

import { ask } from "../parts/api.js";
import { button, choice, fill, h, icon, place } from "../parts/dom.js";
import { duration, many, when, word } from "../parts/format.js";
import { empty, failure, rowLink, table } from "../parts/table.js";
import { line } from "../parts/text.js";

const STATES = ["LOST", "FAILURE", "RETRY", "STARTED", "RECEIVED", "SUCCESS", "REVOKED", "REJECTED", "IGNORED"];
const SHAPE = { LOST: "lost", FAILURE: "fail", RETRY: "retry", STARTED: "run", RECEIVED: "wait", REJECTED: "warn", REVOKED: "warn" };
const COLUMNS = [
  { text: "State", kind: "w" }, { text: "Task", width: "38%" }, { text: "Id", kind: "w hm" }, { text: "Queue", kind: "w hm" }, { text: "Waited, ran", kind: "w hm" }, { text: "Wait", kind: "num w hm" },
  { text: "Run", kind: "num w" }, { text: "Try", kind: "num w hm" }, { text: "Why", kind: "hm", width: "62%" }, { text: "Last", kind: "num w hm" },
];

export async function show({ main, query, since, signal, change, command, title }) {
  title("Tasks");
  const state = STATES.includes(query.state) ? query.state : "";
  const equal = ["collector tasks --since", since, state && `--state ${state.toLowerCase()}`, query.task && `--task ${word(query.task)}`, query.service && `--service ${word(query.service)}`].filter(Boolean).join(" ");
  command(equal);
  const list = h("div");
  main.append(h("div.head", h("h1", "Tasks"), choice("State", [["", "All"], ...STATES.slice(0, 6).map((each) => [each, each.toLowerCase()])], state, (key) => change({ state: key }, true)), h("span.sp"),
    h("input.field", { type: "search", "aria-label": "name of the task", placeholder: "task", value: query.task ?? "", on: { change: (event) => change({ task: event.target.value.trim() }, true) } })),
    h("section.panel", { "aria-label": "Tasks" }, list));
  let all = [];
  async function page(cursor) {
    try {
      const { json, took_ms } = await ask("api/v1/tasks", { since, state, task: query.task, service: query.service, limit: 100, cursor }, { signal });
      all = [...all, ...(json.tasks ?? [])];
      command(equal, `${many(all.length, "task")} · answered in ${Math.round(took_ms)} ms`);
      const longest = Math.max(1, ...all.map((each) => (each.wait_ms ?? 0) + (each.duration_ms ?? 0)));
      fill(list, all.length ? table("Tasks", COLUMNS, all.map((each) => row(each, longest))) : empty(`No ${state ? `${state.toLowerCase()} ` : ""}task in the last ${since}.`),
        json.next && h("div.pad", button("Older", () => page(json.next))));
    } catch (error) {
      if (error.name === "AbortError") return;
      fill(list, failure(error));
    }
  }
  await page();
}

function row(task, longest) {
  const bad = task.state === "FAILURE" || task.state === "LOST";
  const part = (ms) => `${(Math.min(1, (ms ?? 0) / longest) * 100).toFixed(2)}%`;
  const why = [task.error_type, task.reason].filter(Boolean).join(": ") || (task.redelivered ? "delivered more than once" : "");
  return [
    h("div.row", icon(SHAPE[task.state] ?? "none", task.state.toLowerCase()), h("span.small", task.state)),
    h("div", rowLink(place(["trace", task.id]), h("div.el.b", line(task.name || "(name not known)", 200))), why && h("div.nm.el", h(bad ? "span.err" : "span.t3", line(why, 120)))),
    h("span.mono.t3", { title: task.id }, task.id.slice(0, 8)), h("span.t2", line(task.queue ?? "—", 40)),
    h("div.two", { "aria-hidden": "true" }, h("i.hat", { style: { width: part(task.wait_ms) } }), h("i.ran", { style: { width: part(task.duration_ms) } })),
    h("span.t2", task.wait_ms === undefined ? "—" : duration(task.wait_ms)), task.duration_ms === undefined ? "—" : duration(task.duration_ms), h("span.t2", String((task.retries ?? 0) + 1)),
    h(bad ? "div.el.err" : "div.el.t2", { title: why }, line(why, 200)), when(task.updated_unix_nano),
  ];
}
