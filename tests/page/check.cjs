// Looks at the page of `vultus serve` with Chromium; README.md says how to run it.

const assert = require("node:assert/strict");
const { spawn } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { parseArgs } = require("node:util");
const { chromium } = require("playwright-core");

const { values: given } = parseArgs({
  options: Object.fromEntries(["vultus", "chromium", "model", "portrait", "group", "shots", "face-model"].map((name) => [name, { type: "string" }])),
});
const shots = given.shots ?? "shots";
fs.mkdirSync(shots, { recursive: true });
let { portrait, group } = given;
let two;
const TOKEN = "a-token-for-the-page";
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true };

/** Starts a server on a free port and gives its address. */
async function serve(environment = {}, ...more) {
  const options = ["model", "face-model"].flatMap((name) => (given[name] ? [`--${name}`, given[name]] : []));
  const server = spawn(given.vultus, ["serve", "--port", "0", ...options, ...more], {
    env: { ...process.env, ...environment },
    stdio: ["ignore", "pipe", "inherit"],
  });
  process.on("exit", () => server.kill());
  for await (const chunk of server.stdout) {
    const address = /http:\S+/.exec(String(chunk));
    if (address) return { address: address[0], stop: () => ended(server) };
  }
  throw new Error("the server did not start");
}

function ended(server) {
  server.kill("SIGINT");
  return new Promise((resolve) => server.on("exit", resolve));
}

function launch(...flags) {
  return chromium.launch({ executablePath: given.chromium, args: ["--no-sandbox", ...flags] });
}

/** Makes pictures of faces.svg: one face, and two. They are the portrait and the group where none are given. */
async function draw() {
  const browser = await launch();
  const page = await browser.newPage({ viewport: { width: 1200, height: 660 } });
  await page.goto(`file://${path.join(__dirname, "faces.svg")}`);
  const picture = async (name, width) => {
    const file = path.join(shots, `${name}.png`);
    await page.screenshot({ path: file, clip: { x: 0, y: 0, width, height: 660 } });
    return file;
  };
  portrait ??= await picture("one-face", 640);
  two = await picture("two-faces", 1200);
  group ??= two;
  await browser.close();
}

/** A page that reports what it should not do. */
async function open(browser, address, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1240, height: 860 }, ...options });
  const page = await context.newPage();
  page.faults = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && page.faults.push(message.text()));
  page.on("pageerror", (error) => page.faults.push(String(error)));
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol.startsWith("http") && url.origin !== address) page.faults.push(`asked ${url}`);
  });
  await page.goto(address);
  return page;
}

async function ready(page) {
  await page.waitForFunction(() => document.getElementById("state").dataset.ok === "yes");
}

async function show(page, file) {
  await page.setInputFiles("#file", file);
  await says(page, "ms$");
}

async function says(page, pattern, id = "message") {
  await page.waitForFunction(({ pattern, id }) => new RegExp(pattern).test(document.getElementById(id).textContent), { pattern, id });
}

/** What is written in `time` milliseconds to where screen readers read out what changes. */
async function readOut(page, time) {
  return page.evaluate(async (time) => {
    const read = [];
    const observer = new MutationObserver((changes) => read.push(...changes.map((change) => change.target.textContent)));
    for (const place of document.querySelectorAll("output, [role=status], [role=alert], [role=log], [aria-live]")) {
      observer.observe(place, { childList: true, characterData: true, subtree: true });
    }
    await new Promise((done) => setTimeout(done, time));
    observer.disconnect();
    return read;
  }, time);
}

/** Goes to an element with the tabulator key. */
async function tabTo(page, selector) {
  for (let step = 0; step < 20; step += 1) {
    await page.keyboard.press("Tab");
    if (await page.evaluate((selector) => document.activeElement.matches(selector), selector)) return;
  }
  assert.fail(`the tabulator key does not lead to ${selector}`);
}

