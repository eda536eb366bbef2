// Pictures as a network's numbers.

// A canvas whose pixels are read again and again.
export const canvasOf = (width, height) =>
  new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });

// Its pixels, rows of red, green, blue; Numbers: Int32Array, 0 to 255, or Float32Array, 0 to 1.
export function rgb(context, Numbers) {
  const { data } = context.getImageData(0, 0, context.canvas.width, context.canvas.height);
  const values = new Numbers(data.length / 4 * 3), white = Numbers === Float32Array ? 255 : 1;
  for (let from = 0, to = 0; from < data.length; from += 4)
    for (let k = 0; k < 3; k++) values[to++] = data[from + k] / white;
  return values;
}
