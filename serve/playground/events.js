// Server-sent events out of a response body: what `EventSource` does, which cannot POST.

/**
 * Collects text in pieces of any size and calls `emit(event, data)` for each complete event.
 *
 * Lines end with LF, CR LF or CR; `data` lines are joined by LF; comments and other fields are passed over; an event
 * without data, or one that the end of the stream cuts off, is none.
 */
export class EventParser {
  #rest = "";
  #event = "";
  #data = [];

  constructor(emit) {
    this.emit = emit;
  }

  push(text) {
    this.#rest += text;
    for (;;) {
      const end = this.#rest.search(/[\r\n]/);
      // A CR at the very end may be half of a CR LF.
      if (end < 0 || (this.#rest[end] === "\r" && end + 1 === this.#rest.length)) return;
      const width = this.#rest.startsWith("\r\n", end) ? 2 : 1;
      const line = this.#rest.slice(0, end);
      this.#rest = this.#rest.slice(end + width);
      this.#take(line);
    }
  }

  #take(line) {
    if (line === "") {
      if (this.#data.length) this.emit(this.#event || "message", this.#data.join("\n"));
      this.#event = "";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.#event = value;
    if (field === "data") this.#data.push(value);
  }
}

/** Yields [event, data] of a streamed body. A character split over two chunks stays one character. */
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const ready = [];
  const parser = new EventParser((event, data) => ready.push([event, data]));
  try {
    for (;;) {
      const { done, value } = await reader.read();
      parser.push(done ? decoder.decode() : decoder.decode(value, { stream: true }));
      yield* ready.splice(0);
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => null); // of a stream that broke there is nothing left to cancel
  }
}
