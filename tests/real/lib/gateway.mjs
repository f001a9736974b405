// The real gateway in a throwaway home: started, stopped, killed, frozen, and
// watched from outside while it comes back. In one of two modes: "token", where
// it asks for its own secret, and "trusted-proxy", where it believes what the
// proxy in front says about who somebody is.

import { spawn } from "node:child_process";
import { mkdirSync, openSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { get } from "node:http";
import { join } from "node:path";

import { atEnd, killGroup } from "./cleanup.mjs";
import { gatewayPort, openclaw, person, reader, tlsPort, token, userHeader, witness } from "./settings.mjs";
import { now, pause, until } from "./time.mjs";

/** A start takes 8 to 15 s on an idle machine and was seen to take two minutes on a busy one. */
const START_LIMIT = 150_000;

/** What the Control UI asks for. */
const EVERY_SCOPE = ["admin", "read", "write", "approvals", "questions", "pairing"].map((scope) => `operator.${scope}`);

const auth = {
  token: { mode: "token", token },
  // The second gateway of the README: no secret of its own, authority by name.
  "trusted-proxy": {
    mode: "trusted-proxy",
    identityScopes: { [person.name]: EVERY_SCOPE, [reader.name]: ["operator.read"], [witness.name]: EVERY_SCOPE },
    trustedProxy: {
      userHeader,
      allowLoopback: true,
      requiredHeaders: ["x-forwarded-proto", "x-forwarded-host"],
      // As `holdline gateway-config` prints it: no administration for a browser by itself.
      deviceAutoApprove: { enabled: true, scopes: EVERY_SCOPE.filter((scope) => !/admin|pairing/.test(scope)) },
    },
  },
};

export const gatewayModes = Object.keys(auth);

const configuration = (mode) => ({
  gateway: {
    mode: "local",
    port: gatewayPort,
    bind: "loopback",
    auth: auth[mode],
    trustedProxies: ["127.0.0.1", "::1"],
    controlUi: { allowedOrigins: [`https://localhost:${tlsPort}`, `https://127.0.0.1:${tlsPort}`] },
  },
});

export class Gateway {
  #child;
  #log;
  #home;
  #stop;

  constructor(directory, mode) {
    this.mode = mode;
    this.#home = join(directory, `gateway-home-${mode}`);
    this.logFile = join(directory, `gateway-${mode}.log`);
    mkdirSync(join(this.#home, ".openclaw"), { recursive: true });
    mkdirSync(join(this.#home, "tmp"));
    writeFileSync(join(this.#home, ".openclaw/openclaw.json"), JSON.stringify(configuration(mode), null, 2));
    this.#log = openSync(this.logFile, "a");
    this.#stop = atEnd(async () => {
      if (!this.running) return;
      killGroup(this.#child.pid);
      await this.#child.gone;
    });
  }

  get running() {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Starts the process and returns at once: `outage` or `untilReady` tell when it is usable. */
  start() {
    if (this.running) throw new Error("the gateway runs already");
    const child = spawn(process.execPath, [openclaw, "gateway", "run", "--port", String(gatewayPort)], {
      env: environment(this.#home),
      cwd: this.#home,
      stdio: ["ignore", this.#log, this.#log],
      detached: true,
    });
    this.#child = child;
    this.#child.gone = new Promise((resolve) => child.once("exit", resolve));
  }

  signal(name) {
    this.#child.kill(name);
  }

  /** Sends a signal that ends the process, and waits until it has. */
  async end(signal) {
    const child = this.#child;
    child.kill(signal);
    await child.gone;
  }

  /** Ends it for good: another one wants its port. */
  stop() {
    return this.#stop();
  }

  async ensureReady() {
    if (!this.running) this.start();
    await until("the gateway to be ready", () => this.running && startupStatus().then((status) => status === 200), {
      within: START_LIMIT,
      every: 50,
    });
  }
}

/** Nothing of the caller's own gateway may leak in; the mark is what `run` cleans up by. */
function environment(home) {
  const { PATH, HOLDLINE_REAL_RUN = "" } = process.env;
  return { PATH, HOLDLINE_REAL_RUN, HOME: home, TMPDIR: join(home, "tmp"), LANG: "C.UTF-8" };
}

/** HTTP status of `/startupz`, asked directly; 0 when there is no answer. */
function startupStatus() {
  return new Promise((resolve) => {
    const request = get({ host: "127.0.0.1", port: gatewayPort, path: "/startupz", agent: false, timeout: 3000 });
    request.once("response", (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.once("timeout", () => request.destroy());
    request.once("error", () => resolve(0));
  });
}

function portOpen() {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port: gatewayPort });
    const done = (open) => {
      socket.destroy();
      resolve(open);
    };
    socket.once("connect", () => done(true));
    socket.once("error", () => done(false));
  });
}

/**
 * Watches one outage from outside, every 25 ms. Call it before (or right after)
 * the fault. `down`: the port refused; `starting`: it was open again; `ready`:
 * `/startupz` said so.
 */
export function watchOutage() {
  let abandoned = false;
  const outage = { fault: now(), down: undefined, starting: undefined, ready: undefined };
  /** Stops watching: the gateway was ended on purpose before it was ready. */
  outage.abandon = () => (abandoned = true);
  outage.over = (async () => {
    const deadline = now() + START_LIMIT;
    while (outage.ready === undefined && !abandoned) {
      if (now() > deadline) throw new Error("the gateway did not come back");
      if (outage.down === undefined) {
        if (!(await portOpen())) outage.down = now();
      } else if (outage.starting === undefined) {
        if (await portOpen()) outage.starting = now();
      } else if ((await startupStatus()) === 200) {
        outage.ready = now();
      }
      if (outage.ready === undefined) await pause(25);
    }
    return outage;
  })();
  // Awaited later by the scenario; until then a failure is not "unhandled".
  outage.over.catch(() => {});
  return outage;
}
