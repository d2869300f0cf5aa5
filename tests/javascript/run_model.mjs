// Runs a model by onnxruntime-node: node run_model.mjs MODEL FEEDS.json > RESULTS.json
// Each tensor is { type, dims, data }.

import { readFileSync } from "node:fs";
import { argv, stdout } from "node:process";
import ort from "onnxruntime-node";

const [model, feeds] = argv.slice(2);
const session = await ort.InferenceSession.create(model, { logSeverityLevel: 3 });
const tensors = Object.entries(JSON.parse(readFileSync(feeds, "utf8"))).map(
  ([name, { type, dims, data }]) => {
    return [name, new ort.Tensor(type, type === "int64" ? data.map(BigInt) : data, dims)];
  },
);
const results = Object.entries(await session.run(Object.fromEntries(tensors))).map(
  ([name, { type, dims, data }]) => {
    return [name, { type, dims, data: Array.from(data, Number) }];
  },
);
stdout.write(JSON.stringify({ inputs: session.inputNames, results: Object.fromEntries(results) }));
