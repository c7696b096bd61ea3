/** Reads radiographs and runs the network beside the page, so that the page never stands still. */

import { takePrograms } from "./codecs.js";
import { decode, forSquare } from "./decoding.js";
import { Mistake } from "./mistake.js";
import { answer, openNetwork } from "./network.js";
import { distanceRemarks, remarksOf } from "./quality.js";
import { resized, toSquare } from "./resampling.js";

const PREVIEW = 1000; // pixels of the longer side

let opened = null;

/** Returns what became of one file: its answer, its remarks and a small picture of it. */
async function read({ bytes, name }) {
  const { page, network } = await opened;
  const image = await decode(bytes, name, page.limits);
  const source = forSquare(image, page.size, page.resize);
  const square = toSquare(source, page.size, page.resize, page.interpolation, image);
  const scale = Math.min(1, PREVIEW / Math.max(image.width, image.height));
  const sides = [image.width, image.height].map((side) => Math.max(1, Math.round(side * scale)));
  const answered = await answer(network, square);
  return {
    ...answered,
    remarks: [...distanceRemarks(answered.distance, page.feature_limit), ...remarksOf(image, page)],
    width: image.width,
    height: image.height,
    preview: resized(image, ...sides),
  };
}

async function obey({ data }) {
  if (data.open) {
    const { page, model, onnxruntime, programs } = data.open;
    takePrograms(programs);
    opened = openNetwork(model, onnxruntime).then((network) => ({ page, network }));
    opened.then(
      () => self.postMessage({ ready: true }),
      (error) => self.postMessage({ broken: String(error?.message ?? error) }),
    );
    return;
  }
  try {
    self.postMessage({ job: data.job, found: await read(data) });
  } catch (error) {
    const told = error instanceof Mistake ? error.message : `${data.name} could not be read (${error?.message ?? error})`;
    self.postMessage({ job: data.job, mistake: told });
  }
}

// one image at a time, in the order in which they came
let last = Promise.resolve();
self.onmessage = (event) => {
  last = last.then(() => obey(event));
};
self.postMessage({ started: true });
