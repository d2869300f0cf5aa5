// Runs the model, away from the page, which stays responsive. One message in, one message out.

import * as ort from "./runtime/ort.wasm.min.mjs";

let session;
let model;

const tasks = {
  /** Make a session from the bytes of an augmented model; `about` is its entry in models.json. */
  async load({ bytes, about, threads }) {
    ort.env.wasm.wasmPaths = new URL("./runtime/", import.meta.url).href;
    ort.env.wasm.numThreads = threads;
    model = about;
    session = await ort.InferenceSession.create(new Uint8Array(bytes), {
      executionProviders: ["wasm"],
      logSeverityLevel: 3,
    });
    return {};
  },

  /** The probability of every class. */
  async predict({ input }) {
    const { [model.output]: scores } = await run(input, { explain: false });
    return { probabilities: softmax(scores.data) };
  },

  /** What each value of the input contributes to the probability of class `target`. */
  async explain({ input, target, baseline }) {
    const results = await run(input, { explain: true, target, baseline });
    return {
      attribution: results[`attribution_${model.input}`].data,
      delta: results.completeness_delta.data[0],
    };
  },
};

function run(input, { explain, target = -1, baseline = model.baselines[0].values }) {
  const channels = model.shape.map((size, axis) => (axis === 1 ? baseline.length : 1));
  return session.run({
    [model.input]: new ort.Tensor("float32", input, model.shape),
    target: new ort.Tensor("int64", [BigInt(target)], [1]),
    baseline: new ort.Tensor("float32", Float32Array.from(baseline), channels),
    explain: new ort.Tensor("bool", [explain], [1]),
  });
}

function softmax(scores) {
  const largest = scores.reduce((a, b) => Math.max(a, b));
  const powers = Float64Array.from(scores, (score) => Math.exp(score - largest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

self.onmessage = async ({ data: { id, task, ...details } }) => {
  try {
    const began = performance.now();
    const result = await tasks[task](details);
    self.postMessage({ id, result: { ...result, milliseconds: performance.now() - began } });
  } catch (error) {
    self.postMessage({ id, error: error?.message ?? String(error) });
  }
};
