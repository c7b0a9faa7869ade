// Files from outside: chosen with the button, with a click on the empty stage, or dropped anywhere on the page.
import { find, show } from "./dom.js";

/** Calls `onFile(file)` for each file that the visitor brings. */
export function listenForFiles(onFile) {
  const input = find("#file");
  find("#choose").addEventListener("click", () => input.click());
  find("#invitation").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    if (input.files.length) onFile(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });

  let depth = 0; // enter and leave come for every element on the way
  const onFiles = (kind, act) =>
    addEventListener(kind, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return; // text from elsewhere
      event.preventDefault();
      act(event.dataTransfer.files);
      show(find("#drop"), depth > 0);
    });
  onFiles("dragenter", () => (depth += 1));
  onFiles("dragleave", () => (depth -= 1));
  onFiles("dragover", () => null); // a page that does not say so gets no drop
  onFiles("drop", (files) => {
    depth = 0;
    if (files.length) onFile(files[0]);
  });
}