/** Drags something over the picture and drops it; `data` is an Input.DragData of Chromium's protocol. */
async function drop(page, data) {
  const { x, y, width, height } = await page.locator("#stage").boundingBox();
  const session = await page.context().newCDPSession(page);
  const drag = (type) =>
    session.send("Input.dispatchDragEvent", { type, x: x + width / 2, y: y + height / 2, data: { items: [], dragOperationsMask: 1, ...data } });
  await drag("dragEnter");
  await drag("dragOver");
  await page.waitForSelector("#stage.over");
  await drag("drop");
  await page.waitForSelector("#stage:not(.over)");
}

/** Copies something, by its type and in base64, and pastes it. */
async function paste(page, type, data) {
  await page.evaluate(async ({ type, data }) => {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    await navigator.clipboard.write([new ClipboardItem({ [type]: new Blob([bytes], { type }) })]);
  }, { type, data });
  await page.keyboard.press("Control+V");
}

function facts(page) {
  return page.$$eval("#facts dt", (terms) => Object.fromEntries(terms.map((term) => [term.textContent, term.nextSibling.textContent])));
}

async function isNotWiderThanThePhone(page) {
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert(overflow <= 0, `the page is ${overflow} px wider than a phone`);
}

async function shoot(page, name) {
  await page.waitForTimeout(400);
  await page.screenshot({ path: path.join(shots, `${name}.jpg`), type: "jpeg", quality: 82, fullPage: true });
}

/** The sum of the bars in per cent. */
function sumOfBars(page) {
  return page.$$eval("#bars span", (outputs) => outputs.reduce((sum, output) => sum + parseFloat(output.textContent), 0));
}

/** At one moment: a camera's boxes come and go. */
async function boxesAreInside(page) {
  const outside = await page.evaluate(() => {
    const frame = document.getElementById("frame").getBoundingClientRect();
    const boxes = [...document.querySelectorAll("#boxes button")].map((box) => box.getBoundingClientRect());
    return boxes.filter((box) =>
      box.left < frame.left - 3 || box.top < frame.top - 3 || box.right > frame.right + 3 || box.bottom > frame.bottom + 3).length;
  });
  assert.equal(outside, 0, "boxes are outside the picture");
}

async function pictures(address) {
  const browser = await launch();
  const page = await open(browser, address);
  await ready(page);
  await shoot(page, "empty");
  await show(page, portrait);
  assert.equal(await page.locator("#boxes button").count(), 1, "one face in the portrait");
  assert(Math.abs((await sumOfBars(page)) - 100) <= 4, "the bars sum to 100 %");
  await boxesAreInside(page);
  assert.match(await page.textContent("#sureness"), /^(Clear|Leaning|Between|Unsure).* Spread of the probabilities: [01]\.\d\d /);
  assert.match(await page.$eval("#needle", (needle) => needle.style.left), /^\d+(\.\d+)?%$/);
  await shoot(page, "portrait");

  const card = await (await fetch(`${address}/v1/model`)).json();
  const known = await facts(page);
  assert.deepEqual([known.Name, known.Classes, known["Finds faces by"], known.Abstains], [card.name, card.labels.join(", "), card.faces, "never"]);
  assert.match(known.Reads, new RegExp(`^${card.width} × ${card.height} `));
  assert.match(known.Size, /^[\d.]+ [kMG] parameters, /);
  assert(await page.locator("#metrics a").isVisible());

  await show(page, group);
  const count = await page.locator("#boxes button").count();
  assert(count > 1, "several faces in the group");
  await boxesAreInside(page);
  // By keyboard alone: to the first face, then to the next and to the last.
  await page.locator("#boxes button").first().focus();
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.textContent("#who"), `Face 2 of ${count}`);
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowLeft");
  assert.equal(await page.textContent("#who"), `Face ${count} of ${count}`);
  const focused = await page.evaluate(() => document.activeElement.getAttribute("aria-label"));
  assert(focused.startsWith(`Face ${count} of ${count}: `), focused);
  await page.keyboard.press("ArrowRight");
  await shoot(page, "group");

  // Another picture while the first is on its way: what was asked is taken back, and shown nowhere.
  let late = null;
  await page.route("**/v1/analyze", (route) => {
    late = route;
  }, { times: 1 });
  await page.setInputFiles("#file", group);
  while (!late) await page.waitForTimeout(20);
  const takenBack = page.waitForEvent("requestfailed", (request) => request.url().endsWith("/v1/analyze"));
  await show(page, portrait);
  const said = await page.textContent("#message");
  await takenBack;
  await page.waitForTimeout(300);
  assert.equal(await page.locator("#boxes button").count(), 1, "the faces are those of the picture that is shown");
  assert.equal(await page.textContent("#message"), said);

  // A file that is no picture, by its name an image.
  await page.setInputFiles("#file", { name: "face.png", mimeType: "image/png", buffer: Buffer.from("no picture") });
  await page.waitForFunction(() => document.getElementById("message").classList.contains("bad"));
  assert.equal(await page.locator("#boxes button").count(), 0);
  assert.deepEqual(page.faults, []);

  // Everything that can be used can be reached and has a name.
  const nameless = await page.$$eval("button, summary, a, input", (all) =>
    all.filter((one) => !(one.textContent.trim() || one.getAttribute("aria-label") || one.labels?.length)).map((one) => one.outerHTML));
  assert.deepEqual(nameless, []);

  const phone = await open(browser, address, PHONE);
  await ready(phone);
  await show(phone, portrait);
  await isNotWiderThanThePhone(phone);
  await shoot(phone, "phone");
  assert.deepEqual(phone.faults, []);
  await browser.close();
}

