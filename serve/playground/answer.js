// The answer while it is written and when it is there, or what went wrong.
import { element, find, length, percent, show, took } from "./dom.js";

const FACTS = ["field", "value", "limit", "request_id"];

export class AnswerView {
  #reply = find("#reply");
  #problem = find("#problem");
  #bars = find("#bars");
  #note = find("#note");

  /** A question is under way. */
  begin(question) {
    this.clear();
    find("#asked").textContent = question.question;
    this.#reply.setAttribute("aria-busy", "true"); // read out once it is whole, not word by word
    this.#reply.classList.add("writing");
  }

  /** What is being waited for. */
  wait(text) {
    this.#note.textContent = text;
  }

  token(text) {
    if (!this.#reply.firstChild) this.#reply.append(element("p", { className: "text" }));
    this.#reply.firstChild.append(text);
    this.#note.textContent = "";
  }

  /** The whole answer to `question`; `wall` seconds after it was asked. */
  finish(question, answer, wall) {
    this.clear();
    find("#asked").textContent = question.question;
    const { choice, text } = answer;
    this.#reply.replaceChildren(
      choice
        ? element("p", { className: "choice" }, element("b", {}, choice.letter), element("span", {}, choice.text))
        : element("p", { className: "text" }, text || "(an empty answer)"),
    );
    this.#bars.replaceChildren(...this.#probabilities(question, answer));
    const looked = answer.explanation ? "" : " · without geometry, so there is no map of what it looked at";
    this.#note.textContent = `${answer.model} · ${took(wall)}${looked}`;
  }

  /** A Problem in the service's words. */
  fail({ problem, retryAfter }, onRetry) {
    this.clear();
    const facts = FACTS.filter((name) => problem[name] !== null && problem[name] !== undefined).flatMap((name) => [
      element("dt", {}, name.replace("_", " ")),
      element("dd", {}, String(problem[name])),
    ]);
    const retry = element("button", { type: "button" }, "Try again");
    retry.addEventListener("click", onRetry);
    this.#problem.replaceChildren(
      element("h3", {}, problem.title),
      element("p", {}, problem.detail ?? ""),
      element("dl", {}, ...facts),
      element("p", { className: "row" }, retry, retryAfter ? `better in ${retryAfter} s` : null),
    );
  }

  clear() {
    this.#reply.classList.remove("writing");
    this.#reply.setAttribute("aria-busy", "false");
    for (const part of [this.#reply, this.#problem, this.#bars, this.#note, find("#asked")]) part.replaceChildren();
  }

  askForKey(needed) {
    show(find("#key"), needed);
    if (needed) find("#key-input").focus();
  }

  #probabilities({ options }, { probabilities, choice }) {
    return Object.entries(probabilities ?? {}).map(([letter, probability], index) => {
      const bar = element("i");
      bar.style.width = length(probability);
      return element(
        "div",
        { className: letter === choice?.letter ? "option chosen" : "option" },
        element("b", {}, letter),
        element("span", { className: "label" }, options[index] ?? ""),
        element("span", { className: "share" }, percent(probability)),
        element("span", { className: "track", "aria-hidden": "true" }, bar),
      );
    });
  }
}
