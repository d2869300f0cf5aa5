// What the page says in words and numbers.

const at = (id) => document.getElementById(id);
const FEW = 10; // classes that are all listed
const SHOWN = 5; // classes listed of more

const percent = (value, digits = 1) => `${(100 * value).toFixed(digits)}%`;
const probability = (value) => (value > 0 && value < 0.0005 ? "<0.1%" : percent(value));
const points = (value) => `${value < 0 ? "−" : "+"}${(100 * Math.abs(value)).toFixed(1)} points`;
const seconds = (milliseconds) =>
  milliseconds < 950 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function choice(name, text, chosen, onchange) {
  const input = element("input", { type: "radio", name, checked: chosen });
  input.addEventListener("change", onchange);
  return element("label", {}, input, element("span", { textContent: text }));
}

export function showModels(models, open) {
  at("models").hidden = models.length < 2;
  at("models").append(
    ...models.map((about) => choice("model", about.title, false, () => open(about))),
  );
  at("models").choose = (about) => {
    at("models").querySelectorAll("input")[models.indexOf(about)].checked = true;
  };
}

export function showModel(about) {
  at("models").choose(about);
  at("answer").textContent = "…";
  at("classes").disabled = true;
  at("classes")
    .querySelectorAll("label")
    .forEach((label) => label.remove());
  at("other-field").hidden = about.classes.length <= FEW;
  at("other").value = "";
  at("names").replaceChildren(...about.classes.map((name) => element("option", { value: name })));
  at("baseline").replaceChildren(
    ...about.baselines.map(({ name }) => element("option", { textContent: name })),
  );
  at("method").textContent =
    `${about.description} Integrated Gradients (Sundararajan, Taly and Yan, 2017), ${about.steps} steps, inside the ONNX file itself.`;
}

export function showMachine(threads) {
  at("machine").textContent =
    `ONNX Runtime Web on WebAssembly, ${threads === 1 ? "one thread" : `${threads} threads`}.`;
}

export function showSamples(about, open) {
  const buttons = about.samples.map((sample) => {
    const image = element("img", {
      src: `samples/${sample.file}`,
      alt: sample.name,
      title: sample.name,
    });
    image.classList.toggle("pixels", about.shape[2] < 64);
    const button = element("button", { type: "button", ariaPressed: "false" }, image);
    button.addEventListener("click", () => open(sample));
    return button;
  });
  at("samples").replaceChildren(...buttons);
  at("samples").names = about.samples;
}

export function pressSample(sample) {
  [...at("samples").children].forEach((button, place) => {
    button.ariaPressed = String(at("samples").names[place] === sample);
  });
}

/** The most probable class, and those that can be explained; `target` is the one that is. */
export function showAnswer(about, probabilities, target, explain) {
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  const [best] = order;
  const surely = element("small", { textContent: probability(probabilities[best]) });
  at("answer").replaceChildren(about.classes[best], " ", surely);
  const listed = order.slice(0, order.length <= FEW ? FEW : SHOWN);
  if (!listed.includes(target)) listed.push(target);
  const focused = at("classes").contains(document.activeElement);
  at("classes")
    .querySelectorAll("label")
    .forEach((label) => label.remove());
  for (const place of listed) {
    const [name, chance] = [about.classes[place], probability(probabilities[place])];
    const input = element("input", {
      type: "radio",
      name: "class",
      checked: place === target,
      ariaLabel: `${name}, ${chance}`,
    });
    input.addEventListener("change", () => explain(place));
    const bar = element("i", { ariaHidden: "true" });
    bar.style.scale = `${probabilities[place]} 1`;
    const words = [element("b", { textContent: name }), element("output", { textContent: chance })];
    at("classes").append(element("label", {}, input, bar, ...words));
    if (focused && place === target) input.focus();
  }
  at("classes").disabled = false;
}

/** Compare the sum of the contributions with the change of the score, of which `delta` is the difference. */
export function showCompleteness(
  about,
  score,
  { attribution, delta, baseline, target, milliseconds },
) {
  const sum = attribution.reduce((total, value) => total + value, 0);
  const change = sum - delta;
  const scale = Math.max(Math.abs(sum), Math.abs(change)) || 1;
  at("change").textContent = points(change);
  at("sum").textContent = points(sum);
  at("change-bar").style.scale = `${Math.abs(change) / scale} 1`;
  at("sum-bar").style.scale = `${Math.abs(sum) / scale} 1`;
  const before = Math.min(Math.max(score - change, 0), 1);
  const error = Math.abs(delta) / (Math.abs(change) || 1);
  const little = Math.abs(change) < 0.005;
  at("completeness").replaceChildren(
    element("b", { textContent: `${little ? "There is little to explain" : verdict(error)}. ` }),
    `To the model, ${baseline.name.toLowerCase()} is “${about.classes[target]}” with a probability of ${probability(before)}, this picture with ${probability(score)}. `,
    little ? "" : `Completeness error ${percent(error)}. `,
    `Computed in ${seconds(milliseconds)}.`,
  );
  at("save-picture").disabled = at("save-numbers").disabled = false;
  Object.assign(at("completeness").dataset, { delta, sum, milliseconds, target });
}

function verdict(error) {
  if (error < 0.05) return "It adds up";
  return error < 0.2 ? "It nearly adds up" : "It does not add up well: take it as a sketch";
}

export function clearCompleteness() {
  for (const id of ["change", "sum"]) {
    at(id).textContent = "–";
    at(`${id}-bar`).style.scale = "0 1";
  }
  at("completeness").textContent =
    "The contributions of all pixels should add up to what the picture changed.";
  at("save-picture").disabled = at("save-numbers").disabled = true;
  for (const name of Object.keys(at("completeness").dataset))
    delete at("completeness").dataset[name];
}

export function showStopped(resume) {
  const again = element("button", { type: "button", textContent: "Explain again" });
  again.addEventListener("click", resume);
  at("completeness").replaceChildren("Stopped. ", again);
}

export function showFailure(error) {
  const reason =
    error.name === "InvalidStateError"
      ? "this file is not a picture that the browser can read"
      : error.message;
  at("completeness").replaceChildren(
    element("span", { className: "wrong", textContent: `That did not work: ${reason}` }),
  );
  if (at("answer").textContent === "…") at("answer").textContent = "No answer";
}

export function showLegend(view) {
  at("legend").hidden = view === "photo";
  at("legend").classList.toggle("signs", view === "signs");
  at("legend-low").textContent = view === "signs" ? "against" : "weak";
  at("legend-high").textContent = view === "signs" ? "for" : "strong";
}

export function showShare(share, part) {
  const all = share >= 1 ? "every pixel" : `strongest ${percent(share, 0)}`;
  at("share-value").value =
    part === null || share >= 1 ? all : `${all}, in ${percent(part)} of pixels`;
}