/** Pictures that are dropped and pasted, those that only the browser reads, and what is no picture. */
async function brought(address) {
  const browser = await launch();
  const page = await open(browser, address, { permissions: ["clipboard-read", "clipboard-write"] });
  await ready(page);
  const count = () => page.locator("#boxes button").count();
  const notes = path.resolve(shots, "notes.txt");
  fs.writeFileSync(notes, "no picture");
  await drop(page, { files: [path.resolve(two)] });
  await says(page, "^2 faces, .* ms$");
  await drop(page, { files: [notes] });
  await says(page, "no picture");
  await drop(page, { items: [{ mimeType: "text/uri-list", data: "https://example.com/face.png" }] });
  await says(page, "no file");
  assert.equal(await count(), 2, "what is no picture changes nothing");

  await paste(page, "image/png", fs.readFileSync(two, "base64"));
  await says(page, "^2 faces, .* ms$");
  await paste(page, "text/plain", Buffer.from("no picture").toString("base64"));
  await says(page, "no file");
  assert.equal(await count(), 2);

  await show(page, path.join(__dirname, "faces.svg"));
  assert.equal(await count(), 2, "a kind of picture that the server does not read");
  assert.deepEqual(page.faults, []);
  await browser.close();
}

/** Pictures that come before the page knows the model: the last one is shown. */
async function early(address) {
  const browser = await launch();
  const page = await open(browser, address);
  let release = null;
  const released = new Promise((resolve) => (release = resolve));
  await page.route("**/v1/model", async (route) => {
    await released;
    await route.continue();
  });
  await page.reload();
  await page.setInputFiles("#file", portrait);
  await page.setInputFiles("#file", two);
  release();
  await says(page, "^2 faces, .* ms$");
  await page.waitForTimeout(500);
  assert.equal(await page.locator("#boxes button").count(), 2);
  assert.deepEqual(page.faults, []);
  await browser.close();
}

/** Choosing a picture and a face with the keyboard alone. */
async function keyboard(address) {
  const browser = await launch();
  const page = await open(browser, address);
  const files = [portrait, two];
  page.on("filechooser", (chooser) => chooser.setFiles(files.shift()));
  await ready(page);
  await tabTo(page, "#file");
  assert.notEqual(await page.$eval("label[for=file]", (label) => getComputedStyle(label).outlineStyle), "none", "the focus is seen");
  await page.keyboard.press("Enter");
  await says(page, "^One face, .* ms$");
  await page.keyboard.press("Space");
  await says(page, "^2 faces, .* ms$");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.textContent("#who"), "Face 2 of 2");
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Space");
  assert.equal(await page.textContent("#who"), "Face 1 of 2");
  assert.deepEqual(page.faults, []);
  await browser.close();
}

