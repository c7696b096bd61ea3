/** The worker that reads radiographs, started again where an image breaks it. */

import { Mistake } from "./mistake.js";

const PATIENCE = 120_000; // milliseconds for one image

/** Reads radiographs one after the other. */
export class Reader {
  #material;
  #worker = null;
  #jobs = new Map();
  #number = 0;
  #ready;

  /** Begins with `material`: {page, model, onnxruntime, programs}. */
  constructor(material) {
    this.#material = material;
    this.#start();
  }

  /** Is kept once the network can answer; broken with a Mistake if it cannot. */
  get ready() {
    return this.#ready;
  }

  #start() {
    // a worker of a blob is bound by what binds this page, which one that is loaded by its address is not
    const address = new URL("worker.js", import.meta.url).href;
    const source = URL.createObjectURL(new Blob([`import ${JSON.stringify(address)};`], { type: "text/javascript" }));
    const worker = new Worker(source, { type: "module" });
    this.#worker = worker;
    let opened = false;
    this.#ready = new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => {
        if (data.started) {
          URL.revokeObjectURL(source);
          worker.postMessage({ open: this.#material });
        } else if (data.ready) {
          opened = true;
          resolve();
        } else if (data.broken) reject(new Mistake(`This browser cannot run the network (${data.broken}).`));
        else this.#settle(data);
      };
      worker.onerror = (event) => {
        event.preventDefault();
        reject(new Mistake(`This browser cannot run the network (${event.message ?? "no reason given"}).`));
        // one that could not be opened, as without a connection to its program, cannot the next time either
        if (opened) this.#restart((name) => `${name} took more memory than this browser gives`);
      };
    });
    this.#ready.catch(() => {});
  }

  #settle({ job, found, mistake }) {
    const waiting = this.#jobs.get(job);
    if (!waiting) return;
    this.#jobs.delete(job);
    clearTimeout(waiting.timer);
    if (mistake) waiting.reject(new Mistake(mistake));
    else waiting.resolve(found);
  }

  #restart(told) {
    this.#worker.terminate();
    for (const [job, { name }] of [...this.#jobs]) this.#settle({ job, mistake: told(name) });
    this.#start();
  }

  /** Returns what became of a file of that name; throws a Mistake. Ask for one file at a time. */
  async read(bytes, name) {
    await this.#ready;
    const job = (this.#number += 1);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#restart((file) => `${file} took longer than two minutes to read`), PATIENCE);
      this.#jobs.set(job, { resolve, reject, name, timer });
      this.#worker.postMessage({ job, bytes, name }, [bytes.buffer]);
    });
  }
}
