/** Compressed pixels, decoded by programs that were compiled to WebAssembly. */

import { charls, decodePng, libjpegTurbo, LosslessJpegDecoder, openjpeg, openjph } from "../vendor/codecs.js";

const PROGRAMS = {
  charls: [charls, "JpegLSDecoder"],
  libjpegTurbo: [libjpegTurbo, "JPEGDecoder"],
  openjpeg: [openjpeg, "J2KDecoder"],
  openjph: [openjph, "HTJ2KDecoder"],
};

/** Names of the programs, each with a file vendor/NAME.wasm. */
export const PROGRAM_NAMES = Object.keys(PROGRAMS);

const modules = {};

/** Takes the bytes of the programs, by name. */
export function takePrograms(bytesByName) {
  for (const [name, bytes] of Object.entries(bytesByName)) modules[name] = WebAssembly.compile(bytes);
}

/**
 * Returns what a program makes of bytes: {width, height, components, bits, signed, pixels}. Each image gets an instance
 * of its own, so that memory is freed after a large one, and a damaged one leaves nothing behind. Throws anything.
 */
async function byProgram(name, bytes) {
  const [start, className] = PROGRAMS[name];
  const program = await modules[name];
  const running = await start({
    instantiateWasm(imports, received) {
      WebAssembly.instantiate(program, imports).then((instance) => received(instance, program));
      return {};
    },
    print() {},
    printErr() {},
  });
  const decoder = new running[className]();
  decoder.getEncodedBuffer(bytes.length).set(bytes);
  decoder.decode();
  const frame = decoder.getFrameInfo();
  const decoded = decoder.getDecodedBuffer();
  // only JPEG 2000 tells of a sign
  const signed = Boolean(frame.isSigned);
  const words = wordsOf(decoded, frame.bitsPerSample, signed);
  return {
    width: frame.width,
    height: frame.height,
    components: frame.componentCount,
    bits: frame.bitsPerSample,
    signed,
    pixels: words.slice(),
  };
}

function wordsOf(bytes, bits, signed) {
  if (bits <= 8) return signed ? new Int8Array(bytes.buffer, bytes.byteOffset, bytes.length) : bytes;
  const Words = signed ? Int16Array : Uint16Array;
  return new Words(bytes.buffer, bytes.byteOffset, bytes.length / 2);
}

/** Returns the pixels of a JPEG of 8 bits: grey, or red, green and blue side by side. */
export const decodeJpeg = (bytes) => byProgram("libjpegTurbo", bytes);

/** Returns the pixels of a JPEG-LS stream. */
export const decodeJpegLs = (bytes) => byProgram("charls", bytes);

/** Returns the pixels of a JPEG 2000 codestream, of the high-throughput kind or not. */
export const decodeJpeg2000 = (bytes, highThroughput) => byProgram(highThroughput ? "openjph" : "openjpeg", bytes);

/** Returns the pixels of a lossless JPEG. */
export function decodeLosslessJpeg(bytes, bits) {
  const whole = bytes.slice().buffer;
  const decoded = new LosslessJpegDecoder(bits <= 8 ? 1 : 2).decode(whole, 0, whole.byteLength, bits <= 8 ? 1 : 2);
  return bits <= 8 ? new Uint8Array(decoded.buffer) : new Uint16Array(decoded.buffer);
}

export { decodePng };