/** A server whose model abstains. */
async function abstaining() {
  // And one that takes small pictures only: the page makes them smaller.
  const server = await serve({}, "--abstain-below", "1", "--max-pixels", "100000");
  const browser = await launch();
  const page = await open(browser, server.address);
  await ready(page);
  assert.match((await facts(page)).Abstains, /^below 100/);
  await show(page, portrait);
  assert.match(await page.textContent("#verdict"), /^The model abstains: its best guess, “.+”, has \d+/);
  assert.match(await page.textContent("#sureness"), /^Not sure enough/);
  assert.equal(await page.$eval("#boxes .unsure", (box) => getComputedStyle(box).borderTopStyle), "dashed");
  assert.match(await page.textContent("#boxes .unsure"), /^unsure: .+\? \d+/);
  assert(Math.abs((await sumOfBars(page)) - 100) <= 4, "the bars sum to 100 %");
  await shoot(page, "unsure");
  assert.deepEqual(page.faults, []);
  await browser.close();
  assert.equal(await server.stop(), 0, "the server ends well");
}

/** Frames of a camera that moves before a picture, as Motion JPEG; `zoom` is how much larger it is than they are. */
async function film(name, picture, zoom) {
  const file = path.resolve(shots, `${name}.mjpeg`);
  const browser = await launch();
  const page = await browser.newPage();
  const data = `data:image/png;base64,${fs.readFileSync(picture).toString("base64")}`;
  const frames = await page.evaluate(async ({ data, zoom }) => {
    const image = new Image();
    image.src = data;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
    const context = canvas.getContext("2d");
    const scale = Math.max(640 / image.width, 480 / image.height) * zoom;
    return Array.from({ length: 120 }, (_, index) => {
      const angle = (index / 120) * 2 * Math.PI;
      const [width, height] = [image.width * scale, image.height * scale];
      context.drawImage(image, (640 - width) / 2 + 20 * Math.sin(angle), (480 - height) / 2 + 12 * Math.cos(angle), width, height);
      return canvas.toDataURL("image/jpeg", 0.9).split(",")[1];
    });
  }, { data, zoom });
  fs.writeFileSync(file, Buffer.concat(frames.map((frame) => Buffer.from(frame, "base64"))));
  await browser.close();
  return file;
}

/** A browser with a camera before which a picture moves. */
async function withCamera(name, picture, zoom) {
  const file = await film(name, picture, zoom);
  return launch("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", `--use-file-for-fake-video-capture=${file}`);
}

