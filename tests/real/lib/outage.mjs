// The heart of most scenarios: a fault, what a client lives through, the figures.

import { watchOutage } from "./gateway.mjs";
import { pause, until } from "./time.mjs";

/** Ways to restart the gateway as its owner or its fate does. */
export const restarts = {
  /** A clean stop and a new process, as a service manager does it. */
  async term(gateway) {
    await gateway.end("SIGTERM");
    gateway.start();
  },
  /** The out-of-memory killer. */
  async kill(gateway) {
    await gateway.end("SIGKILL");
    gateway.start();
  },
  /** `openclaw gateway restart`: the same process begins again. */
  async inProcess(gateway) {
    gateway.signal("SIGUSR2");
  },
  /** Stopped, and started by somebody who was not at his desk. */
  async afterAMinute(gateway) {
    await gateway.end("SIGTERM");
    await pause(60_000);
    gateway.start();
  },
};

/** What a session that is put back on its own socket should live through, one restart after the other. */
export const ordeals = {
  term: [restarts.term],
  kill: [restarts.kill],
  "in-process": [restarts.inProcess],
  five: [restarts.term, restarts.kill, restarts.inProcess, restarts.kill, restarts.term],
  long: [restarts.afterAMinute],
};

/** Through one restart after the other, each when the one before is over. */
export async function throughAll(gateway, loop, faults) {
  const outages = [];
  for (const fault of faults) outages.push(await throughOutage(gateway, loop, fault));
  return outages;
}

/** The figures of several outages in a row; how soon it was usable is that of the worst. */
export function figuresOfAll(client, loop, outages) {
  const [first, last] = [outages.at(0), outages.at(-1)];
  const whole = { fault: first.fault, down: first.down, starting: last.starting, ready: last.ready };
  const usable = outages.map(({ ready }) => minus(loop.firstOkAfter(ready), ready));
  const worst = usable.includes(undefined) ? undefined : Math.max(...usable);
  return { ...figures(client, loop, whole), usable: worst };
}

/** Does `fault` to the gateway and waits until it is ready again and `loop` has had an answer since. */
export async function throughOutage(gateway, loop, fault, { patience = 45_000 } = {}) {
  const outage = watchOutage();
  await fault(gateway);
  await outage.over;
  await until("an answer after the outage", () => loop.firstOkAfter(outage.ready), { within: patience }).catch(() => {});
  return outage;
}

/** The figures of one client in one outage, in the form that the report's table wants. */
export function figures(client, loop, outage) {
  const disconnects = client.disconnects.filter(({ at }) => at >= outage.fault);
  const usableAt = loop.firstOkAfter(outage.ready);
  const closedAt = disconnects[0]?.at;
  return {
    disconnects: disconnects.length,
    closedVsStarting: minus(closedAt, outage.starting),
    closedVsReady: minus(closedAt, outage.ready),
    failed: client.failedAttempts,
    requests: loop.count(),
    usable: minus(usableAt, outage.ready),
    outage: minus(usableAt, loop.lastOkBefore(outage.down)),
  };
}

const minus = (later, earlier) => (later === undefined || earlier === undefined ? undefined : later - earlier);

/**
 * The official client waits a second between a close and its next attempt. A
 * close at the moment the port opens costs nothing when starting takes longer
 * than that, and the rest of the second when it does not.
 */
export const reconnectFloor = (outage) => Math.max(0, 1000 - (outage.ready - outage.starting));
