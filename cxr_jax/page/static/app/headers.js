/** What the headers of encoded images say, read before anything is decoded, as cxr_jax/data/encoded.py reads them. */

import { Mistake } from "./mistake.js";
import { withCommas } from "./numbers.js";

const PNG_SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const FRAME_HEADERS = new Set([0xc0, 0xc1, 0xc2, 0xc3, 0xc5, 0xc6, 0xc7, 0xc9, 0xca, 0xcb, 0xcd, 0xce, 0xcf, 0xf7]);
const LOSSLESS = new Set([0xc3, 0xc7, 0xcb, 0xcf]);
const JPEG_LS = 0xf7;
const START_OF_SCAN = 0xda;
const QUANTISATION = 0xdb;

/** Where the entries of a quantisation table go, in the order in which a file has them. */
const ZIGZAG = Array.from({ length: 64 }, (_, place) => place).sort((a, b) => {
  const diagonal = (place) => (place >> 3) + (place & 7);
  const along = (place) => (diagonal(place) % 2 ? place >> 3 : place & 7);
  return diagonal(a) - diagonal(b) || along(a) - along(b);
});

const ANIMATION = new Set(["acTL", "fcTL", "fdAT"]);
const SHORT_VRS = new Set("AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split(" "));
const LONG_VRS = new Set("OB OD OF OL OV OW SQ SV UC UN UR UT UV".split(" "));
const LONGEST_FIRST_VALUE = 1024;

/** Returns a view of bytes that reads numbers. */
export function viewOf(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Returns bytes as text, one character each. */
export function textOf(bytes, start, length) {
  return String.fromCharCode(...bytes.subarray(start, start + length));
}

/** Returns whether a value representation is one of DICOM's. */
export function isRepresentation(text) {
  return SHORT_VRS.has(text) || LONG_VRS.has(text);
}

/** Returns what kind of image file bytes are: JPEG, PNG, DICOM, or null. */
export function kindOf(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return "JPEG";
  if (PNG_SIGNATURE.every((byte, place) => bytes[place] === byte)) return "PNG";
  return hasDicomPrefix(bytes) || beginsWithElements(bytes) ? "DICOM" : null;
}

/** Returns whether the prefix of DICOM stands where it belongs. */
export function hasDicomPrefix(bytes) {
  return bytes.length >= 132 && textOf(bytes, 128, 4) === "DICM";
}

function beginsWithElements(bytes) {
  const first = firstElement(bytes, 0);
  if (!first || ![2, 8].includes(first.group)) return false;
  const second = firstElement(bytes, first.end);
  const rises = (a, b) => a.group < b.group || (a.group === b.group && a.number < b.number);
  return second !== null && rises(first, second) && [first.group, 8].includes(second.group);
}

function firstElement(bytes, position) {
  if (position + 8 > bytes.length) return null;
  const view = viewOf(bytes);
  const [group, number] = [view.getUint16(position, true), view.getUint16(position + 2, true)];
  const representation = textOf(bytes, position + 4, 2);
  let [length, start] = [view.getUint32(position + 4, true), 8];
  if (SHORT_VRS.has(representation)) length = view.getUint16(position + 6, true);
  else if (LONG_VRS.has(representation) && position + 12 <= bytes.length) {
    [length, start] = [view.getUint32(position + 8, true), 12];
  }
  if (length % 2 || length > LONGEST_FIRST_VALUE) return null;
  return { group, number, end: position + start + length };
}

/** Refuses files of more bytes than `limits` allow. */
export function checkBytes(size, name, limits) {
  if (size <= limits.bytes) return;
  const mebibytes = (count) => (count / 2 ** 20).toFixed(0);
  throw new Mistake(`${name} has ${mebibytes(size)} MiB; images may have up to ${mebibytes(limits.bytes)} MiB`);
}

/** Refuses images of more pixels than `limits` allow. */
export function checkPixels(width, height, name, limits) {
  if (width * height <= limits.pixels) return;
  const size = `${withCommas(width)} x ${withCommas(height)}`;
  throw new Mistake(`${name} is ${size} pixels; images may have up to ${limits.pixels / 1e6} megapixels`);
}

/** Returns what the frame header of a JPEG or JPEG-LS stream says, having checked that the image has an end. */
export function jpegHeader(bytes, name) {
  const view = viewOf(bytes);
  const tables = {};
  let [header, orientation, position] = [null, null, 2];
  while (position + 4 <= bytes.length && bytes[position] === 0xff) {
    const marker = bytes[position + 1];
    if (marker === 0xff) {
      position += 1;
      continue;
    }
    const length = view.getUint16(position + 2);
    if (FRAME_HEADERS.has(marker) && position + 10 <= bytes.length) header = frameOf(view, position, marker);
    if (marker === QUANTISATION) readQuantisation(bytes.subarray(position + 4, position + 2 + length), tables);
    if (marker === 0xe1 && orientation === null && textOf(bytes, position + 4, 6) === "Exif\0\0") {
      orientation = exifOrientation(bytes.subarray(position + 4, position + 2 + length));
    }
    if (marker === START_OF_SCAN) {
      if (!header || !header.width || !header.height || header.bits < 2 || header.bits > 16) break;
      if (!hasEnd(bytes, position)) throw new Mistake(`${name} is truncated: the end of its image data is missing`);
      return { ...header, orientation: orientation ?? 1, quantisation: tables[header.table] ?? new Uint16Array(64).fill(1) };
    }
    position += 2 + length;
  }
  throw new Mistake(`${name} is a damaged or truncated JPEG: no image data found`);
}

/** Adds the quantisation tables of a segment to `tables`, by their number, each row by row (ISO 10918-1 B.2.4.1). */
function readQuantisation(segment, tables) {
  const view = viewOf(segment);
  for (let position = 0; position < segment.length; ) {
    const [wide, number] = [segment[position] >> 4, segment[position] & 15];
    const size = wide ? 2 : 1;
    if (position + 1 + 64 * size > segment.length) return;
    const table = new Uint16Array(64);
    ZIGZAG.forEach((place, entry) => {
      const start = position + 1 + size * entry;
      table[place] = Math.max(1, wide ? view.getUint16(start) : segment[start]);
    });
    tables[number] = table;
    position += 1 + 64 * size;
  }
}

function frameOf(view, position, marker) {
  const bits = view.getUint8(position + 4);
  const lossless = LOSSLESS.has(marker);
  return {
    bits,
    height: view.getUint16(position + 5),
    width: view.getUint16(position + 7),
    components: view.getUint8(position + 9),
    table: position + 12 < view.byteLength ? view.getUint8(position + 12) : 0, // of quantisation, of the first component
    lossless,
    jpegLs: marker === JPEG_LS,
    plain: bits === 8 && !lossless && marker !== JPEG_LS,
  };
}

function hasEnd(bytes, position) {
  for (let place = bytes.indexOf(0xff, position); place >= 0; place = bytes.indexOf(0xff, place + 1)) {
    if (bytes[place + 1] === 0xd9) return true;
  }
  return false;
}

/** Returns what the chunks of a PNG say, having checked that all of them and the end are intact. */
export function pngHeader(bytes, name) {
  const view = viewOf(bytes);
  let [header, significantBits, orientation, position] = [null, null, null, PNG_SIGNATURE.length];
  while (position + 12 <= bytes.length) {
    const length = view.getUint32(position);
    const kind = textOf(bytes, position + 4, 4);
    const end = position + 8 + length;
    if (end + 4 > bytes.length) break;
    if (crc32(bytes, position + 4, end) !== view.getUint32(end)) {
      throw new Mistake(`${name} is a damaged PNG: a checksum does not match`);
    }
    if (kind === "IHDR" && length === 13) {
      header = { width: view.getUint32(position + 8), height: view.getUint32(position + 12) };
    }
    if (kind === "sBIT" && length) {
      const stated = new Set(bytes.subarray(position + 8, end));
      significantBits = stated.size === 1 ? bytes[position + 8] : null;
    }
    if (kind === "eXIf" && orientation === null) orientation = exifOrientation(bytes.subarray(position + 8, end));
    if (ANIMATION.has(kind)) throw new Mistake(`${name} is an animated PNG, but a radiograph is a single image`);
    if (kind === "IEND" && header && header.width && header.height) {
      return { ...header, significantBits, orientation: orientation ?? 1 };
    }
    position = end + 4;
  }
  throw new Mistake(`${name} is truncated: the end of the PNG is missing`);
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, entry) => {
  for (let bit = 0; bit < 8; bit += 1) entry = entry & 1 ? 0xedb88320 ^ (entry >>> 1) : entry >>> 1;
  return entry;
});

function crc32(bytes, start, end) {
  let sum = 0xffffffff;
  for (let place = start; place < end; place += 1) sum = CRC_TABLE[(sum ^ bytes[place]) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

/** Returns the orientation in a block of EXIF, 1 to 8; 1 (upright) if it tells none. */
export function exifOrientation(given) {
  const block = given.length >= 6 && textOf(given, 0, 6) === "Exif\0\0" ? given.subarray(6) : given;
  if (block.length < 8) return 1;
  const order = textOf(block, 0, 4);
  const little = order === "II*\0";
  if (!little && order !== "MM\0*") return 1;
  const view = viewOf(block);
  const start = view.getUint32(4, little);
  const count = start + 2 <= block.length ? view.getUint16(start, little) : 0;
  const last = Math.min(start + 2 + 12 * count, block.length - 11);
  for (let position = start + 2; position < last; position += 12) {
    if (view.getUint16(position, little) !== 0x0112) continue;
    const value = view.getUint16(position + 8, little);
    return view.getUint16(position + 2, little) === 3 && value >= 1 && value <= 8 ? value : 1;
  }
  return 1;
}
