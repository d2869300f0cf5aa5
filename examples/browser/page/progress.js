// What the page is waiting for, and about how long still.

const at = (id) => document.getElementById(id);
const GRADIENT = 3.5; // what a point of the path costs, in predictions, as long as nothing better is known

export class Progress {
  constructor() {
    this.timer = 0;
    this.running = false; // whether it is an explanation that runs
  }

  /** Fetch a file, showing how much of it is here; returns its bytes. */
  async download(url, text) {
    this.show(text);
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
    const size = Number(response.headers.get("Content-Length"));
    const parts = [];
    let received = 0;
    for (const reader = response.body.getReader(); ;) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      received += value.length;
      if (size) at("progress").value = Math.min(received / size, 1);
      at("elapsed").value = `${(received / 1e6).toFixed(1)} MB`;
    }
    return new Blob(parts).arrayBuffer();
  }

  /** Wait for something short. */
  wait(text) {
    this.show(text);
    at("progress").removeAttribute("value");
  }

  /** Wait for an explanation: as long as the last one took, or else as a prediction suggests. */
  expect(text, about, predicting, threads) {
    this.show(text);
    this.running = true;
    at("stop").hidden = false;
    this.key = `milliseconds ${about.id} ${about.steps} ${threads}`;
    this.began = performance.now();
    const expected = recall(this.key) ?? predicting * GRADIENT * (about.steps + 1);
    const tick = () => {
      const elapsed = performance.now() - this.began;
      // It slows down where it takes longer than expected, and never claims to be done.
      at("progress").value = 1 - Math.exp((-1.6 * elapsed) / expected);
      at("elapsed").value =
        `${Math.round(elapsed / 1000)} s of about ${Math.max(1, Math.round(expected / 1000))} s`;
    };
    tick();
    this.timer = setInterval(tick, 200);
  }

  done(milliseconds) {
    remember(this.key, milliseconds);
    this.hide();
  }

  show(text) {
    this.hide();
    at("busy-text").textContent = text;
    at("elapsed").value = "";
    at("progress").value = 0;
    at("stop").hidden = true;
    at("busy").hidden = false;
    at("stage").setAttribute("aria-busy", "true");
  }

  hide() {
    clearInterval(this.timer);
    this.running = false;
    at("busy").hidden = true;
    at("stage").removeAttribute("aria-busy");
  }
}

function recall(key) {
  try {
    return Number(localStorage.getItem(key)) || null;
  } catch {
    return null; // storage is switched off
  }
}

function remember(key, milliseconds) {
  try {
    localStorage.setItem(key, String(milliseconds));
  } catch {
    // storage is switched off: the next estimate is as rough as this one was
  }
}
