// The page: a picture or the camera goes to the server, and what it says is shown.

import { Refusal, analyze, card, hasToken, openStream, useToken } from "/server.js";
import { hues, prepareBars, say, showBoxes, showCard, showFace, showRate } from "/view.js";
import { Person } from "/person.js";
import { Timeline } from "/timeline.js";

const element = (id) => document.getElementById(id);
const stage = element("stage");
const [picture, video] = [element("picture"), element("video")];

/** What the server reads. Other pictures that the browser shows are sent as JPEG. */
const READ = ["image/png", "image/jpeg", "image/bmp", "image/webp"];
/** Longest side of what is sent of a camera's frame, and of a picture that is made anew for the server. */
const [FRAME_PX, PICTURE_PX] = [640, 2048];

let model = null;
let colours = new Map();
let timeline = null;
let image = null;
/** Index of the selected face; -1 while the person of the camera who is looked at is not seen. */
let selected = 0;
/** The person before the camera who is looked at. */
let person = new Person();
let camera = null;
/** Counts what was opened, so that what is no longer shown says nothing. */
let turn = 0;
/** Takes back what was asked about a picture that is no longer shown. */
let asked = new AbortController();

const inCamera = () => stage.dataset.mode === "camera";

function show(answer) {
  image = answer;
  const faces = image?.faces ?? [];
  showBoxes(image, selected, inCamera(), colours, select);
  showFace(faces[selected], selected, image && faces.length, nothing(faces));
}

function nothing(others) {
  if (!image) return "";
  if (!inCamera()) return "No face was found in this picture.";
  return others.length ? "The selected face is not seen. Another one can be selected." : "No face is seen. More light or less distance may help.";
}

function select(index) {
  if (index !== selected) timeline.clear();
  selected = index;
  person = new Person(image.faces[index], index);
  show(image);
}

function fail(error) {
  if (error?.code === "unauthorized") {
    // The server's own words are for programs.
    const text = hasToken() ? "This is not the server's token." : "";
    element("wrong").textContent = text;
    say(text || "The server asks for a token.", true);
    // Links carry no token.
    element("metrics").hidden = true;
    element("unlock").hidden = false;
    return element("lock").showModal();
  }
  const text = error instanceof Refusal ? error.message : String(error?.message ?? error);
  say(text.charAt(0).toUpperCase() + text.slice(1), true);
}

/** The model is asked for once at a time. */
let starting = null;
const known = () => (starting ??= start().finally(() => (starting = null)));
/** Counts what people wanted opened: of what waits for the model, the last is opened. */
let wanted = 0;
/** Opens what was wanted before the model was known, as when the server asks for a token; nothing once that is put off. */
let again = null;

async function start() {
  try {
    model = await card();
  } catch (error) {
    element("state").textContent = error.code === "unauthorized" ? "locked" : "not connected";
    element("state").dataset.ok = "no";
    return fail(error);
  }
  element("state").textContent = `${model.name} is ready`;
  element("state").dataset.ok = "yes";
  element("unlock").hidden = true;
  colours = hues(model.labels);
  timeline = new Timeline(element("timeline"), model.labels, colours);
  prepareBars(model.labels, colours);
  showCard(model);
  say("");
  const wish = again;
  again = null;
  wish?.();
}

// Pictures.

async function open(file) {
  const latest = ++wanted;
  again = null;
  if (!model) await known();
  if (latest !== wanted) return;
  if (!model) return void (again = () => open(file));
  if (!file) return say("There is no file in this. A picture that is copied can be pasted; one that is saved can be chosen.", true);
  // A picture may have no type, if its name does not tell it: the browser looks into it.
  if (file.type && !file.type.startsWith("image/")) return say("This file is no picture.", true);
  stop();
  asked.abort();
  asked = new AbortController();
  const mine = ++turn;
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(file);
  picture.alt = `The picture ${file.name || "that was pasted"}`;
  picture.hidden = false;
  stage.dataset.mode = "picture";
  element("timeline").hidden = true;
  stage.classList.add("busy");
  selected = 0;
  show(null);
  say("Looking for faces");
  try {
    await picture.decode();
    if (turn !== mine) return;
    const started = performance.now();
    const sent = await fitting(file);
    if (turn !== mine) return;
    const answer = await analyze(sent, asked.signal);
    if (turn !== mine) return;
    show(answer);
    const count = answer.faces.length;
    const found = count === 1 ? "One face" : count ? `${count} faces` : "No face";
    say(`${found}, ${Math.round(performance.now() - started)} ms`);
  } catch (error) {
    if (turn !== mine) return;
    if (error.code === "unauthorized") again = () => open(file);
    fail(error instanceof DOMException ? new Refusal("damaged", "The picture cannot be shown: it is damaged or of an unknown kind.") : error);
  } finally {
    if (turn === mine) stage.classList.remove("busy");
  }
}

/** The file, or a copy of it if the server does not take it as it is. */
async function fitting(file) {
  const [width, height] = [picture.naturalWidth, picture.naturalHeight];
  if (READ.includes(file.type) && file.size <= model.body_bytes && width * height <= model.pixels) return file;
  return smaller(picture, width, height, PICTURE_PX, 0.92);
}