async function camera(address) {
  const browser = await withCamera("camera", portrait, 1.15);
  const page = await open(browser, address, { permissions: ["camera"] });
  await ready(page);
  await tabTo(page, "#camera");
  await page.keyboard.press("Enter");
  await says(page, "frames a second", "rate");
  await says(page, "camera is on");
  assert.deepEqual(await readOut(page, 3000), [], "nothing is read out while nothing happens");
  // A finder may miss a face in one frame or another: there is one with its box, and an area in the timeline for every class.
  await page.waitForFunction(() => {
    const drawn = [...document.querySelectorAll("#timeline path")].filter((one) => one.getAttribute("d").length > 100).length;
    return document.querySelectorAll("#boxes button").length === 1 && drawn > 0 && drawn === document.querySelectorAll("#bars li").length;
  });
  assert.match(await page.textContent("#trend"), /on average/);
  console.log(`camera: ${await page.textContent("#rate")}`);
  await boxesAreInside(page);
  await shoot(page, "camera");

  // What cannot be opened is said for as long as it takes to read it, and the camera stays on.
  await page.setInputFiles("#file", { name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no picture") });
  await says(page, "no picture");
  await page.waitForTimeout(500);
  await says(page, "no picture");
  // A frame that the browser cannot make: nothing is shown of earlier ones, and the next is tried.
  await page.evaluate(() => {
    const { toBlob } = HTMLCanvasElement.prototype;
    HTMLCanvasElement.prototype.toBlob = (done) => done(null);
    window.mend = () => (HTMLCanvasElement.prototype.toBlob = toBlob);
  });
  await says(page, "cannot be sent");
  assert.equal(await page.locator("#boxes button").count(), 0);
  assert.deepEqual([await page.textContent("#rate"), await page.textContent("#who")], ["", "–"]);
  await page.evaluate(() => window.mend());
  await says(page, "camera is on");
  await page.waitForFunction(() => document.querySelectorAll("#boxes button").length === 1);

  await page.locator("#camera").focus();
  await page.keyboard.press("Space");
  await page.waitForFunction(() => document.getElementById("video").hidden && !document.getElementById("video").srcObject);
  await show(page, two);
  assert(await page.locator("#timeline").isHidden(), "a picture has no timeline");
  // Unplugged.
  await page.click("#camera");
  await says(page, "camera is on");
  await page.$eval("#video", (video) => video.srcObject.getVideoTracks()[0].dispatchEvent(new Event("ended")));
  await says(page, "camera has gone");
  assert(await page.$eval("#video", (video) => video.hidden && !video.srcObject));
  assert.deepEqual(page.faults, []);
  await browser.close();

  // A browser without a camera: what is known of the picture on display stays.
  const without = await launch();
  const bare = await open(without, address);
  await ready(bare);
  await show(bare, two);
  await bare.click("#camera");
  await bare.waitForFunction(() => document.getElementById("message").classList.contains("bad"));
  assert.equal(await bare.locator("#boxes button").count(), 2, "the boxes of the picture");
  await without.close();
}

/** Two people before the camera, whose faces come in another order with every frame: the one that is selected stays so. */
async function company(address) {
  const browser = await withCamera("company", two, 1.05);
  const page = await open(browser, address, { colorScheme: "dark", permissions: ["camera"] });
  const isRight = (image) => (face) => face.box[0] + face.box[2] / 2 > image.width / 2;
  let [answers, hidden] = [0, false];
  await page.routeWebSocket(/stream/, (socket) => {
    socket.connectToServer().onMessage((message) => {
      const image = JSON.parse(message);
      image.faces.sort((a, b) => a.box[0] - b.box[0]);
      if (answers++ % 2) image.faces.reverse();
      if (hidden) image.faces = image.faces.filter((face) => !isRight(image)(face));
      socket.send(JSON.stringify(image));
    });
  });
  await page.reload();
  await ready(page);
  await page.click("#camera");
  await page.waitForFunction(() => document.querySelectorAll("#boxes button").length === 2);
  // The page shows a mirror image: who is right in the frame is left on the page.
  const label = await page.evaluate(() => {
    const place = (box) => box.getBoundingClientRect().left;
    const [left] = [...document.querySelectorAll("#boxes button")].sort((a, b) => place(a) - place(b));
    left.focus();
    left.click();
    return left.textContent.split(" ")[0];
  });
  const seen = new Set();
  for (const [last, end] = [answers + 20, Date.now() + 15000]; answers < last || Date.now() < end;) {
    const now = await page.evaluate(() => {
      const chosen = document.querySelector("#boxes [aria-pressed=true]");
      const side = parseFloat(chosen?.style.left) < 50 ? "left" : "right";
      return [document.getElementById("who").textContent, side, document.activeElement === chosen].join();
    });
    seen.add(now);
    await page.waitForTimeout(30);
  }
  assert.deepEqual([...seen], ["Face 2 of 2,left,true"], "number, side and focus of the selected face");
  const trend = await page.textContent("#trend");
  assert(new RegExp(`on average ${label} [6-9]\\d`).test(trend), `${trend} of one face, not of two: ${label}`);
  await shoot(page, "camera-dark");
  // Out of sight for a moment: nobody takes the place, and the timeline has a gap.
  const gaps = () => page.$eval("#timeline path", (path) => path.getAttribute("d").split("M").length - 2);
  const before = await gaps();
  hidden = true;
  await page.waitForFunction(() => document.getElementById("who").textContent === "Out of sight");
  assert.equal(await page.locator("#boxes [aria-pressed=true]").count(), 0);
  hidden = false;
  await page.waitForFunction(() => parseFloat(document.querySelector("#boxes [aria-pressed=true]")?.style.left) < 50);
  assert((await gaps()) > before, "a gap in the timeline");
  // For good: then it is somebody else's turn, and their timeline.
  hidden = true;
  await page.waitForFunction(() => parseFloat(document.querySelector("#boxes [aria-pressed=true]")?.style.left) > 50);
  assert.equal(await gaps(), 0);
  assert.deepEqual(page.faults, []);
  await page.context().close();

  const phone = await open(browser, address, { ...PHONE, permissions: ["camera"] });
  await ready(phone);
  await phone.tap("#camera");
  await says(phone, "frames a second", "rate");
  await phone.waitForFunction(() => document.querySelectorAll("#boxes button").length === 2);
  await boxesAreInside(phone);
  await isNotWiderThanThePhone(phone);
  const drawing = await phone.locator("#timeline svg").boundingBox();
  assert(drawing.x >= 0 && drawing.width > 250 && drawing.x + drawing.width <= PHONE.viewport.width, JSON.stringify(drawing));
  await shoot(phone, "phone-camera");
  assert.deepEqual(phone.faults, []);
  await browser.close();
}

async function locked() {
  const server = await serve({ VULTUS_TOKEN: TOKEN });
  const browser = await launch();
  const page = await open(browser, server.address);
  await page.waitForSelector("#lock[open]");
  // It can be left, with what was typed forgotten, and comes back when it is wanted.
  await page.fill("#token", "half-a-tok");
  await page.keyboard.press("Escape");
  await page.waitForTimeout(500);
  assert.equal(await page.locator("#lock[open]").count(), 0, "the dialog is closed and stays so");
  await tabTo(page, "#unlock");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#lock[open]");
  assert.equal(await page.inputValue("#token"), "");
  await page.click("#later");
  // What is put off is not done later, unasked.
  await page.click("#camera");
  await page.waitForSelector("#lock[open]");
  await page.click("#later");
  await page.setInputFiles("#file", portrait);
  await page.waitForSelector("#lock[open]");
  await page.fill("#token", "not-the-token");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#lock[open] #wrong:not(:empty)");
  await shoot(page, "locked");
  await page.fill("#token", "two words here");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#lock[open] #wrong:not(:empty)");
  await page.fill("#token", ` ${TOKEN} `);
  await page.keyboard.press("Enter");
  await ready(page);
  // The picture that was wanted.
  await says(page, "^One face, .* ms$");
  assert.equal(await page.locator("#boxes button").count(), 1);
  await show(page, two);
  assert.equal(await page.locator("#boxes button").count(), 2);
  assert(await page.locator("#metrics").isHidden(), "a link that would be refused");
  assert(await page.locator("#unlock").isHidden(), "there is nothing to unlock");
  // The refusals themselves are on the console; nothing else.
  assert(page.faults.every((fault) => fault.includes("401")), page.faults.join("\n"));
  await browser.close();
  assert.equal(await server.stop(), 0, "the server ends well");
}

async function main() {
  await draw();
  const server = await serve();
  try {
    await pictures(server.address);
    await brought(server.address);
    await early(server.address);
    await keyboard(server.address);
    await camera(server.address);
    await company(server.address);
    await locked();
    await abstaining();
  } finally {
    await server.stop();
  }
  console.log(`all is well; screenshots are in ${shots}`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
