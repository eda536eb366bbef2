// Networks in ONNX Runtime's WebAssembly, one session each.
import * as ort from "./runtime/ort.wasm.bundle.min.mjs";

// A browser gives threads only to pages whose server sends two headers (docs/browser.md).
ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;

// file: below models/; dims: its input's shape; Numbers: its input's type, Float32Array or Int32Array
// -> a network: array -> arrays, its outputs in order. It has run once, which takes longer than later runs.
export async function loadNetwork(file, dims, Numbers) {
  const url = new URL(`models/${file}`, import.meta.url).href;
  let session;
  try {
    session = await ort.InferenceSession.create(url, { executionProviders: ["wasm"] });
  } catch (error) {
    throw new Error(`${file} does not load (${error.message})`);
  }
  const type = Numbers === Int32Array ? "int32" : "float32";
  const network = async array => {
    const outputs = await session.run({ [session.inputNames[0]]: new ort.Tensor(type, array, dims) });
    return session.outputNames.map(name => outputs[name].data);
  };
  await network(new Numbers(dims.reduce((product, size) => product * size)));
  return network;
}
