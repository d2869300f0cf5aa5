// From an attribution to a picture, the same arithmetic as igonnx.visual.render: one number per pixel, smoothed, the
// strongest pixels kept, scaled so that the top per cent shows at full strength, and laid over the photo in grey.

import { gaussian, grey, inside, resample, taps } from "./picture.js";

const LUMINANCE = [0.2126, 0.7152, 0.0722];
const SMALLEST_SMOOTHED = 64;
const SMOOTHING = 4 / 224;
const OUTLIERS = 0.01;
const SHADES = 1023;

/** One contribution per pixel of an attribution [1, channels, height, width]; signed, or the sum of magnitudes. */
export function contributions(values, [, channels, height, width], signed) {
  const area = height * width;
  const heat = new Float64Array(area);
  for (let channel = 0; channel < channels; channel++) {
    for (let pixel = 0; pixel < area; pixel++) {
      const value = values[channel * area + pixel];
      heat[pixel] += signed ? value : Math.abs(value);
    }
  }
  const shorter = Math.min(height, width);
  return shorter < SMALLEST_SMOOTHED ? heat : smoothed(heat, height, width, shorter * SMOOTHING);
}

function smoothed(heat, height, width, deviation) {
  const weights = gaussian(deviation);
  const radius = (weights.length - 1) / 2;
  const axis = (size) =>
    Array.from({ length: size }, (_, at) => [
      weights.map((_weight, offset) => inside(at + offset - radius, size, "reflect")),
      weights,
    ]);
  return Float64Array.from(resample(heat, height, width, 1, axis(height), axis(width)));
}

/** What can be shown of a map [height, width] at any threshold: its magnitudes are sorted once. */
export class Heat {
  constructor(heat, height, width) {
    Object.assign(this, { heat, height, width });
    this.strongest = Float64Array.from(heat, Math.abs).sort().reverse();
    this.sums = new Float64Array(heat.length);
    let sum = 0;
    this.strongest.forEach((value, place) => (this.sums[place] = sum += value));
  }

  /** Magnitude of the weakest pixel shown when the strongest hold `share` of the total. */
  threshold(share) {
    const last = this.sums.length - 1;
    if (share >= 1 || this.sums[last] === 0) return 0;
    const wanted = share * this.sums[last];
    let [low, high] = [0, last];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.sums[middle] < wanted) low = middle + 1;
      else high = middle;
    }
    return this.strongest[low];
  }

  /** Keep the strongest pixels that hold `share`; returns the map in [-1, 1] and the part of pixels kept. */
  shown(share) {
    const weakest = this.threshold(share);
    const kept = this.strongest.reduce(
      (count, value) => count + (value >= weakest && value > 0),
      0,
    );
    const scale = this.fullScale(kept);
    const map = this.heat.map((value) =>
      scale && Math.abs(value) >= weakest ? Math.min(Math.max(value / scale, -1), 1) : 0,
    );
    return { map, part: kept / this.heat.length };
  }

  /** The 99th percentile of the magnitudes of which `kept` are not zero, or the largest where that is zero. */
  fullScale(kept) {
    const place = (this.strongest.length - 1) * OUTLIERS;
    const at = (index) => (index < kept ? this.strongest[index] : 0);
    const above = Math.floor(place);
    const value =
      at(above) +
      (at(Math.min(above + 1, this.strongest.length - 1)) - at(above)) * (place - above);
    return value || this.strongest[0];
  }
}

/** A map [height, width] at the size of a picture. */
export function enlarged({ map, height, width }, picture) {
  if (picture.height === height && picture.width === width) return map;
  return resample(
    map,
    height,
    width,
    1,
    taps(height, picture.height, "edge"),
    taps(width, picture.width, "edge"),
  );
}

/** The colours of igonnx.visual.colours as tables of 1024 shades. */
export class Palette {
  constructor({ glow, for: supporting, against }) {
    Object.assign(this, { glow: ramp(glow), supporting: ramp(supporting), against: ramp(against) });
  }
}

function ramp(anchors) {
  const table = new Float32Array(3 * (SHADES + 1));
  for (let shade = 0; shade <= SHADES; shade++) {
    const place = (shade / SHADES) * (anchors.length - 1);
    const below = Math.min(Math.floor(place), anchors.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      const [low, high] = [anchors[below][channel], anchors[below + 1][channel]];
      table[3 * shade + channel] = low + (high - low) * (place - below);
    }
  }
  return table;
}

/** Draw a map in [-1, 1] over a picture of its size, as ImageData. */
export function layOver(picture, map, { signed, opacity, palette }) {
  const image = new ImageData(picture.width, picture.height);
  for (let pixel = 0; pixel < map.length; pixel++) {
    const heat = map[pixel];
    const magnitude = Math.min(Math.abs(heat), 1);
    const ground = 255 * grey(picture.data.subarray(3 * pixel, 3 * pixel + 3), LUMINANCE);
    // Where signs are shown, the square root lifts weak pixels.
    const cover = opacity * (signed ? Math.sqrt(magnitude) : magnitude);
    const base = signed ? 0.25 * 255 + 0.72 * ground : 0.9 * ground;
    const table = signed ? (heat >= 0 ? palette.supporting : palette.against) : palette.glow;
    const shade = 3 * Math.round(magnitude * SHADES);
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * pixel + channel] = Math.round(
        base * (1 - cover) + table[shade + channel] * cover,
      );
    }
    image.data[4 * pixel + 3] = 255;
  }
  return image;
}

/** A picture as ImageData. */
export function plain(picture) {
  const image = new ImageData(picture.width, picture.height);
  for (let pixel = 0; pixel < picture.width * picture.height; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      image.data[4 * pixel + channel] = Math.round(255 * picture.data[3 * pixel + channel]);
    }
    image.data[4 * pixel + 3] = 255;
  }
  return image;
}
