// Talks to the server: the model's facts, pictures, and frames of the camera. Knows nothing of the page.

/** What the server answered instead of a result. */
export class Refusal extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

let token = "";

/** The token for all that follows. */
export function useToken(value) {
  token = value.trim();
}

/** Whether there is one. */
export const hasToken = () => token !== "";

async function ask(path, options = {}) {
  // No header could carry it.
  if (!/^[\x21-\x7e]*$/.test(token)) throw new Refusal("unauthorized", "This is no token.");
  const headers = token ? { authorization: `Bearer ${token}` } : {};
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...headers, ...options.headers } });
  } catch {
    throw new Refusal("unreachable", "The server cannot be reached.");
  }
  const body = await response.json().catch(() => null);
  if (response.ok && body === null) throw new Refusal("unknown", "The server's answer cannot be read.");
  if (!response.ok) {
    throw new Refusal(body?.error?.code ?? "unknown", body?.error?.message ?? `The server answered ${response.status}.`);
  }
  return body;
}

/** The model card. */
export const card = () => ask("/v1/model");

/** What is in a picture (a Blob), unless `signal` takes the question back. */
export async function analyze(picture, signal) {
  const body = await ask("/v1/analyze", {
    method: "POST",
    body: picture,
    signal,
    headers: { "content-type": "application/octet-stream" },
  });
  return body.images[0];
}

/** Opens a stream of frames. `answer` is called with what is in each, `ended` once at the end. */
export function openStream(answer, ended) {
  const address = new URL("/v1/stream", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  // A page cannot set headers here: the token travels as a subprotocol.
  const bearer = btoa(token).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const socket = new WebSocket(address, token ? ["vultus", `bearer.${bearer}`] : ["vultus"]);
  socket.addEventListener("message", (event) => answer(JSON.parse(event.data)));
  socket.addEventListener("close", (event) => ended(event.reason));
  return {
    opened: new Promise((resolve, reject) => {
      socket.addEventListener("open", resolve);
      socket.addEventListener("error", () => reject(new Refusal("stream", "The camera's stream to the server cannot be opened.")));
    }),
    send: (frame) => socket.readyState === WebSocket.OPEN && socket.send(frame),
    close: () => socket.close(),
  };
}
