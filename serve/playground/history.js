// The questions that were asked about this clip, newest first. A click shows an answer again.
import { element, find, show, took } from "./dom.js";

const KEPT = 50; // with their heat maps, 256 frames each at most, a few megabytes

export class History {
  #list = find("#history ol");
  #entries = [];

  /** `onShow(entry)`: the visitor wants to see this one again. */
  constructor(onShow) {
    this.onShow = onShow;
  }

  /** Adds {question, answer, explanation, wall} and marks it as the one that is shown. */
  add(entry) {
    this.#entries = [entry, ...this.#entries].slice(0, KEPT);
    this.mark(entry);
  }

  /** Another clip. */
  clear() {
    this.#entries = [];
    this.mark(null);
  }

  /** Marks the entry that is shown; null: none. */
  mark(shown) {
    show(find("#history"), this.#entries.length > 0);
    const focused = this.#list.contains(document.activeElement);
    this.#list.replaceChildren(...this.#entries.map((entry) => this.#item(entry, entry === shown)));
    if (focused) this.#list.querySelector("[aria-current]")?.focus();
  }

  #item(entry, current) {
    const { question, answer, wall } = entry;
    const reply = answer.choice ? `${answer.choice.letter} · ${answer.choice.text}` : answer.text;
    const button = element(
      "button",
      { type: "button", className: "plain", "aria-current": current ? "true" : null },
      element("span", { className: "asked" }, question.question),
      element("span", { className: "reply" }, reply),
      element("span", { className: "number" }, took(wall)),
    );
    button.addEventListener("click", () => this.onShow(entry));
    return element("li", {}, button);
  }
}
