// The Control UI in Debian's Chromium, and what a person in front of it sees and does.

import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

import { atEnd } from "./cleanup.mjs";
import { chromium as executablePath, person, token } from "./settings.mjs";
import { now, pause, until } from "./time.mjs";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // Without it there is no service worker: the certificates here are made for the run.
  "--ignore-certificate-errors",
];

/** Words by which a page tells (or gives away) that something is wrong. */
const SIGNS = [
  "Restarting",
  "Suspending",
  "Suspended",
  "Starting",
  "Reconnecting",
  "interrupted",
  "disconnected",
  "disabled while",
  "unavailable",
  "1006",
  "1012",
  "Bad Gateway",
  "502",
  "503",
  "ERR_",
];
/** Those that nobody should read because a gateway restarted. */
export const ALARMS = ["interrupted", "disconnected", "1006", "1012", "Bad Gateway", "502", "503", "ERR_", "Reconnecting"];

/** A request that was answered with an error, in the gateway's shape. */
class PageRequestError extends Error {
  constructor({ code, message, retryable, retryAfterMs, details }) {
    super(message);
    Object.assign(this, { gatewayCode: code, retryable, retryAfterMs, details });
  }
}

export class Page {
  /** Every WebSocket the page opened: `{ at, hello, closed, error, frames }`. */
  sockets = [];
  /** Every event frame that it got. */
  events = [];
  /** Every request that it sent, its own and ours, and when it was `done` or `refused`. */
  sent = [];
  /** Every close of a socket, as the page was told of it. */
  closes = [];
  /** What the browser's console has as a warning or an error. */
  complaints = [];
  #waiting = new Map();
  #lastFrame = 0;
  #page;
  #directory;
  #close;

  /** `path`: by default a page with lists of things, which is what a lost connection empties. */
  static async open(road, directory, { path = "/sessions", look = {} } = {}) {
    const page = new Page();
    await page.#launch(directory, look);
    page.url = road.edge ? `${road.pageUrl}${path}` : `${road.pageUrl}${path}#token=${token}`;
    return page;
  }

  /** The same, behind the sign-in page, up to where the Control UI is connected. */
  static async signedIn(road, directory, options) {
    const page = await Page.open(road, directory, options);
    await page.load();
    await page.signIn(person);
    await until("the page to be live", () => page.helloCount > 0, { within: 30_000 });
    await page.mark();
    return page;
  }

