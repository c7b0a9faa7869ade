// The service's HTTP API. Paths are relative to the page, so that a prefix in front of the service changes nothing.
import { events } from "./events.js";

/** What the service says went wrong (RFC 9457). `problem` has title, detail, field, value, limit and request_id. */
export class Problem extends Error {
  constructor(problem, retryAfter = null) {
    super(problem.detail ?? problem.title);
    this.problem = problem;
    this.retryAfter = retryAfter;
  }
}

/** True for what `AbortController.abort()` makes of a request. */
export const aborted = (error) => error.name === "AbortError";

export class Service {
  #key = null; // never stored anywhere else

  useKey(key) {
    this.#key = key;
  }

  #headers(more = {}) {
    return this.#key ? { Authorization: `Bearer ${this.#key}`, ...more } : more;
  }

  /** {status, model, stages}, or a Problem with status 503 while the service starts. */
  async ready() {
    return (await this.#fetch("readyz", {})).json();
  }

  /** Posts a file; `onProgress(share)` is called between 0 and 1. The stored video's id and facts. */
  upload(file, onProgress, signal) {
    // fetch tells nothing of how much has been sent.
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const form = new FormData();
      form.append("video", file, file.name);
      request.open("POST", "v1/videos");
      for (const [name, value] of Object.entries(this.#headers())) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
      request.onload = () => {
        const body = parsed(request.responseText);
        if (request.status < 300 && body) resolve(body);
        else reject(problemOf(request.status, body, request.getResponseHeader("Retry-After")));
      };
      request.onerror = () => reject(unreachable());
      request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
      signal.addEventListener("abort", () => request.abort());
      if (signal.aborted) request.onabort();
      else request.send(form);
    });
  }

  /** Asks with `stream`; `onToken(text)` gets each piece. The whole answer at the end. */
  async answer(question, onToken, signal) {
    const response = await this.#fetch("v1/answers", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ ...question, stream: true }),
      signal,
    });
    for await (const [event, data] of events(response.body)) {
      if (event === "token") onToken(JSON.parse(data).text);
      if (event === "answer") return JSON.parse(data);
      if (event === "error") throw new Problem(JSON.parse(data));
    }
    throw new Problem({ title: "No answer", detail: "the stream ended before the answer was complete" });
  }

  /** A clip's cameras and points: the JSON of `POST /v1/reconstructions`. */
  async reconstruct(asked, signal) {
    return (await this.#reconstruction(asked, signal)).json();
  }

  /** The same as a Blob, with `format` "ply" or "glb". */
  async sceneFile(asked, signal) {
    return (await this.#reconstruction(asked, signal)).blob();
  }

  #reconstruction(asked, signal) {
    const headers = { "Content-Type": "application/json" };
    return this.#fetch("v1/reconstructions", { method: "POST", headers, body: JSON.stringify(asked), signal });
  }

  /** A response with a status below 300; anything else is a Problem. */
  async #fetch(path, options) {
    let response;
    try {
      response = await fetch(path, { ...options, headers: this.#headers(options.headers) });
    } catch (error) {
      throw aborted(error) ? error : unreachable();
    }
    if (response.ok) return response;
    throw problemOf(response.status, parsed(await response.text()), response.headers.get("Retry-After"));
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // a proxy's page of HTML
  }
}

function problemOf(status, body, retryAfter) {
  const own = { title: `HTTP ${status}`, detail: "the answer is not the service's own", status };
  return new Problem(body?.title ? { status, ...body } : own, retryAfter);
}

function unreachable() {
  return new Problem({ title: "No connection", detail: "the service cannot be reached" });
}
