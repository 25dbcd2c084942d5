// Draws attention maps over frames in the page, as mvf.workbench.plotting.overlay does in Python.

// Entity or head maps (layers, frames, maps, h, w), each stored in 8 bits relative to its own maximum.
class Maps {
  constructor({ shape }, view) {
    [this.layers, this.frames, this.count, this.height, this.width] = shape;
    const number = this.layers * this.frames * this.count;
    const bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
    this.maxima = new Float32Array(bytes, 0, number);
    this.strongest = new Uint16Array(bytes, 4 * number, number);
    this.levels = new Uint8Array(bytes, 6 * number);
  }

  index(layer, frame, map) {
    return (layer * this.frames + frame) * this.count + map;
  }

  at(index) {
    const size = this.width * this.height;
    return this.levels.subarray(index * size, (index + 1) * size);
  }

  // The map's maximum over its frame's (always 1) or over the video's maximum.
  scale(layer, frame, map, normalise) {
    if (normalise === "frame") return 1;
    let largest = 1e-12;
    for (let t = 0; t < this.frames; t++) largest = Math.max(largest, this.maxima[this.index(layer, t, map)]);
    return this.maxima[this.index(layer, frame, map)] / largest;
  }

  // A mask of the strongest patches, as many as Python counted for its share of the attention.
  chosen(index) {
    const levels = this.at(index);
    const counts = new Uint32Array(257);
    for (const level of levels) counts[level]++;
    let threshold = 256;
    let above = 0;
    while (threshold > 0 && above + counts[threshold] < this.strongest[index]) above += counts[threshold--];
    let ties = this.strongest[index] - above;
    return Uint8Array.from(levels, (level) => (level > threshold || (level === threshold && ties-- > 0) ? 1 : 0));
  }
}

// Weights to interpolate `count` values linearly to `size` pixels between their centres, as OpenCV does.
function weights(size, count) {
  const left = new Int32Array(size);
  const share = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    const position = Math.max(0, Math.min(count - 1, ((i + 0.5) * count) / size - 0.5));
    left[i] = Math.min(Math.floor(position), Math.max(0, count - 2));
    share[i] = position - left[i];
  }
  return { left, share, next: count > 1 ? 1 : 0 };
}

// Enlarges maps to one picture size and colours them.
class Painter {
  constructor(colours, width, height) {
    this.canvas = element("canvas", { width, height });
    this.ctx = this.canvas.getContext("2d");
    this.image = this.ctx.createImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.colours = Uint32Array.from({ length: 256 }, (_, i) => {
      const [red, green, blue] = [0, 1, 2].map((channel) => colours.getUint8(3 * i + channel));
      return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    });
  }

  paint(levels, mapWidth, mapHeight, scale) {
    const { width, height } = this.canvas;
    const across = weights(width, mapWidth);
    const down = weights(height, mapHeight);
    const line = new Float32Array(mapWidth);
    for (let y = 0, pixel = 0; y < height; y++) {
      const upper = down.left[y] * mapWidth;
      const lower = upper + down.next * mapWidth;
      for (let i = 0; i < mapWidth; i++) {
        line[i] = scale * (levels[upper + i] + down.share[y] * (levels[lower + i] - levels[upper + i]));
      }
      for (let x = 0; x < width; x++, pixel++) {
        const value = line[across.left[x]];
        const level = value + across.share[x] * (line[across.left[x] + across.next] - value);
        this.pixels[pixel] = this.colours[(level + 0.5) | 0];
      }
    }
    this.ctx.putImageData(this.image, 0, 0);
    return this.canvas;
  }
}

function outline(ctx, maps, index, x, y, width, height) {
  const chosen = maps.chosen(index);
  const [w, h] = [width / maps.width, height / maps.height];
  const within = (i, j) => i >= 0 && j >= 0 && i < maps.width && j < maps.height;
  const inside = (i, j) => within(i, j) && chosen[j * maps.width + i] === 1;
  const path = new Path2D();
  // Lines on whole pixels are sharp; at the picture's edge they are drawn inside it.
  const clampX = (i) => x + Math.max(1, Math.min(width - 2, Math.round(i * w))) + 0.5;
  const clampY = (j) => y + Math.max(1, Math.min(height - 2, Math.round(j * h))) + 0.5;
  const edge = (i0, j0, i1, j1) => {
    path.moveTo(clampX(i0), clampY(j0));
    path.lineTo(clampX(i1), clampY(j1));
  };
  for (let j = 0; j <= maps.height; j++) {
    for (let i = 0; i <= maps.width; i++) {
      if (inside(i, j) !== inside(i - 1, j)) edge(i, j, i, j + 1);
      if (inside(i, j) !== inside(i, j - 1)) edge(i, j, i + 1, j);
    }
  }
  ctx.lineCap = "square";
  for (const [colour, thickness] of [["#000", 3], ["#fff", 1]]) {
    Object.assign(ctx, { strokeStyle: colour, lineWidth: thickness });
    ctx.stroke(path);
  }
}
