/** The exported network, run by onnxruntime in this browser. */

import * as onnxruntime from "../vendor/onnxruntime.js";

/** Returns a network that is ready to answer, from the bytes of its file and of onnxruntime's program. */
export async function openNetwork(model, program) {
  onnxruntime.env.wasm.wasmBinary = program;
  // several threads would need headers that not every web server sends
  onnxruntime.env.wasm.numThreads = 1;
  onnxruntime.env.logLevel = "error";
  return onnxruntime.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
}

/**
 * Returns what the network says of one grey square: the probability of each class, the logits, and what speaks for
 * each class where, class by class: {values, rows, columns}. `distance` is that from the training images in the
 * network's features, null from a network that does not tell it.
 */
export async function answer(network, square) {
  const images = new onnxruntime.Tensor("uint8", square.grey, [1, square.height, square.width]);
  const outputs = await network.run({ images });
  const [rows, columns] = outputs.evidence.dims.slice(2);
  return {
    probability: Array.from(outputs.probability.data),
    logits: Array.from(outputs.logits.data),
    distance: outputs.distance ? outputs.distance.data[0] : null,
    evidence: { values: outputs.evidence.data.slice(), rows, columns },
  };
}
