// The few things that every part of the page does with elements. Text only ever becomes a text node, never markup.

export const find = (selector) => document.querySelector(selector);

/** An element with properties (`class` and `aria-*` and `data-*` as attributes) and children: elements or text. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key in made) made[key] = value;
    else made.setAttribute(key === "className" ? "class" : key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** Shows or hides an element. */
export function show(target, shown) {
  target.hidden = !shown;
}

// Numbers stay on one line with their units.

/** "0.4 s": for places in the clip. */
export const seconds = (value) => `${value.toFixed(1)}\u00a0s`;

/** "43 ms" below a second, "1.24 s" above: for how long something took. */
export const took = (value) => (value < 0.9995 ? `${Math.round(value * 1000)}\u00a0ms` : `${value.toFixed(2)}\u00a0s`);

/** "7.3 %" of a share between 0 and 1. */
export const percent = (share) => `${(share * 100).toFixed(1)}\u00a0%`;

/** The same as a length of CSS. */
export const length = (share) => `${share * 100}%`;

/** "151 kB" or "2.4 MB". */
export const bytes = (count) => (count < 1e6 ? `${Math.ceil(count / 1e3)}\u00a0kB` : `${(count / 1e6).toFixed(1)}\u00a0MB`);
