/** The pixels of a DICOM file, however they are stored. */

import { decodeJpeg, decodeJpeg2000, decodeJpegLs, decodeLosslessJpeg } from "./codecs.js";
import { jpegHeader, textOf, viewOf } from "./headers.js";
import { Mistake } from "./mistake.js";

const NATIVE = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"];
const RLE = "1.2.840.10008.1.2.5";
const JPEG = ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"];
const JPEG_LS = ["1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"];
const JPEG_2000 = ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"];
const HIGH_THROUGHPUT = ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"];
const LOSSY = ["1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203"];
const DAMAGED = "is a damaged DICOM file and cannot be read";
const MAX_BOXES = 1000;

/** Returns the words of a frame, of which `header` says which bits are pixels. Throws a Mistake. */
export async function storedWords(value, syntax, header, name) {
  if (NATIVE.includes(syntax)) return native(value, header, name);
  if (syntax === RLE) return native(unpackedRle(value, header, name), header, name);
  const wavelet = JPEG_2000.includes(syntax) || HIGH_THROUGHPUT.includes(syntax);
  if (!wavelet && !JPEG.includes(syntax) && !JPEG_LS.includes(syntax)) {
    throw new Mistake(`${name} is stored in a way that is not read: convert it to PNG`);
  }
  const stream = wavelet ? jpeg2000Stream(value, name) : { ...jpegHeader(value, name), bytes: value, signed: false };
  checkStream(stream, header, name);
  const pixels = await decoded(stream, HIGH_THROUGHPUT.includes(syntax), name);
  return toWords(pixels, stream, syntax, header, name);
}

function checkStream(stream, header, name) {
  if (stream.width !== header.columns || stream.height !== header.rows) {
    throw new Mistake(`${name} ${DAMAGED}: its header and its pixels tell two sizes`);
  }
  if (stream.bits > header.bitsAllocated) {
    throw new Mistake(`${name} ${DAMAGED}: its pixels take more bits than its header says`);
  }
  if (stream.plain && header.bitsStored > stream.bits) {
    throw new Mistake(`${name} ${DAMAGED}: its pixels take fewer bits than its header says`);
  }
}

function toWords(pixels, stream, syntax, header, name) {
  if (stream.signed && !header.signed && pixels.some((pixel) => pixel < 0)) {
    throw new Mistake(`${name} ${DAMAGED}: it has negative pixels, and its header says that it has none`);
  }
  const { bitsAllocated, bitsStored, highBit, signed } = header;
  const clips = stream.signed === signed && LOSSY.includes(syntax);
  const lowest = signed ? -(2 ** (bitsStored - 1)) : 0;
  const highest = lowest + 2 ** bitsStored - 1;
  const words = new (bitsAllocated === 8 ? Uint8Array : Uint16Array)(pixels.length);
  for (let place = 0; place < pixels.length; place += 1) {
    // what is lossy may go a little beyond the values that are stored, which must not turn white into black
    const pixel = clips ? Math.min(Math.max(pixels[place], lowest), highest) : pixels[place];
    words[place] = pixel << (highBit + 1 - bitsStored);
  }
  return words;
}

async function decoded(stream, highThroughput, name) {
  if (!stream.plain && !stream.lossless && !stream.jpegLs && !stream.wavelet) {
    throw new Mistake(`${name} is a JPEG of ${stream.bits} bits, which this page cannot decode: convert it to PNG`);
  }
  let pixels;
  try {
    if (stream.lossless) pixels = decodeLosslessJpeg(stream.bytes, stream.bits);
    else {
      const found = await (stream.wavelet
        ? decodeJpeg2000(stream.bytes, highThroughput)
        : (stream.plain ? decodeJpeg : decodeJpegLs)(stream.bytes));
      const fits = found.width === stream.width && found.height === stream.height && found.bits === stream.bits;
      pixels = fits && found.components === 1 && found.signed === stream.signed ? found.pixels : null;
    }
  } catch {
    pixels = null;
  }
  if (pixels?.length !== stream.width * stream.height) throw new Mistake(`${name} is damaged and cannot be decoded`);
  return pixels;
}

