// The frame: top bar, router, keys, bottom bar. A view is a module with `show(context)`, loaded when it
// is first opened; everything a view needs comes through the context.
//
// An address is `#/VIEW/ID?key=value`: in the fragment, so that nothing of it reaches a proxy's log.

import { AWAY, Refused } from "./parts/api.js";
import { box } from "./parts/box.js";
import { copying, fill, h, place } from "./parts/dom.js";
import { failure } from "./parts/table.js";
import { line } from "./parts/text.js";

const VIEWS = [
  ["home", "Home", "h"], ["traces", "Traces", "r"], ["errors", "Errors", "e"], ["services", "Services", "s"],
  ["tasks", "Tasks", "t"], ["find", "Logs", "o"], ["live", "Live", "l"],
];
const MODULES = { ...Object.fromEntries(VIEWS.map(([name]) => [name, name])), trace: "trace" };
const RANGES = ["15m", "1h", "6h", "24h", "7d"];
const KEYS = [
  ["/", "the box"], ["g then h r e s t o l", VIEWS.map(([, text]) => text).join(", ")], ["j k, arrows", "next, previous row"],
  ["Enter", "open"], ["← →", "close, open, parent"], ["n p", "next, previous failure"], ["s", "pauses folded or to scale"],
  ["space", "pause the live view"], ["c", "copy the command"], ["y", "copy the link"], ["Esc", "close"], ["?", "this list"],
];

const top = document.getElementById("top");
const main = document.getElementById("main");
const foot = document.getElementById("foot");
const say = (text) => { document.getElementById("say").textContent = line(text, 300); };
const search = box(say);
let current = null;
let pressedG = 0;
let ahead = false;

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** View, id and keys of the address. */
function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [view, ...rest] = path.split("/");
  return { view: view || "home", id: rest.map(decoded).join("/"), query: Object.fromEntries(new URLSearchParams(query)) };
}

/** Change keys of the address; without `push` in place. */
function change(keys, push = false) {
  const { view, id, query } = address();
  const to = place([view === "home" ? "" : view, ...(id ? [id] : [])], { ...query, ...keys });
  if (push) location.hash = to;
  else history.replaceState(null, "", to);
}

function drawTop(view, query) {
  const shown = view === "trace" ? "traces" : view;
  const links = VIEWS.map(([name, text]) => h("a", { href: name === "home" ? "#/" : place([name]), "aria-current": name === shown ? "page" : null }, text));
  const range = h("select", { "aria-label": "Range of time", on: { change: (event) => change({ since: event.target.value }, true) } },
    RANGES.map((each) => h("option", { value: each, selected: each === (query.since ?? "1h") }, `Last ${each.replace(/(\d+)(\w)/, "$1 $2")}`)));
  fill(top, h("a.brand", { href: "#/" }, "otelier"), h("nav.nav", { "aria-label": "Views" }, links), search.element,
    ["trace", "live"].includes(view) ? null : range);
}

/** The equal command, and what the answer was made of. */
function drawFoot(command, note = "") {
  current.command = command;
  fill(foot, h("span.t3", { "aria-hidden": "true" }, "$"), h("code.cmd.mono", { id: "command", "aria-label": "The same on the command line" }, command),
    copying("Copy", () => current.command, { id: "copy-command" }), h("span.sp"), h("span.st", note),
    h("button.key", { type: "button", "aria-label": "Keys", on: { click: keys } }, h("kbd", "?")));
}

/** The module of a view; the others are fetched behind the first, for when the collector is away. */
async function loaded(view) {
  const path = (name) => `./views/${MODULES[name]}.js`;
  try {
    const module = await import(path(view));
    if (!ahead) setTimeout(() => { for (const name of Object.keys(MODULES)) import(path(name)).catch(() => {}); }, 300);
    ahead = true;
    return module;
  } catch (error) {
    if (error instanceof SyntaxError) throw error;
    throw new Refused(0, AWAY, "", 5);
  }
}

async function route() {
  current?.stop.abort();
  current?.close?.();
  const { view, id, query } = address();
  const known = view in MODULES ? view : "home";
  const stop = new AbortController();
  current = { stop, keys: {}, command: "" };
  const mine = current;
  drawTop(known, query);
  main.className = "";
  const title = (text) => { document.title = `${line(text, 120)} · otelier`; };
  title(VIEWS.find(([name]) => name === known)?.[1] ?? known);
  if (known !== view) say(`there is no view ${view}; this is home`);
  main.replaceChildren();
  main.setAttribute("aria-busy", "true");
  try {
    const module = await loaded(known);
    if (mine !== current) return;
    drawFoot("collector --help");
    await module.show({
      main, id, query, signal: stop.signal, change, title, say,
      since: query.since ?? "1h",
      command: (text, note) => { if (mine === current) drawFoot(text, note); },
      keys: (handlers) => { Object.assign(mine.keys, handlers); },
      closing: (close) => { mine.close = close; },
    });
  } catch (error) {
    if (error.name !== "AbortError" && mine === current) fill(main, h("h1", "No answer"), failure(error));
  } finally {
    if (mine === current) main.removeAttribute("aria-busy");
  }
}

function keys() {
  const before = document.activeElement;
  const dialog = h("dialog", { "aria-label": "Keys" }, h("h2", "Keys"),
    h("dl.kv", KEYS.flatMap(([key, text]) => [h("dt", h("kbd", key)), h("dd", text)])),
    h("form", { method: "dialog" }, h("button.btn", "Close")));
  dialog.addEventListener("close", () => { dialog.remove(); before?.focus?.(); });
  document.body.append(dialog);
  dialog.showModal();
}

function step(by) {
  const links = [...main.querySelectorAll("[data-row]")];
  if (!links.length) return false;
  const at = links.indexOf(document.activeElement);
  links[Math.min(links.length - 1, Math.max(0, at < 0 ? 0 : at + by))].focus();
  return true;
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.defaultPrevented) return;
  if (event.target.closest("input, select, textarea, dialog")) return;
  const pressed = event.key;
  if ((pressed === " " || pressed === "Enter") && event.target.closest("button, a, summary")) return;
  if (pressedG && performance.now() - pressedG < 1500) {
    pressedG = 0;
    const found = VIEWS.find(([, , key]) => key === pressed);
    if (found) {
      event.preventDefault();
      location.hash = found[0] === "home" ? "#/" : place([found[0]]);
      return;
    }
  }
  const own = current?.keys[pressed];
  if (own) {
    if (own(event) !== false) event.preventDefault();
    return;
  }
  if (pressed === "/") search.focus();
  else if (pressed === "?") keys();
  else if (pressed === "g") pressedG = performance.now();
  else if (pressed === "j" || pressed === "ArrowDown") { if (!step(1)) return; }
  else if (pressed === "k" || pressed === "ArrowUp") { if (!step(-1)) return; }
  else if (pressed === "c") document.getElementById("copy-command")?.click();
  else if (pressed === "y") navigator.clipboard?.writeText(location.href).then(() => say("link copied"), () => say("the browser did not allow to copy"));
  else return;
  event.preventDefault();
});

addEventListener("hashchange", route);
route();
