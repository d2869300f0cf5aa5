// The page's side of the worker. ONNX Runtime cannot be interrupted: to stop it, its worker is ended and made anew.

export class Stopped extends Error {}

export class Client {
  constructor(about, bytes) {
    Object.assign(this, { about, bytes, waiting: new Map(), count: 0 });
    // Threads need shared memory, which browsers give only to isolated pages (see isolation.js).
    this.threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 8) : 1;
    this.start();
  }

  start() {
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data: { id, result, error } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (error === undefined) resolve(result);
      else reject(new Error(error));
    };
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.refuse(new Error(event.message || "the model's worker could not be started"));
    };
    this.ready = this.send("load", { bytes: this.bytes, about: this.about, threads: this.threads });
    this.ready.catch(() => {}); // whoever awaits it is told
  }

  /** End what is running; whoever waits for it gets `Stopped`. */
  stop() {
    this.close();
    this.start();
  }

  close() {
    this.worker.terminate();
    this.refuse(new Stopped());
  }

  refuse(reason) {
    for (const { reject } of this.waiting.values()) reject(reason);
    this.waiting.clear();
  }

  async predict(input) {
    await this.ready;
    return this.send("predict", { input });
  }

  async explain(input, target, baseline) {
    await this.ready;
    return this.send("explain", { input, target, baseline });
  }

  send(task, details) {
    const id = this.count++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, task, ...details });
    });
  }
}
