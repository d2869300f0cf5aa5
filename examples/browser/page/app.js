// The page: which picture, which class, and what is shown of them.

import { Client, Stopped } from "./client.js";
import { Heat, Palette, contributions, enlarged, layOver, plain } from "./heat.js";
import { isolate } from "./isolated.js";
import { npy } from "./npy.js";
import { fit, readPicture, toInput } from "./picture.js";
import { Progress } from "./progress.js";
import * as report from "./report.js";

const at = (id) => document.getElementById(id);
const LARGE = 672; // pixels across at which photos are shown
const SMALL = 64; // models of smaller pictures show them pixel by pixel

const progress = new Progress();
const state = {
  about: null, // the model's entry in models.json
  client: null,
  palette: null,
  picture: null, // as it is shown
  input: null, // as the model takes it
  probabilities: null,
  target: null,
  explanation: null, // { attribution, delta, target, baseline, milliseconds }
  heats: {}, // per view, made from the explanation when first shown
  turn: 0, // counts what was asked for: answers to earlier questions are dropped
};

async function start() {
  if (await isolate()) return; // the page loads again
  const { models, colours } = await (await fetch("models/models.json")).json();
  state.palette = new Palette(colours);
  report.showModels(models, openModel);
  listen();
  const wanted = new URLSearchParams(location.search).get("model");
  await openModel(models.find((about) => about.id === wanted) ?? models[0]);
}

async function openModel(about) {
  const turn = ++state.turn;
  state.client?.close();
  Object.assign(state, { about, client: null, picture: null, probabilities: null });
  forget();
  report.showModel(about);
  report.showSamples(about, (sample) => openSample(sample));
  try {
    const bytes = await progress.download(`models/${about.file}`, `Loading the model`);
    if (turn !== state.turn) return;
    state.client = new Client(about, bytes);
    progress.wait("Preparing the model");
    await state.client.ready;
    report.showMachine(state.client.threads);
    if (turn === state.turn && !state.picture) await openSample(about.samples[0]);
  } catch (error) {
    fail(error, turn);
  }
}

async function openSample(sample) {
  const turn = ++state.turn;
  interrupt();
  forget();
  report.pressSample(sample);
  try {
    const response = await fetch(`samples/${sample.file}`);
    if (!response.ok) throw new Error(`${response.url}: ${response.status} ${response.statusText}`);
    const blob = await response.blob();
    if (turn === state.turn) await openPicture(blob, sample.name, sample);
  } catch (error) {
    fail(error, turn);
  }
}

/** Show a picture, name what it shows, and explain that. */
async function openPicture(blob, name, sample = null) {
  if (!state.client) return;
  const turn = ++state.turn;
  interrupt();
  forget();
  report.pressSample(sample);
  try {
    const original = await readPicture(blob);
    const size = state.about.shape.slice(2);
    const fitted = fit(original, size);
    const large =
      Math.min(...size) < SMALL
        ? fitted
        : fit(original, [LARGE, LARGE * (size[1] / size[0])].map(Math.round));
    Object.assign(state, {
      picture: large,
      name,
      input: toInput(fitted, state.about),
      probabilities: null,
    });
    redraw();
    progress.wait("Looking");
    const { probabilities, milliseconds } = await state.client.predict(state.input);
    if (turn !== state.turn) return;
    Object.assign(state, { probabilities, predicting: milliseconds });
    await explain(probabilities.indexOf(Math.max(...probabilities)));
  } catch (error) {
    fail(error, turn);
  }
}

/** Explain a class, compared with the baseline that is chosen. */
async function explain(target) {
  if (!state.probabilities) return;
  const turn = ++state.turn;
  interrupt();
  forget();
  state.target = target;
  report.showAnswer(state.about, state.probabilities, target, explain);
  redraw();
  const { about, client, input } = state;
  const baseline = about.baselines[at("baseline").selectedIndex];
  progress.expect(`Explaining ${about.classes[target]}`, about, state.predicting, client.threads);
  try {
    const results = await client.explain(input, target, baseline.values);
    if (turn !== state.turn) return;
    progress.done(results.milliseconds);
    state.explanation = { ...results, target, baseline };
    report.showCompleteness(about, state.probabilities[target], state.explanation);
    redraw();
  } catch (error) {
    fail(error, turn);
  }
}

