// Shows faces, probabilities and the model card. Given what the server says; asks nobody.

const element = (id) => document.getElementById(id);
const percent = (share) => `${Math.round(share * 100)}\u00a0%`;
const counted = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

// Hues that people expect, for the usual names; others get what is left, evenly.
const USUAL = { angry: 25, contempt: 55, happy: 85, disgust: 130, surprise: 190, sad: 250, fear: 300, neutral: 220 };

/** A hue for each label. */
export function hues(labels) {
  return new Map(labels.map((label, index) => [label, USUAL[label] ?? Math.round((index * 360) / labels.length) + 10]));
}

/** Gives an element the colour of a label. */
export function paint(element, label, colours) {
  element.style.setProperty("--hue", colours.get(label));
  // A face that shows nothing is grey.
  element.style.setProperty("--strength", label === "neutral" ? 0.15 : 1);
}

/** The most probable label of a face, also where the model gives none. */
export function best(face) {
  return Object.entries(face.probabilities).reduce((a, b) => (b[1] > a[1] ? b : a))[0];
}

function title(face) {
  return face.label ? `${face.label} ${percent(face.score)}` : `unsure: ${best(face)}? ${percent(face.score)}`;
}

/** Puts a button around each face. `select` is called with a face's index. */
export function showBoxes(image, selected, mirrored, colours, select) {
  const boxes = element("boxes");
  const faces = image?.faces ?? [];
  // Buttons are kept, so that the focus stays where it is while a camera runs; on the selected face it goes along with it.
  const focused = boxes.contains(document.activeElement) ? document.activeElement : null;
  const onSelected = focused?.getAttribute("aria-pressed") === "true";
  while (boxes.children.length > faces.length) boxes.lastChild.remove();
  while (boxes.children.length < faces.length) {
    const button = document.createElement("button");
    const index = boxes.children.length;
    button.type = "button";
    button.append(document.createElement("span"));
    button.addEventListener("click", () => select(index));
    boxes.append(button);
  }
  faces.forEach((face, index) => {
    const button = boxes.children[index];
    const [x, y, width, height] = face.box;
    const left = mirrored ? image.width - x - width : x;
    const place = { left: left / image.width, top: y / image.height, width: width / image.width, height: height / image.height };
    for (const [side, share] of Object.entries(place)) button.style[side] = `${share * 100}%`;
    paint(button, best(face), colours);
    button.classList.toggle("unsure", !face.label);
    button.classList.toggle("below", place.top < 0.07);
    button.classList.toggle("right", place.left + place.width > 0.8);
    button.classList.toggle("small", faces.length > 1 && place.width < 0.13);
    button.setAttribute("aria-pressed", String(index === selected));
    button.setAttribute("aria-label", `Face ${index + 1} of ${faces.length}: ${title(face)}`);
    button.firstChild.textContent = title(face);
  });
  if (focused && (onSelected || !focused.isConnected)) boxes.querySelector('[aria-pressed="true"]')?.focus();
}

/** Makes a bar for each label. */
export function prepareBars(labels, colours) {
  const rows = labels.map((label) => {
    const row = document.createElement("li");
    row.dataset.label = label;
    paint(row, label, colours);
    const name = document.createElement("b");
    name.textContent = label;
    const track = document.createElement("div");
    track.className = "track";
    track.append(document.createElement("i"));
    // No `output`: what changes in it is read out, here with every frame.
    const share = document.createElement("span");
    share.textContent = "–";
    row.append(name, track, share);
    return row;
  });
  element("bars").replaceChildren(...rows);
}

