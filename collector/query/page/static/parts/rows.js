// A list of any length of which only the visible rows are elements.
//
// The scroll container has a spacer of `count × height`; about as many row elements as fit on the
// screen are reused and moved by `transform`. Focus stays on the container, which names the selected
// row with `aria-activedescendant`: a row that is scrolled away cannot take the focus with it.

import { h } from "./dom.js";

const SPARE = 8;
let made = 0;

export class Rows {
  /**
   * @param {object} options
   * @param {number} options.height of a row in pixels
   * @param {(row: HTMLElement, index: number) => void} options.draw fills a row element
   * @param {(index: number) => void} [options.pick] a row was clicked
   * @param {string} options.role of the container; its rows get `rowRole`
   */
  constructor({ height, draw, pick, role, rowRole, label }) {
    this.height = height;
    this.draw = draw;
    this.count = 0;
    this.selected = -1;
    this.rowRole = rowRole;
    this.id = `rows${++made}`;
    this.spacer = h("div.spacer", { role: "presentation" });
    this.element = h("div.rows", { role, "aria-label": label, tabindex: "0" }, this.spacer);
    this.pool = [];
    this.element.addEventListener("scroll", () => this.later(), { passive: true });
    this.element.addEventListener("click", (event) => {
      const row = event.target.closest("[data-index]");
      if (row && pick) pick(Number(row.dataset.index), event);
    });
    this.observer = new ResizeObserver(() => this.later());
    this.observer.observe(this.element);
  }

  /** Draw everything that is visible again, for so many rows. */
  reset(count) {
    this.count = count;
    this.spacer.style.setProperty("height", `${count * this.height}px`);
    for (const row of this.pool) row.dataset.index = "";
    this.later();
  }

  later() {
    this.waiting ??= requestAnimationFrame(() => {
      this.waiting = null;
      this.paint();
    });
  }

  paint() {
    const top = this.element.scrollTop;
    const first = Math.max(0, Math.floor(top / this.height) - SPARE);
    const last = Math.min(this.count, Math.ceil((top + this.element.clientHeight) / this.height) + SPARE);
    while (this.pool.length < last - first) {
      const row = h("div.r", { role: this.rowRole });
      this.pool.push(row);
      this.element.append(row);
    }
    // A row keeps its element while it stays visible: index modulo the number of elements.
    const size = this.pool.length;
    for (let slot = 0; slot < size; slot++) {
      const index = first + ((slot - (first % size) + size) % size);
      const row = this.pool[slot];
      const shown = index < last;
      row.hidden = !shown;
      if (!shown) {
        row.dataset.index = "";
        continue;
      }
      if (row.dataset.index !== String(index)) {
        row.dataset.index = String(index);
        row.id = `${this.id}-${index}`;
        row.style.setProperty("transform", `translateY(${index * this.height}px)`);
        this.draw(row, index);
      }
      row.classList.toggle("sel", index === this.selected);
      row.setAttribute("aria-selected", String(index === this.selected));
    }
    if (this.selected >= 0) this.element.setAttribute("aria-activedescendant", `${this.id}-${this.selected}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  /** Select a row and bring it into sight; `third` puts it into the upper third. */
  select(index, third = false) {
    this.selected = index;
    const top = index * this.height;
    const space = this.element.clientHeight;
    if (third) this.element.scrollTop = Math.max(0, top - space / 3);
    else if (top < this.element.scrollTop) this.element.scrollTop = top;
    else if (top + this.height > this.element.scrollTop + space) this.element.scrollTop = top + this.height - space;
    this.paint();
  }

  /** Stop observing; the element may go. */
  close() {
    this.observer.disconnect();
    cancelAnimationFrame(this.waiting);
  }
}
