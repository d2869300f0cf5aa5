// NumPy's file format, version 1.0: numpy.load reads it.

/** A Float32Array of this shape as a file. */
export function npy(values, shape) {
  const described = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.map((size) => `${size},`).join(" ")}), }`;
  const unpadded = 10 + described.length + 1;
  const header = described + " ".repeat((64 - (unpadded % 64)) % 64) + "\n";
  const start = new Uint8Array(10 + header.length);
  start.set([
    0x93,
    ...new TextEncoder().encode("NUMPY"),
    1,
    0,
    header.length & 255,
    header.length >> 8,
  ]);
  start.set(new TextEncoder().encode(header), 10);
  const body = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, place) => body.setFloat32(4 * place, value, true));
  return new Blob([start, body], { type: "application/octet-stream" });
}
