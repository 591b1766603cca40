// Elements out of names and text. There is no way from a string to markup here: strings become text
// nodes, attributes are set by name, handlers are functions, styles go through the CSSOM.

import { clean } from "./text.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: `h("div.row.t2", {title: "…"}, "text", child)`.
 *
 * Options: `on` ({click: fn}), `style` ({"--x": "1"}), `most` (characters of its text), and attributes.
 * `href` is kept only when it stays on this page.
 */
export function h(name, ...rest) {
  const [tag, ...classes] = name.split(".");
  const made = document.createElement(tag || "div");
  if (classes.length) made.className = classes.join(" ");
  const options = plain(rest[0]) ? rest.shift() : {};
  const { on = {}, style = {}, most, ...attributes } = options;
  for (const [event, handler] of Object.entries(on)) made.addEventListener(event, handler);
  for (const [property, value] of Object.entries(style)) made.style.setProperty(property, value);
  for (const [key, value] of Object.entries(attributes)) set(made, key, value);
  return add(made, rest, most);
}

/** Put children into an element; strings and numbers become text nodes, empty ones nothing. */
export function add(parent, children, most) {
  for (const child of children.flat(9)) {
    if (child === null || child === undefined || child === false || child === "") continue;
    parent.append(child instanceof Node ? child : document.createTextNode(clean(child, most)));
  }
  return parent;
}

/** Set an attribute; false and null take it away. */
export function set(element, key, value) {
  if (/^on/i.test(key) || key === "style" || key === "srcdoc") throw new Error(`no attribute ${key}`);
  if (key === "href" && !String(value).startsWith("#")) throw new Error("links stay on this page");
  if (value === false || value === null || value === undefined) element.removeAttribute(key);
  else element.setAttribute(key, value === true ? "" : clean(value, 500));
}

function plain(value) {
  return value !== null && typeof value === "object" && Object.getPrototypeOf(value) === Object.prototype;
}

/** Replace what an element holds. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  return add(parent, children);
}

// Shapes: [filled path, stroked path, colour, word]. The shape is the first cue, colour the second.
const SHAPES = {
  fail: ["M2 2h10v10H2z", "M4.6 4.6l4.8 4.8M9.4 4.6l-4.8 4.8", "err", "failed"],
  warn: ["M7 1.6 13 12.4H1z", "M7 5.4v3.2M7 10.2v.6", "warn", "warning"],
  ok: ["M7 1.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11z", "M4.4 7.2l1.9 1.9 3.4-3.9", "ok", "ok"],
  run: ["", "M7 1.8a5.2 5.2 0 1 1-5.2 5.2", "accent", "running"],
  lost: ["M7 1 13 7 7 13 1 7z", "M5.6 5.6a1.5 1.5 0 1 1 2 1.6c-.5.2-.6.5-.6.9M7 9.8v.4", "err", "lost"],
  retry: ["", "M11.5 7A4.5 4.5 0 1 1 10 3.6M10.4 1.4v2.6H7.8", "warn", "retry"],
  wait: ["", "M3.5 2h7M3.5 12h7M4 2c0 3 6 7 6 10M10 2c0 3-6 7-6 10", "text-3", "waiting"],
  none: ["M7 4.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5z", "", "bar", "no status"],
};

/** A status shape with its word. */
export function icon(kind, word) {
  const [filled, stroked, colour, label] = SHAPES[kind];
  const made = document.createElementNS(SVG, "svg");
  made.setAttribute("class", `i i-${colour}`);
  made.setAttribute("viewBox", "0 0 14 14");
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", word ?? label);
  for (const [path, kindOf] of [[filled, "fill"], [stroked, filled ? "cut" : "stroke"]]) {
    if (!path) continue;
    const part = document.createElementNS(SVG, "path");
    part.setAttribute("d", path);
    part.setAttribute("class", kindOf);
    made.append(part);
  }
  return made;
}

/** A link to a place on this page, its parts encoded. */
export function place(parts, query = {}) {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== "" && value !== null);
  const tail = pairs.length ? `?${new URLSearchParams(pairs)}` : "";
  return `#/${parts.map((part) => encodeURIComponent(part)).join("/")}${tail}`;
}

/** Buttons of which one is pressed. */
export function choice(label, options, chosen, choose) {
  return h("div.seg", { role: "group", "aria-label": label }, options.map(([key, text]) =>
    h("button", { type: "button", "aria-pressed": String(key === chosen), on: { click: () => choose(key) } }, text)));
}

/** A small button. */
export function button(text, click, options = {}) {
  return h("button.btn.sm", { type: "button", on: { click }, ...options }, text);
}

/** Copy a text, or what a function gives (also later), and say so on the button. */
export function copying(text, what, options = {}) {
  const made = button(text, async () => {
    const old = made.textContent;
    try {
      await navigator.clipboard.writeText(await (typeof what === "function" ? what() : what));
      made.textContent = "copied";
    } catch {
      made.textContent = "could not be copied";
    }
    setTimeout(() => { made.textContent = old; }, 1500);
  }, options);
  return made;
}