function native(value, { rows, columns, bitsAllocated }, name) {
  const count = rows * columns;
  if (value.length < (count * bitsAllocated) / 8) {
    throw new Mistake(`${name} is truncated: the end of its image data is missing`);
  }
  if (bitsAllocated === 8) return value.subarray(0, count);
  const view = viewOf(value);
  return Uint16Array.from({ length: count }, (_, place) => view.getUint16(2 * place, true));
}

/** Returns the bytes of a frame in RLE (PS3.5 annex G): one segment for each byte of a pixel, the highest first. */
function unpackedRle(frame, { rows, columns, bitsAllocated }, name) {
  const planes = bitsAllocated / 8;
  const count = rows * columns;
  const view = viewOf(frame);
  if (frame.length < 64 || view.getUint32(0, true) !== planes) {
    throw new Mistake(`${name} ${DAMAGED}: its RLE header is wrong`);
  }
  const starts = Array.from({ length: planes }, (_, plane) => view.getUint32(4 * (plane + 1), true));
  starts.push(frame.length);
  const unpacked = new Uint8Array(count * planes);
  for (let plane = 0; plane < planes; plane += 1) {
    const segment = unpackedBits(frame.subarray(starts[plane], starts[plane + 1]), count);
    if (segment === null) throw new Mistake(`${name} is truncated: the end of its image data is missing`);
    for (let place = 0; place < count; place += 1) unpacked[place * planes + planes - 1 - plane] = segment[place];
  }
  return unpacked;
}

/** Returns `count` bytes of a PackBits segment; null if it has fewer. */
function unpackedBits(segment, count) {
  const bytes = new Uint8Array(count);
  let [filled, position] = [0, 0];
  while (position + 1 < segment.length && filled < count) {
    const length = segment[position];
    if (length < 128) {
      const part = segment.subarray(position + 1, Math.min(position + 2 + length, position + 1 + count - filled));
      bytes.set(part, filled);
      filled += part.length;
      position += 2 + length;
    } else {
      // 128 stands for nothing
      const end = length > 128 ? Math.min(filled + 257 - length, count) : filled;
      bytes.fill(segment[position + 1], filled, end);
      filled = end;
      position += length > 128 ? 2 : 1;
    }
  }
  return filled < count ? null : bytes;
}

/** Returns the codestream of a frame in JPEG 2000, and what it says of itself. */
function jpeg2000Stream(frame, name) {
  const open = unwrapped(frame);
  let end = open.length - 2;
  while (end >= 0 && !(open[end] === 0xff && open[end + 1] === 0xd9)) end -= 1;
  const bytes = end >= 0 ? open.subarray(0, end + 2) : open;
  const begins = bytes[0] === 0xff && bytes[1] === 0x4f && bytes[2] === 0xff && bytes[3] === 0x51;
  if (bytes.length < 45 || !begins) throw new Mistake(`${name} is damaged and cannot be decoded`);
  const view = viewOf(bytes);
  const [right, bottom, left, top] = [8, 12, 16, 20].map((place) => view.getUint32(place));
  const [components, depth, across, down] = [view.getUint16(40), bytes[42], bytes[43], bytes[44]];
  const bits = (depth & 0x7f) + 1;
  if (components !== 1 || bits > 16 || across !== 1 || down !== 1) {
    throw new Mistake(`${name} is damaged and cannot be decoded`);
  }
  return { bytes, width: right - left, height: bottom - top, bits, signed: depth >= 0x80, wavelet: true, plain: false };
}

/** Returns the codestream in the boxes of a JP2 file, or what is no such file as it is. */
function unwrapped(frame) {
  if (textOf(frame, 4, 8) !== "jP  \r\n\x87\n") return frame;
  const view = viewOf(frame);
  let position = 0;
  for (let box = 0; box < MAX_BOXES && position + 8 <= frame.length; box += 1) {
    let [length, start] = [view.getUint32(position), position + 8];
    if (length === 1 && start + 8 <= frame.length) {
      [length, start] = [Number(view.getBigUint64(start)), start + 8];
    }
    const end = length ? position + length : frame.length;
    if (textOf(frame, position + 4, 4) === "jp2c") return frame.subarray(start, end);
    if (end < start) break;
    position = end;
  }
  return frame;
}
