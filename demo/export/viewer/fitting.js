// A pose put upon another one. Poses: x, y, z of joint after joint, in mm. A way to put it there is
// { turn: 3 x 3 by rows, scale, from, to }: a point goes to turn · (point - from) · scale + to.

const UNTURNED = [1, 0, 0, 0, 1, 0, 0, 0, 1];

function moved({ turn, scale, from, to }, x, y, z) {
  x -= from[0]; y -= from[1]; z -= from[2];
  return [
    to[0] + scale * (turn[0] * x + turn[1] * y + turn[2] * z),
    to[1] + scale * (turn[3] * x + turn[4] * y + turn[5] * z),
    to[2] + scale * (turn[6] * x + turn[7] * y + turn[8] * z),
  ];
}

// Of the joints, once b has been put upon a in some way.
function meanDistance(a, way, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i += 3) {
    const [x, y, z] = moved(way, b[i], b[i + 1], b[i + 2]);
    sum += Math.sqrt((a[i] - x) ** 2 + (a[i + 1] - y) ** 2 + (a[i + 2] - z) ** 2);
  }
  return 3 * sum / a.length;
}

function rootOnRoot(a, b) { return { turn: UNTURNED, scale: 1, from: b.subarray(0, 3), to: a.subarray(0, 3) }; }

function middleOf(pose) {
  const sum = [0, 0, 0];
  for (let i = 0; i < pose.length; i++) sum[i % 3] += 3 * pose[i] / pose.length;
  return sum;
}

// The similarity that leaves the least squares, never a mirror image: by the quaternion of [Horn 1987, section 4].
function bestFit(a, b) {
  const to = middleOf(a), from = middleOf(b);
  let xx = 0, xy = 0, xz = 0, yx = 0, yy = 0, yz = 0, zx = 0, zy = 0, zz = 0, size = 0;
  for (let i = 0; i < a.length; i += 3) {
    const x = b[i] - from[0], y = b[i + 1] - from[1], z = b[i + 2] - from[2];
    const u = a[i] - to[0], v = a[i + 1] - to[1], w = a[i + 2] - to[2];
    xx += x * u; xy += x * v; xz += x * w;
    yx += y * u; yy += y * v; yz += y * w;
    zx += z * u; zy += z * v; zz += z * w;
    size += x * x + y * y + z * z;
  }
  const { value, vector: [w, x, y, z] } = largestEigen([
    [xx + yy + zz, yz - zy, zx - xz, xy - yx],
    [yz - zy, xx - yy - zz, xy + yx, zx + xz],
    [zx - xz, xy + yx, yy - xx - zz, yz + zy],
    [xy - yx, zx + xz, yz + zy, zz - xx - yy],
  ]);
  const turn = [
    w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y),
    2 * (y * x + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x),
    2 * (z * x - w * y), 2 * (z * y + w * x), w * w - x * x - y * y + z * z,
  ];
  return { turn, scale: size ? value / size : 0, from, to };
}

// Of a symmetric matrix, which it overwrites, by Jacobi's rotations; the vector has length 1.
function largestEigen(m) {
  const n = m.length, vectors = m.map((_, i) => m.map((_, k) => +(i === k)));
  const columns = (rows, i, k, c, s) => {
    for (const row of rows) { const u = row[i], v = row[k]; row[i] = c * u - s * v; row[k] = s * u + c * v; }
  };
  const trace = () => m.reduce((sum, row, i) => sum + Math.abs(row[i]), 0);
  for (let sweep = 0, rest = 1; sweep < 20 && rest > 1e-14 * trace(); sweep++) {
    rest = 0;
    for (let i = 0; i < n; i++) for (let k = i + 1; k < n; k++) {
      rest += Math.abs(m[i][k]);
      const angle = 0.5 * Math.atan2(2 * m[i][k], m[k][k] - m[i][i]), c = Math.cos(angle), s = Math.sin(angle);
      columns(m, i, k, c, s);
      columns(vectors, i, k, c, s);
      for (let col = 0; col < n; col++) { const u = m[i][col], v = m[k][col]; m[i][col] = c * u - s * v; m[k][col] = s * u + c * v; }
    }
  }
  const values = m.map((row, i) => row[i]), best = values.indexOf(Math.max(...values));
  return { value: values[best], vector: vectors.map(row => row[best]) };
}