function interrupt() {
  if (progress.running) state.client?.stop();
  progress.hide();
}

function forget() {
  Object.assign(state, { explanation: null, heats: {} });
  report.clearCompleteness();
}

function fail(error, turn) {
  if (turn !== state.turn || error instanceof Stopped) return;
  progress.hide();
  report.showFailure(error);
}

function heatOf(view) {
  const [, , height, width] = state.about.shape;
  const values = state.explanation.attribution;
  state.heats[view] ??= new Heat(
    contributions(values, state.about.shape, view === "signs"),
    height,
    width,
  );
  return state.heats[view];
}

function draw() {
  const view = document.querySelector("input[name=view]:checked").value;
  const share = at("share").value / 100;
  const opacity = at("opacity").value / 100;
  const canvas = at("canvas");
  at("opacity-value").value = `${at("opacity").value} %`;
  report.showLegend(view);
  if (!state.picture) return;
  const { picture, explanation, about } = state;
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.classList.toggle("pixels", picture.width < SMALL);
  let image = plain(picture);
  let part = null;
  if (explanation && view !== "photo") {
    const heat = heatOf(view);
    const shown = heat.shown(share);
    part = shown.part;
    const map = enlarged({ ...heat, map: shown.map }, picture);
    image = layOver(picture, map, { signed: view === "signs", opacity, palette: state.palette });
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  report.showShare(share, part);
  const what =
    explanation && view !== "photo"
      ? `, with the pixels that matter for ${about.classes[explanation.target]}`
      : "";
  canvas.setAttribute("aria-label", `${state.name}${what}`);
}

let drawing = 0;
/** Draw once before the next frame, however often this is called. */
function redraw() {
  drawing ||= requestAnimationFrame(() => {
    drawing = 0;
    draw();
  });
}

function listen() {
  for (const id of ["share", "opacity", "views"]) at(id).addEventListener("input", redraw);
  at("stop").addEventListener("click", () => {
    state.turn++;
    interrupt();
    report.showStopped(() => explain(state.target));
  });
  at("baseline").addEventListener("change", () => explain(state.target));
  at("other").addEventListener("change", ({ target: field }) => {
    const place = state.about.classes.indexOf(field.value.trim().toLowerCase());
    const chosen = place >= 0 ? place : state.about.classes.indexOf(field.value.trim());
    field.setCustomValidity(
      chosen >= 0 || !field.value ? "" : "The model has no class of this name",
    );
    field.reportValidity();
    if (chosen >= 0) explain(chosen);
  });
  at("file").addEventListener("change", ({ target: field }) => {
    if (field.files[0]) openPicture(field.files[0], field.files[0].name);
    field.value = "";
  });
  at("save-picture").addEventListener("click", () =>
    at("canvas").toBlob((blob) => save(blob, "png")),
  );
  at("save-numbers").addEventListener("click", () =>
    save(npy(state.explanation.attribution, state.about.shape), "npy"),
  );
  listenForDrops();
}

function listenForDrops() {
  const carried = (event) =>
    [...(event.dataTransfer ?? event.clipboardData).items].find((item) => item.kind === "file");
  const open = (event) => {
    const file = carried(event)?.getAsFile();
    if (!file) return;
    event.preventDefault();
    openPicture(file, file.name);
  };
  addEventListener("paste", open);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    at("drop").hidden = !carried(event);
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) at("drop").hidden = true;
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    at("drop").hidden = true;
    open(event);
  });
}

function save(blob, ending) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${state.name.replace(/\.\w+$/, "")}_${state.about.classes[state.explanation.target]}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

start().catch((error) => report.showFailure(error));
