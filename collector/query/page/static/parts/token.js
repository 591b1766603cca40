// The token: asked for once, kept for this tab only, sent as a header by `api.js`.

import { h } from "./dom.js";

const KEY = "otelier.token";
let asking = null;

function get() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** Wait until the reader gave a token other than the one that was refused. */
function ask(refused) {
  if (get() !== refused) return Promise.resolve();
  asking ??= new Promise((resolve) => {
    const before = document.activeElement;
    const input = h("input", { type: "password", id: "token", autocomplete: "off", required: true, "aria-label": "Token", "aria-describedby": "token-why" });
    const said = refused ? "This token was refused. Another one:" : "This collector answers only with its token (`query.token`).";
    const form = h("form", { method: "dialog" },
      h("h2", "Token"),
      h("p.t2", { id: "token-why" }, said),
      h("div.row", input, h("button.btn.pri", { type: "submit" }, "Use")),
      h("p.t3", "Kept in this tab only and sent as a header."));
    const dialog = h("dialog", { "aria-label": "Token" }, form);
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!/^[\x21-\x7e]+$/.test(input.value)) {
        input.setCustomValidity("a token has visible ASCII characters only");
        input.reportValidity();
        input.setCustomValidity("");
        return;
      }
      sessionStorage.setItem(KEY, input.value);
      dialog.close();
      dialog.remove();
      asking = null;
      before?.focus?.();
      resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
  return asking;
}

export const token = { get, ask };
