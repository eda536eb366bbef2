// numpy's .npz: a zip of .npy files, each a header and an array's bytes.

// bytes: of the whole file; names: of the arrays that are wanted, of those that it has -> Map of names to
// { shape, values }. An error says what is wrong.
async function readNpz(bytes, names) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), arrays = new Map();
  for (const { name, method, start, size } of entriesOf(view)) {
    if (!names.includes(name)) continue;
    const packed = bytes.subarray(start, start + size);
    if (method !== 0 && method !== 8) throw new Error(`${name} is packed by method ${method}`);
    arrays.set(name, npyArray(name, method ? await inflated(packed) : packed));
  }
  return arrays;
}

// The zip's own list, at its end, knows all sizes. [APPNOTE.TXT, 4.3.12 and 4.3.16]
function* entriesOf(view) {
  const word = at => view.getUint16(at, true), long = at => view.getUint32(at, true);
  let end = view.byteLength - 22;
  while (end >= 0 && long(end) !== 0x06054b50) end--;
  if (end < 0) throw new Error("the zip has no end");
  for (let left = word(end + 10), at = long(end + 16); left; left--) {
    const length = word(at + 28), start = long(at + 42);
    const name = new TextDecoder().decode(new Uint8Array(view.buffer, view.byteOffset + at + 46, length));
    yield {
      name: name.replace(/\.npy$/, ""), method: word(at + 10), size: long(at + 20),
      start: start + 30 + word(start + 26) + word(start + 28),
    };
    at += 46 + length + word(at + 30) + word(at + 32);
  }
}

async function inflated(packed) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// JavaScript's arrays by numpy's names of numbers, without the byte order.
const NUMBERS = {
  f4: Float32Array, f8: Float64Array, i1: Int8Array, i2: Int16Array, i4: Int32Array, i8: BigInt64Array,
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, u8: BigUint64Array,
};

// -> { shape, values: numbers or strings, the last index fastest }. [numpy.lib.format]
function npyArray(name, bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const [start, length] = bytes[6] > 1 ? [12, view.getUint32(8, true)] : [10, view.getUint16(8, true)];
  const header = new TextDecoder().decode(bytes.subarray(start, start + length));
  const [, kind] = header.match(/'descr': '[<|](\w+)'/) ?? [], [, sizes] = header.match(/'shape': \(([^)]*)\)/) ?? [];
  if (!kind || !(kind in NUMBERS || kind[0] === "U")) throw new Error(`${name} has numbers of an unknown kind`);
  const shape = sizes.split(",").filter(text => text.trim()).map(Number), count = shape.reduce((a, b) => a * b, 1);
  const { buffer } = bytes.slice(start + length);
  let values;
  if (kind[0] === "U") {
    const width = +kind.slice(1), letters = new Uint32Array(buffer, 0, count * width);
    values = Array.from({ length: count }, (_, i) => String.fromCodePoint(...letters.subarray(i * width, (i + 1) * width).filter(Boolean)));
  } else {
    values = new NUMBERS[kind](buffer, 0, count);
    if (kind.endsWith("8") && kind[0] !== "f") values = Float64Array.from(values, Number);
  }
  return { shape, values: header.includes("'fortran_order': True") ? lastFastest(shape, values) : values };
}

// From Fortran's order, the first index fastest.
function lastFastest(shape, values) {
  const steps = shape.map((_, axis) => shape.slice(0, axis).reduce((a, b) => a * b, 1));
  return values.map((_, index) => {
    let from = 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += index % shape[axis] * steps[axis];
      index = Math.floor(index / shape[axis]);
    }
    return values[from];
  });
}
