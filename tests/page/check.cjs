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

/** Starts a server on a free port and gives its address. */
async function serve(environment = {}) {
  const options = ["model", "face-model"].flatMap((name) => (given[name] ? [`--${name}`, given[name]] : []));
  const server = spawn(given.vultus, ["serve", "--port", "0", ...options], {
    env: { ...process.env, ...environment },
    stdio: ["ignore", "pipe", "inherit"],
  });
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
  await page.waitForFunction(() => /ms$/.test(document.getElementById("message").textContent));
}

async function shoot(page, name) {
  await page.waitForTimeout(400);
  await page.screenshot({ path: path.join(shots, `${name}.jpg`), type: "jpeg", quality: 82, fullPage: true });
}

/** The sum of the bars in per cent. */
function sumOfBars(page) {
  return page.$$eval("#bars output", (outputs) => outputs.reduce((sum, output) => sum + parseFloat(output.textContent), 0));
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
  await shoot(page, "portrait");

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

  // Another picture while the first is on its way: its answer, which comes last, is shown nowhere.
  let late = null;
  await page.route("**/v1/analyze", (route) => {
    late = route;
  }, { times: 1 });
  await page.setInputFiles("#file", group);
  while (!late) await page.waitForTimeout(20);
  await show(page, portrait);
  const said = await page.textContent("#message");
  const answered = page.waitForResponse("**/v1/analyze");
  await late.continue();
  await (await answered).finished();
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

  const phone = await open(browser, address, { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true });
  await ready(phone);
  await show(phone, portrait);
  const overflow = await phone.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert(overflow <= 0, `the page is ${overflow} px wider than a phone`);
  await shoot(phone, "phone");
  assert.deepEqual(phone.faults, []);
  await browser.close();
}

/** Frames of a camera that moves before a picture, as Motion JPEG; `fit` says how the picture fills them. */
async function film(name, picture, fit) {
  const file = path.resolve(shots, `${name}.mjpeg`);
  const browser = await launch();
  const page = await browser.newPage();
  const data = `data:image/png;base64,${fs.readFileSync(picture).toString("base64")}`;
  const frames = await page.evaluate(async ({ data, fit }) => {
    const image = new Image();
    image.src = data;
    await image.decode();
    const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
    const context = canvas.getContext("2d");
    const scale = Math[fit](640 / image.width, 480 / image.height) * 1.15;
    context.fillStyle = "#a7b7bf";
    return Array.from({ length: 40 }, (_, index) => {
      const angle = (index / 40) * 2 * Math.PI;
      const [width, height] = [image.width * scale, image.height * scale];
      context.fillRect(0, 0, 640, 480);
      context.drawImage(image, (640 - width) / 2 + 20 * Math.sin(angle), (480 - height) / 2 + 12 * Math.cos(angle), width, height);
      return canvas.toDataURL("image/jpeg", 0.9).split(",")[1];
    });
  }, { data, fit });
  fs.writeFileSync(file, Buffer.concat(frames.map((frame) => Buffer.from(frame, "base64"))));
  await browser.close();
  return file;
}

/** A browser with a camera before which a picture moves. */
async function withCamera(name, picture, fit) {
  const file = await film(name, picture, fit);
  return launch("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream", `--use-file-for-fake-video-capture=${file}`);
}

async function camera(address) {
  const browser = await withCamera("camera", portrait, "max");
  const page = await open(browser, address, { colorScheme: "dark", permissions: ["camera"] });
  await ready(page);
  await page.click("#camera");
  await page.waitForFunction(() => /frames a second/.test(document.getElementById("message").textContent));
  await page.waitForTimeout(12000);
  // A finder may miss a face in one frame or another: there is one with its box, and an area in the timeline for every class.
  await page.waitForFunction(() => {
    const drawn = [...document.querySelectorAll("#timeline path")].filter((one) => one.getAttribute("d").length > 100).length;
    return document.querySelectorAll("#boxes button").length === 1 && drawn > 0 && drawn === document.querySelectorAll("#bars li").length;
  });
  assert.match(await page.textContent("#trend"), /on average/);
  console.log(`camera: ${await page.textContent("#message")}`);
  await boxesAreInside(page);
  await shoot(page, "camera-dark");
  await page.click("#camera");
  await page.waitForFunction(() => document.getElementById("video").hidden && !document.getElementById("video").srcObject);
  assert.deepEqual(page.faults, []);
  await browser.close();

  // A browser without a camera.
  const without = await launch();
  const bare = await open(without, address);
  await ready(bare);
  await bare.click("#camera");
  await bare.waitForFunction(() => document.getElementById("message").classList.contains("bad"));
  await without.close();
}

/** Two people before the camera, whose faces come in another order with every frame: the one that is selected stays so. */
async function company(address) {
  const browser = await withCamera("company", two, "min");
  const page = await open(browser, address, { permissions: ["camera"] });
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
  for (const last = answers + 20; answers < last;) {
    const now = await page.evaluate(() => {
      const chosen = document.querySelector("#boxes [aria-pressed=true]");
      const side = parseFloat(chosen?.style.left) < 50 ? "left" : "right";
      return [document.getElementById("who").textContent, side, document.activeElement === chosen].join();
    });
    seen.add(now);
  }
  assert.deepEqual([...seen], ["Face 2 of 2,left,true"], "number, side and focus of the selected face");
  const trend = await page.textContent("#trend");
  assert(new RegExp(`on average ${label} [6-9]\\d`).test(trend), `${trend} of one face, not of two: ${label}`);
  await shoot(page, "company");
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
  await browser.close();
}

async function locked() {
  const server = await serve({ VULTUS_TOKEN: TOKEN });
  const browser = await launch();
  const page = await open(browser, server.address);
  await page.waitForSelector("#lock[open]");
  await page.fill("#token", "not-the-token");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#lock[open]");
  await shoot(page, "locked");
  await page.fill("#token", TOKEN);
  await page.keyboard.press("Enter");
  await ready(page);
  await show(page, portrait);
  assert.equal(await page.locator("#boxes button").count(), 1);
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
    await camera(server.address);
    await company(server.address);
    await locked();
  } finally {
    await server.stop();
  }
  console.log(`all is well; screenshots are in ${shots}`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