  async #launch(directory, look) {
    this.#directory = directory;
    const profile = mkdtempSync(join(tmpdir(), "holdline-chromium-"));
    const context = await chromium.launchPersistentContext(profile, {
      executablePath,
      args: FLAGS,
      ignoreHTTPSErrors: true,
      viewport: { width: 1280, height: 800 },
      ...look,
    });
    this.#close = atEnd(async () => {
      await context.close();
      await rm(profile, { recursive: true, force: true, maxRetries: 5 });
    });
    await context.addInitScript(watchText, SIGNS);
    await context.exposeBinding("reportClose", (source, code, reason) => this.closes.push({ at: now(), code, reason }));
    await context.addInitScript(keepSockets);
    this.#page = context.pages()[0] ?? (await context.newPage());
    this.#page.on("websocket", (socket) => this.#record(socket));
    this.#page.on("console", (message) => ["warning", "error"].includes(message.type()) && this.complaints.push(`${message.text()} ${message.location().url}`));
    this.#page.on("pageerror", (error) => this.complaints.push(error.message));
  }

  #record(socket) {
    const entry = { at: now(), url: socket.url(), hello: undefined, closed: undefined, error: undefined };
    this.sockets.push(entry);
    socket.on("framereceived", ({ payload }) => {
      if (typeof payload !== "string") return;
      this.#lastFrame = now();
      if (payload.startsWith('{"type":"res"')) this.#answered(payload.match(/"id":"([^"]*)","ok":(\w+)/));
      if (payload.includes('"hello-ok"')) {
        entry.hello ??= now();
        entry.auth ??= JSON.parse(payload).payload.auth;
      } else if (payload.startsWith('{"type":"event"')) {
        this.events.push({ at: now(), ...JSON.parse(payload) });
      }
    });
    socket.on("framesent", ({ payload }) => {
      if (typeof payload !== "string" || !payload.startsWith('{"type":"req"')) return;
      const request = { at: now(), ...JSON.parse(payload) };
      this.sent.push(request);
      this.#waiting.set(request.id, request);
      this.#lastFrame = now();
    });
    socket.on("socketerror", (error) => (entry.error = error));
    socket.on("close", () => (entry.closed = now()));
  }

  /** A frame begins with whose answer it is, and whether it is a good one. */
  #answered([, id, ok]) {
    const request = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (request) request[ok === "true" ? "done" : "refused"] = now();
  }

  async load() {
    const response = await this.#page.goto(this.url, { waitUntil: "commit", timeout: 60_000 });
    return response?.status();
  }

  /** Fills the form like a person. Resolves when the next page is on its way. */
  async signIn({ name, password }) {
    await this.#page.fill("input[name=user]", name);
    await this.#page.fill("input[name=password]", password);
    await Promise.all([this.#page.waitForEvent("framenavigated"), this.#page.press("input[name=password]", "Enter")]);
  }

  /** Waits until it has fetched what it fetches after it is live: all was answered, and then it was quiet. */
  async settled() {
    const quiet = () => this.#waiting.size === 0 && now() - this.#lastFrame > 1500;
    await until("the page to have what it needs", quiet, { within: 60_000, every: 50 });
  }

  /** Signs out on holdline's page, in a tab of its own. */
  async signOut() {
    const tab = await this.#page.context().newPage();
    await tab.goto(`${this.at.origin}/.holdline/sign-in`);
    await tab.getByRole("button", { name: "Sign out" }).click();
    await tab.getByRole("button", { name: "Sign in" }).waitFor();
    // A tab that does not close by itself goes with its browser.
    await Promise.race([tab.close(), pause(2000)]);
  }

  /** The sign-in form as it stands. */
  signInForm() {
    return this.#page.evaluate(() => {
      const field = (name) => document.querySelector(`input[name=${name}]`);
      const box = document.scrollingElement;
      return {
        fits: box.scrollWidth <= innerWidth && document.querySelector("form button").getBoundingClientRect().bottom <= innerHeight,
        named: ["user", "password"].every((name) => field(name)?.labels.length === 1),
        focus: document.activeElement?.getAttribute("name"),
        name: field("user")?.value,
        password: field("password")?.value,
        alert: document.querySelector("[role=alert]")?.textContent ?? "",
      };
    });
  }

  /** Leaves a mark that a reload would wipe away. */
  mark() {
    return this.#page.evaluate(() => (globalThis.stillTheSamePage = true));
  }

  marked() {
    return this.#page.evaluate(() => globalThis.stillTheSamePage === true);
  }

  /** Types into the chat and presses Enter. */
  async say(text) {
    const box = this.#page.locator("textarea:visible").last();
    await box.click();
    await this.#page.keyboard.type(text, { delay: 10 });
    await this.#page.keyboard.press("Enter");
  }

  /** What stands in the chat's own box, and whether one can write there. */
  composer() {
    return this.#page
      .locator("textarea:visible")
      .last()
      .evaluate(({ value, disabled, readOnly }) => ({ value, disabled: disabled || readOnly }));
  }

  /** One request on the page's own socket, beside those that it sends itself. */
  async request(method, params = {}) {
    const answer = await this.#page.evaluate(([method, params]) => globalThis.askGateway(method, params), [method, params]);
    if (answer.ok) return answer.payload;
    throw answer.error ? new PageRequestError(answer.error) : new Error(answer.lost);
  }

  /** As the ledger of requests wants it. */
  outcome(error) {
    if (error instanceof PageRequestError) return "explicit";
    return error.message.includes("no open socket") ? "local" : "silent";
  }

  eventsNamed(name) {
    return this.events.filter((event) => event.event === name);
  }

  /** The page's address, without what follows it. */
  get at() {
    return new URL(this.#page.url());
  }

  cookies() {
    return this.#page.context().cookies();
  }

  /** As the figures of an outage want them: connections that were live and are closed, and when. */
  get disconnects() {
    return this.sockets.filter(({ hello, closed }) => hello && closed).map(({ closed }) => ({ at: closed }));
  }

  get failedAttempts() {
    return this.sockets.filter(({ hello, closed }) => !hello && closed).length;
  }

  /** What the gateway lets this page do, as it was told when it came in. */
  get scopes() {
    return this.sockets.at(-1)?.auth?.scopes;
  }

  get helloCount() {
    return this.sockets.filter(({ hello }) => hello).length;
  }

  firstHelloAfter(moment) {
    return this.sockets.map(({ hello }) => hello).filter((hello) => hello > moment).sort((a, b) => a - b)[0];
  }

  /** Signs that were visible after `moment`: text, how long after it came and went. */
  async signsSince(moment) {
    const seen = await this.#page.evaluate(() => globalThis.signsSeen ?? []);
    return seen
      .filter(({ last }) => last >= moment)
      .map(({ sign, line, first, last }) => ({ sign, line, from: Math.max(0, first - moment), to: last - moment }))
      .sort((a, b) => a.from - b.from);
  }

  /** The page's visible text, shadow roots included. */
  text() {
    // A page that is just being replaced has nothing to read.
    return this.#page.evaluate(() => globalThis.visibleText?.() ?? "").catch(() => "");
  }

  async screenshot(name) {
    const path = join(this.#directory, `${name}.png`);
    await this.#page.screenshot({ path }).catch(() => {});
    return path;
  }

  close() {
    return this.#close();
  }
}

/** Runs in the page: lets a test ask the gateway through the socket that the page opened. */
function keepSockets() {
  const open = new Set();
  globalThis.WebSocket = class extends globalThis.WebSocket {
    constructor(...args) {
      super(...args);
      this.addEventListener("open", () => open.add(this));
      this.addEventListener("close", ({ code, reason }) => {
        open.delete(this);
        globalThis.reportClose(code, reason);
      });
    }
  };
  let number = 0;
  globalThis.askGateway = (method, params) =>
    new Promise((resolve) => {
      const socket = [...open].at(-1);
      if (socket?.readyState !== 1) return resolve({ lost: "no open socket" });
      number += 1;
      const id = `test-${number}`;
      const done = (answer) => {
        clearTimeout(timer);
        socket.removeEventListener("message", read);
        socket.removeEventListener("close", lost);
        resolve(answer);
      };
      const lost = () => done({ lost: "the connection was closed" });
      const read = ({ data }) => {
        if (typeof data !== "string" || !data.includes(id)) return;
        const frame = JSON.parse(data);
        if (frame.type === "res" && frame.id === id) done({ ok: frame.ok, payload: frame.payload, error: frame.error });
      };
      // As long as the official client waits.
      const timer = setTimeout(() => done({ lost: "no answer in 30 s" }), 30_000);
      socket.addEventListener("message", read);
      socket.addEventListener("close", lost);
      socket.send(JSON.stringify({ type: "req", id, method, params }));
    });
}

/** Runs in the page: looks for the signs ten times a second, and remembers across reloads. */
function watchText(signs) {
  // By boxes, not by elements: the page's own elements are `display: contents`.
  const visible = (text) => {
    const range = document.createRange();
    range.selectNodeContents(text);
    if (![...range.getClientRects()].some(({ width, height }) => width > 0 && height > 0)) return false;
    return text.parentElement === null || getComputedStyle(text.parentElement).visibility === "visible";
  };
  const collect = (root, lines) => {
    for (const node of root.childNodes) {
      if (node.nodeType === 3) {
        const line = node.textContent.trim();
        if (line && visible(node)) lines.push(line);
      } else if (node.nodeType === 1 && !["SCRIPT", "STYLE", "TEMPLATE", "NOSCRIPT"].includes(node.tagName)) {
        if (node.shadowRoot) collect(node.shadowRoot, lines);
        collect(node, lines);
      }
    }
    return lines;
  };
  globalThis.visibleText = () => (document.body ? collect(document.body, []).join("\n") : "");
  const key = "holdline-test-signs";
  const restore = () => {
    try {
      return JSON.parse(sessionStorage.getItem(key) ?? "[]");
    } catch {
      return [];
    }
  };
  globalThis.signsSeen = restore();
  setInterval(() => {
    const at = performance.timeOrigin + performance.now();
    const lines = document.body ? collect(document.body, []) : [];
    for (const line of lines) {
      const sign = signs.find((candidate) => line.includes(candidate));
      if (!sign || line.length > 300) continue;
      const known = globalThis.signsSeen.find((entry) => entry.line === line && at - entry.last < 1000);
      if (known) known.last = at;
      else globalThis.signsSeen.push({ sign, line, first: at, last: at });
    }
    try {
      sessionStorage.setItem(key, JSON.stringify(globalThis.signsSeen.slice(-100)));
    } catch {}
  }, 100);
}
