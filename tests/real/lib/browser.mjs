// The Control UI in Debian's Chromium, and what a person in front of it sees.

import { mkdtempSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

import { atEnd } from "./cleanup.mjs";
import { chromium as executablePath, token } from "./settings.mjs";
import { now } from "./time.mjs";

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
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

export class Page {
  /** Every WebSocket the page opened: `{ at, hello, closed, error }`. */
  sockets = [];
  #page;
  #directory;
  #close;

  static async open(road, directory) {
    const page = new Page();
    await page.#launch(directory);
    // A page with lists of things: what a lost connection empties.
    page.url = `${road.pageUrl}/sessions#token=${token}`;
    return page;
  }

  async #launch(directory) {
    this.#directory = directory;
    const profile = mkdtempSync(join(tmpdir(), "holdline-chromium-"));
    const context = await chromium.launchPersistentContext(profile, {
      executablePath,
      args: FLAGS,
      ignoreHTTPSErrors: true,
      viewport: { width: 1280, height: 800 },
    });
    this.#close = atEnd(async () => {
      await context.close();
      await rm(profile, { recursive: true, force: true, maxRetries: 5 });
    });
    await context.addInitScript(watchText, SIGNS);
    this.#page = context.pages()[0] ?? (await context.newPage());
    this.#page.on("websocket", (socket) => this.#record(socket));
  }

  #record(socket) {
    const entry = { at: now(), url: socket.url(), hello: undefined, closed: undefined, error: undefined };
    this.sockets.push(entry);
    socket.on("framereceived", ({ payload }) => {
      if (typeof payload === "string" && payload.includes('"hello-ok"')) entry.hello ??= now();
    });
    socket.on("socketerror", (error) => (entry.error = error));
    socket.on("close", () => (entry.closed = now()));
  }

  async load() {
    const response = await this.#page.goto(this.url, { waitUntil: "commit", timeout: 60_000 });
    return response?.status();
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
