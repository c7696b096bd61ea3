/** Look-up tables of DICOM, read as their writers meant them. */

import { viewOf } from "./headers.js";

const LONGEST_SEQUENCE = 2 ** 20;

/** Returns bytes as unsigned words of 16 bits. */
export function readWords(bytes, big) {
  if (bytes.length % 2) throw new Error("no whole words");
  const view = viewOf(bytes);
  return Array.from({ length: bytes.length / 2 }, (_, place) => view.getUint16(2 * place, !big));
}

/**
 * Returns the first look-up table of a sequence, {look, range, bits}, or null. `look` gives the entry of a value;
 * `inputs` are the lowest and the highest value that can be looked up.
 */
export function readTable(file, tag, inputs) {
  const element = file.set.elements[tag];
  if (element?.items?.length && element.length !== 0xffffffff && element.length > LONGEST_SEQUENCE) {
    throw new Error("too long a sequence");
  }
  for (const item of element?.items ?? []) {
    const [descriptor, data] = [item.dataSet?.elements.x00283002, item.dataSet?.elements.x00283006];
    if (descriptor?.length && data?.length) return tableOf(file, descriptor, data, inputs);
  }
  return null;
}

function tableOf(file, descriptor, data, inputs) {
  const bytesOf = ({ dataOffset, length }) => file.bytes.subarray(dataOffset, dataOffset + length);
  const [stated, first, bits] = readWords(bytesOf(descriptor), file.big);
  const count = stated || 2 ** 16;
  const packed = bits <= 8 && data.length < 2 * count;
  const entries = (packed ? Array.from(bytesOf(data)) : readWords(bytesOf(data), file.big)).slice(0, count);
  if (entries.length < count) throw new Error("a table of fewer entries than it says");
  const [lowest, highest] = entries.reduce(([low, high], entry) => [Math.min(low, entry), Math.max(high, entry)], [
    Infinity, -Infinity,
  ]);
  if (bits < 8 || bits > 16 || highest >= 2 ** bits) throw new Error("a table of other bits than it says");
  const start = firstOf(first, descriptor.vr, count, inputs);
  return {
    // many descriptors state the 16 bits of a word, whatever the entries take
    bits: Math.max(8, highest.toString(2).length),
    range: [lowest, highest],
    look: (value) => entries[Math.min(Math.max(Math.round(value) - start, 0), count - 1)],
  };
}

/** Returns the first value that is mapped; it is signed where inputs can be negative, or where nothing else fits. */
function firstOf(first, vr, count, inputs) {
  const readings = [first, first >= 2 ** 15 ? first - 2 ** 16 : first];
  if (vr === "SS" || inputs[0] < 0) readings.reverse();
  const meets = readings.map((reading) => reading <= inputs[1] && reading + count > inputs[0]);
  return !meets[0] && meets[1] ? readings[1] : readings[0];
}
