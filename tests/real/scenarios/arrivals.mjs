// Clients that come while the gateway is away. Proves: connecting then is not
// an error, neither when the gateway is back after 8 s nor when it takes a
// minute; the client's owner hears of no failure, and it is connected the
// moment the gateway is ready.

import { Client } from "../lib/client.mjs";
import { watchOutage } from "../lib/gateway.mjs";
import { now, pause, seconds, until } from "../lib/time.mjs";

export const scenarios = [
  { name: "connect-while-down", quick: true, compare: true, run: (stage) => arrive(stage, { away: 8_000, arrival: 0 }) },
  { name: "connect-long-outage", compare: true, run: (stage) => arrive(stage, { away: 50_000, arrival: 2_000 }) },
];

/** The gateway stays away for `away` ms before it is started; the client comes `arrival` ms after its end. */
async function arrive({ gateway, road, report }, { away, arrival }) {
  await gateway.end("SIGTERM");
  const outage = watchOutage();
  const back = pause(away).then(() => gateway.start());
  await pause(arrival);
  const came = now();
  const client = new Client(road);
  await back;
  await outage.over;
  const hello = await until("the hello", () => client.hellos[0], { within: 45_000 }).catch(() => undefined);
  const answered = hello && (await client.request("last-heartbeat").then(now, () => undefined));

  const usable = answered === undefined ? undefined : answered - outage.ready;
  report.row(road.name, {
    disconnects: client.disconnects.length,
    failed: client.failedAttempts,
    usable,
    outage: answered === undefined ? undefined : answered - came,
    remarks: `gateway away ${seconds(outage.ready - outage.fault)}`,
  });
  report.check("nothing failed that its owner hears of", client.failedAttempts === 0, client.failures.map(({ reason }) => reason).join("; "));
  report.check("no disconnect", client.disconnects.length === 0);
  report.check("told that the gateway is down", client.eventsNamed("gateway.down").length > 0 || answered - came < 13_000);
  report.within("usable after ready", usable, 250);
  await client.stop();
}
