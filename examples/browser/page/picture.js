// Pictures in and out of a model, the same arithmetic as igonnx.images.Preprocessing: the middle is cropped, blurred by
// as much as it will shrink, sampled linearly, and normalised. A picture is { width, height, data }, data being a
// Float32Array of red, green and blue in [0, 1], row by row.

// Photos larger than this are first reduced by the browser, whose filter is its own.
const LARGEST_SIDE = 896;

const LUMINANCE = [0.2125, 0.7154, 0.0721];

/** Read an image file or blob, upright, transparency over white. */
export async function readPicture(blob) {
  const bitmap = await createImageBitmap(blob);
  const shrink = Math.min(1, LARGEST_SIDE / Math.min(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * shrink));
  const height = Math.max(1, Math.round(bitmap.height * shrink));
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  const pixels = context.getImageData(0, 0, width, height).data;
  const data = new Float32Array(width * height * 3);
  for (let from = 0, to = 0; from < pixels.length; from += 4) {
    for (let channel = 0; channel < 3; channel++) data[to++] = pixels[from + channel] / 255;
  }
  return { width, height, data };
}

/** Crop the middle to the proportions of [height, width] and resize. */
export function fit(picture, [height, width]) {
  const cropped = centreCrop(picture, [height, width]);
  if (cropped.height === height && cropped.width === width) return cropped;
  const rows = taps(cropped.height, height, "mirror");
  const columns = taps(cropped.width, width, "mirror");
  const data = resample(cropped.data, cropped.height, cropped.width, 3, rows, columns);
  return { width, height, data: data.map((value) => Math.min(Math.max(value, 0), 1)) };
}

/** Turn a picture of the model's size into its input [1, channels, height, width]. */
export function toInput(picture, { shape, mean, std }) {
  const [, channels, height, width] = shape;
  const area = height * width;
  const input = new Float32Array(channels * area);
  for (let pixel = 0; pixel < area; pixel++) {
    const rgb = picture.data.subarray(3 * pixel, 3 * pixel + 3);
    for (let channel = 0; channel < channels; channel++) {
      const value = channels === 3 ? rgb[channel] : grey(rgb, LUMINANCE);
      input[channel * area + pixel] = normalise(value, channel, { mean, std });
    }
  }
  return input;
}

/** The model's input value for one shade of a channel, 0 being black and 1 white. */
export function normalise(value, channel, { mean, std }) {
  const of = (numbers) => numbers[numbers.length === 1 ? 0 : channel];
  return (value - of(mean)) / of(std);
}

export function grey(rgb, weights) {
  return rgb[0] * weights[0] + rgb[1] * weights[1] + rgb[2] * weights[2];
}

function centreCrop({ width, height, data }, [towards, across]) {
  const ratio = Math.min(height / towards, width / across);
  const rows = Math.min(height, Math.max(1, Math.round(towards * ratio)));
  const columns = Math.min(width, Math.max(1, Math.round(across * ratio)));
  const top = Math.floor((height - rows) / 2);
  const left = Math.floor((width - columns) / 2);
  const cropped = new Float32Array(rows * columns * 3);
  for (let row = 0; row < rows; row++) {
    const start = 3 * ((top + row) * width + left);
    cropped.set(data.subarray(start, start + 3 * columns), 3 * row * columns);
  }
  return { width: columns, height: rows, data: cropped };
}

/**
 * Along one axis, the samples that each new one is made of: [[indices], [weights]]. A shrinking axis is blurred by a
 * Gaussian of (factor - 1) / 2 samples first. Beyond its ends the axis goes on as its mirror image about the last
 * sample ("mirror"), about the edge behind it ("reflect"), or as that sample ("edge").
 */
export function taps(from, to, ends) {
  const factor = from / to;
  const blur = gaussian((factor - 1) / 2);
  const radius = (blur.length - 1) / 2;
  return Array.from({ length: to }, (_, index) => {
    const place = (index + 0.5) * factor - 0.5;
    const below = Math.floor(place);
    const share = place - below;
    const weights = new Map();
    for (const [at, part] of [
      [below, 1 - share],
      [below + 1, share],
    ]) {
      if (part === 0) continue;
      blur.forEach((weight, offset) => {
        // Interpolation continues the axis first, the blur beneath it once more.
        const sample = inside(inside(at, from, ends) + offset - radius, from, ends);
        weights.set(sample, (weights.get(sample) ?? 0) + part * weight);
      });
    }
    return [[...weights.keys()], [...weights.values()]];
  });
}

/** Weights of a Gaussian out to four standard deviations; [1] where there is nothing to blur. */
export function gaussian(deviation) {
  if (!(deviation > 0)) return [1];
  const radius = Math.floor(4 * deviation + 0.5);
  const weights = Array.from({ length: 2 * radius + 1 }, (_, index) =>
    Math.exp(-0.5 * ((index - radius) / deviation) ** 2),
  );
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return weights.map((weight) => weight / sum);
}

export function inside(index, size, ends) {
  if (ends === "edge" || size === 1) return Math.min(Math.max(index, 0), size - 1);
  const period = ends === "mirror" ? 2 * size - 2 : 2 * size;
  const place = ((index % period) + period) % period;
  return place < size ? place : period - place - (ends === "mirror" ? 0 : 1);
}

/** Apply taps to the rows and the columns of data [height, width, channels]. */
export function resample(data, height, width, channels, rows, columns) {
  const narrow = new Float64Array(height * columns.length * channels);
  for (let row = 0, to = 0; row < height; row++) {
    for (const [indices, weights] of columns) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let tap = 0; tap < indices.length; tap++) {
          sum += weights[tap] * data[(row * width + indices[tap]) * channels + channel];
        }
        narrow[to++] = sum;
      }
    }
  }
  const line = columns.length * channels;
  const result = new Float32Array(rows.length * line);
  rows.forEach(([indices, weights], row) => {
    for (let place = 0; place < line; place++) {
      let sum = 0;
      for (let tap = 0; tap < indices.length; tap++) {
        sum += weights[tap] * narrow[indices[tap] * line + place];
      }
      result[row * line + place] = sum;
    }
  });
  return result;
}
