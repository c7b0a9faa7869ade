// The question, its options and how to answer it.
import { element, find, show } from "./dom.js";

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

export class Form {
  #form = find("#form");
  #question = find("#question");
  #rows = find("#options ol");
  #add = find("#add-option");

  /** `onAsk()` is called for the button, Enter, and Ctrl or Cmd with Enter. */
  constructor(onAsk) {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      onAsk();
    });
    this.#form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing || event.shiftKey) return;
      if (event.target === this.#question || event.ctrlKey || event.metaKey) {
        event.preventDefault();
        onAsk();
      }
    });
    this.#form.addEventListener("input", (event) => event.target.removeAttribute("aria-invalid"));
    this.#add.addEventListener("click", () => this.#addRow("").focus());
  }

  fill(question, options) {
    this.#question.value = question;
    this.#rows.replaceChildren();
    options.forEach((text) => this.#addRow(text));
    this.#number();
  }

  /** The request without its video. Empty rows go: an option's letter is that of its row. */
  read() {
    for (const row of [...this.#rows.children]) {
      if (row.querySelector("input").value.trim() === "") row.remove();
    }
    this.#number();
    const { frames, geometry, max_tokens: tokens } = this.#form.elements;
    return {
      question: this.#question.value.trim(),
      options: this.#inputs().map((input) => input.value.trim()),
      geometry: geometry.value,
      ...(frames.value === "" ? {} : { frames: Number(frames.value) }),
      ...(tokens.value === "" ? {} : { max_tokens: Number(tokens.value) }),
    };
  }

  /** Marks the control that a problem's `field` names: "question", "options", "options.1", "frames", … */
  mark(field) {
    this.unmark();
    const [name, index] = (field ?? "").split(".");
    const named = name === "options" ? this.#inputs()[Number(index ?? 0)] : this.#form.elements[name];
    if (!(named instanceof HTMLElement) || named instanceof HTMLFieldSetElement) return;
    if (named.closest("details")) named.closest("details").open = true;
    named.setAttribute("aria-invalid", "true");
    named.setAttribute("aria-describedby", "problem");
  }

  unmark() {
    for (const marked of this.#form.querySelectorAll("[aria-invalid]")) {
      marked.removeAttribute("aria-invalid");
      marked.removeAttribute("aria-describedby");
    }
  }

  /** The model has no selector: asking for geometry would be an error. */
  withoutGeometry() {
    const { geometry } = this.#form.elements;
    geometry.value = "off";
    geometry.disabled = true;
  }

  busy(running) {
    find("#submit").setAttribute("aria-disabled", String(running));
    show(find("#cancel"), running);
  }

  #inputs() {
    return [...this.#rows.querySelectorAll("input")];
  }

  #addRow(text) {
    const input = element("input", { type: "text", value: text, autocomplete: "off" });
    const remove = element("button", { type: "button", className: "icon plain" }, "×");
    const row = element("li", {}, element("b", { "aria-hidden": "true" }), input, remove);
    remove.addEventListener("click", () => {
      const next = (row.nextElementSibling ?? row.previousElementSibling)?.querySelector("input") ?? this.#add;
      row.remove();
      this.#number();
      next.focus();
    });
    this.#rows.append(row);
    this.#number();
    return input;
  }

  /** Letters follow the order of the rows. */
  #number() {
    [...this.#rows.children].forEach((row, index) => {
      row.querySelector("b").textContent = LETTERS[index];
      row.querySelector("input").setAttribute("aria-label", `Option ${LETTERS[index]}`);
      row.querySelector("button").setAttribute("aria-label", `Remove option ${LETTERS[index]}`);
    });
    show(this.#add, this.#rows.children.length < LETTERS.length);
  }
}