/** Shows what is known about a face, or that there is none. */
export function showFace(face, index, count, nothing) {
  element("certainty").hidden = !face;
  for (const row of element("bars").children) {
    const share = face?.probabilities[row.dataset.label];
    row.querySelector("i").style.width = `${(share ?? 0) * 100}%`;
    row.querySelector("span").textContent = share === undefined ? "–" : percent(share);
    row.classList.toggle("best", Boolean(face) && row.dataset.label === best(face));
  }
  if (!face) {
    // Without a count nobody has looked yet.
    element("who").textContent = count === null ? "–" : count ? "Out of sight" : "No face";
    element("verdict").textContent = nothing;
    return;
  }
  element("who").textContent = count > 1 ? `Face ${index + 1} of ${count}` : "The face";
  element("verdict").textContent = face.label
    ? `Looks most like “${face.label}”, with ${percent(face.score)}. Found with a confidence of ${percent(face.confidence)}.`
    : `The model abstains: its best guess, “${best(face)}”, has ${percent(face.score)} only.`;
  element("needle").style.left = `${(1 - face.entropy) * 100}%`;
  element("sureness").textContent = `${sureness(face)} Spread of the probabilities: ${face.entropy.toFixed(2)} (0 is one answer, 1 is a guess).`;
}

function sureness(face) {
  const [first, second] = Object.entries(face.probabilities).sort((a, b) => b[1] - a[1]);
  if (!face.label) return "Not sure enough for a label.";
  if (face.score < 0.4) return "Unsure: no class stands out.";
  if (second && first[1] - second[1] < 0.2) return `Between “${first[0]}” and “${second[0]}”.`;
  return face.score < 0.7 ? `Leaning to “${first[0]}”.` : `Clear: “${first[0]}”.`;
}

/** Shows the model's facts. */
export function showCard(card) {
  const rows = [
    ["Name", card.name],
    ["Classes", card.labels.join(", ")],
    ["Reads", `${card.width} × ${card.height} grey pixels of one face`],
    ["Size", `${short(card.parameters)} parameters, ${short(card.multiply_adds)} multiply-adds a view, ${counted(card.views, "view")} a face`],
    ["Finds faces by", card.faces],
    ["Abstains", card.abstain_below > 0 ? `below ${percent(card.abstain_below)}` : "never"],
    ...measured(card.metrics),
    ...trained(card.training),
    ["Limits", `${counted(card.pictures, "picture")}, ${short(card.body_bytes)}B a request; ${short(card.pixels)} pixels a picture`],
  ];
  const cells = rows.flatMap(([name, value]) => {
    const [term, description] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, description.textContent] = [name, value];
    return [term, description];
  });
  element("facts").replaceChildren(...cells);
  element("version").textContent = `Vultus ${card.version}`;
}

function short(number) {
  const [unit, name] = [[1e9, " G"], [1e6, " M"], [1e3, " k"]].find(([unit]) => number >= unit) ?? [1, " "];
  return `${Number((number / unit).toPrecision(3))}${name}`;
}

function measured(metrics) {
  return (Array.isArray(metrics) ? metrics : [metrics])
    .filter((entry) => typeof entry?.accuracy === "number")
    .map((entry) => {
      const exact = (share) => (share * 100).toFixed(1);
      const interval = entry.accuracy_interval?.map(exact).join(" to ");
      const images = entry.n ? ` of ${counted(entry.n, "image")}` : "";
      return ["Accuracy when trained", `${exact(entry.accuracy)} %${interval ? ` (${interval})` : ""}${images}${entry.split ? ` in ${entry.split}` : ""}`];
    });
}

function trained(training) {
  const rows = [];
  const sources = [training?.sources].flat().filter((source) => typeof source === "string");
  if (sources.length) rows.push(["Trained on", sources.join(", ")]);
  const images = training?.images?.train;
  if (typeof images === "number") rows.push(["Images", `${images} to train on`]);
  if (typeof training?.selection === "string") rows.push(["Chosen", training.selection]);
  return rows;
}

/** Says what happens, or what went wrong, to those who listen, too. */
export function say(text, bad = false) {
  const message = element("message");
  // What is written again is read out again.
  if (message.textContent !== text) message.textContent = text;
  message.classList.toggle("bad", bad);
}

/** Shows how many frames a second there are, to those who look. */
export function showRate(rate) {
  element("rate").textContent = rate === null ? "" : `${rate < 10 ? rate.toFixed(1) : Math.round(rate)} frames a second`;
}
