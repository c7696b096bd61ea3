// What is packed into vendor/codecs.js: the readers of files that the page takes from npm.
export { default as charls } from "@cornerstonejs/codec-charls/decodewasmjs";
export { default as libjpegTurbo } from "@cornerstonejs/codec-libjpeg-turbo-8bit/decodewasmjs";
export { default as openjpeg } from "@cornerstonejs/codec-openjpeg/decodewasmjs";
export { default as openjph } from "@cornerstonejs/codec-openjph/wasmjs";
export { default as dicomParser } from "dicom-parser";
export { decode as decodePng, convertIndexedToRgb } from "fast-png";
export { Inflate } from "fflate";
export { Decoder as LosslessJpegDecoder } from "jpeg-lossless-decoder-js";