/** A JPEG of what is shown, no longer than `longest` and no larger than the server takes it. */
async function smaller(source, width, height, longest, quality) {
  // It has less than a byte a pixel.
  const pixels = Math.min(model.pixels, model.body_bytes);
  const scale = Math.min(1, longest / Math.max(width, height), Math.sqrt(pixels / (width * height)));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height].map((side) => Math.max(1, Math.floor(side * scale)));
  canvas.getContext("2d").drawImage(source, 0, 0, canvas.width, canvas.height);
  const made = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", quality));
  if (!width || !height || !made) throw new Refusal("damaged", "The picture cannot be sent: it has no size of its own.");
  return made;
}

// The camera. One frame is on its way at a time: the picture is never behind.

async function watch() {
  const latest = ++wanted;
  again = null;
  if (!model) await known();
  if (latest !== wanted) return;
  if (!model) return void (again = watch);
  stop();
  say("Waiting for the camera");
  const run = { stream: null, socket: null, isSeen: false, frames: 0, since: performance.now() };
  camera = run;
  element("camera").textContent = "Stop waiting";
  try {
    if (!navigator.mediaDevices) throw new Refusal("camera", "The browser gives the camera to pages on this machine or over HTTPS only.");
    run.stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 960 }, facingMode: "user" } });
    if (camera !== run) return end(run);
    // Unplugged, or taken back from the page.
    run.stream.getVideoTracks()[0].addEventListener("ended", () => camera === run && (stop(), say("The camera has gone.", true)));
    video.srcObject = run.stream;
    await video.play();
    run.socket = openStream((answer) => seen(run, answer), (reason) => camera === run && (stop(), say(reason ? `Ended: ${reason}.` : "The stream has ended.", true)));
    await run.socket.opened;
  } catch (error) {
    // Who has stopped it knows.
    if (camera !== run) return end(run);
    stop();
    const denied = error instanceof DOMException;
    return fail(denied ? new Refusal("camera", "There is no camera, or the page may not use it.") : error);
  }
  turn += 1;
  asked.abort();
  stage.classList.remove("busy");
  picture.hidden = true;
  video.hidden = false;
  stage.dataset.mode = "camera";
  element("timeline").hidden = false;
  element("camera").textContent = "Stop the camera";
  selected = 0;
  person = new Person();
  timeline.clear();
  show(null);
  next(run);
}

async function next(run) {
  if (camera !== run) return;
  try {
    const frame = await smaller(video, video.videoWidth, video.videoHeight, FRAME_PX, 0.85);
    if (camera === run) run.socket.send(frame);
  } catch (error) {
    if (camera === run) unseen(run, error.message);
  }
}

/** A frame of which nothing is known: what is known of earlier ones is not shown with it. */
function unseen(run, reason) {
  say(reason, true);
  show(null);
  showRate(null);
  timeline.add();
  [run.isSeen, run.frames, run.since] = [false, 0, performance.now()];
  setTimeout(() => next(run), 1000);
}

function seen(run, answer) {
  if (camera !== run) return;
  if (answer.error) return unseen(run, answer.error.message);
  // Once: other messages are there to be read.
  if (!run.isSeen) say("The camera is on.");
  run.isSeen = true;
  selected = person.follow(answer.faces);
  if (selected < 0 && answer.faces.length && person.isGone()) {
    // Somebody else, from here on.
    person = new Person();
    timeline.clear();
    selected = person.follow(answer.faces);
  }
  show(answer);
  timeline.add(answer.faces[selected]);
  run.frames += 1;
  const now = performance.now();
  if (now - run.since > 1000) {
    showRate((run.frames * 1000) / (now - run.since));
    [run.frames, run.since] = [0, now];
  }
  soon(() => next(run));
}

/** Not faster than the screen; once a minute while the page is hidden, so that the server does not take it for gone. */
function soon(act) {
  const once = () => {
    cancelAnimationFrame(frame);
    clearTimeout(timer);
    act();
  };
  const frame = requestAnimationFrame(once);
  const timer = setTimeout(once, 60_000);
}

function end(run) {
  run.stream?.getTracks().forEach((track) => track.stop());
  run.socket?.close();
}

function stop() {
  if (!camera) return;
  const run = camera;
  camera = null;
  end(run);
  video.srcObject = null;
  video.hidden = true;
  if (inCamera()) {
    stage.dataset.mode = "empty";
    show(null);
  }
  element("camera").textContent = "Use the camera";
  showRate(null);
  say("");
}

// What people do.

element("file").addEventListener("change", (event) => {
  open(event.target.files[0]);
  event.target.value = "";
});
element("camera").addEventListener("click", () => (camera ? stop() : watch()));
document.addEventListener("paste", (event) => event.target.closest("dialog") ?? open(event.clipboardData.files[0]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("over");
});
document.addEventListener("dragleave", (event) => event.relatedTarget ?? stage.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  open(event.dataTransfer.files[0]);
});
document.addEventListener("keydown", (event) => {
  const count = image?.faces?.length ?? 0;
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step || !count || event.target.closest("dialog")) return;
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const from = selected < 0 && step < 0 ? 0 : selected;
  select((from + step + count) % count);
  element("boxes").children[selected].focus();
});
element("lock").addEventListener("submit", () => {
  useToken(element("token").value);
  // The dialog closes first.
  setTimeout(known);
});
element("lock").addEventListener("close", () => {
  element("token").value = "";
});
element("lock").addEventListener("cancel", () => (again = null));
element("later").addEventListener("click", () => {
  again = null;
  element("lock").close();
});
element("unlock").addEventListener("click", known);
window.addEventListener("pagehide", stop);

known();
