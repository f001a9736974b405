// A gateway that dies again and again a second into its start, five times in a
// row: what a broken configuration or too little memory looks like.
// Proves: to its clients it is one restart, and they are told that it is a
// crash loop and not just a restart.

import { Client, RequestLoop } from "../lib/client.mjs";
import { watchOutage } from "../lib/gateway.mjs";
import { figures } from "../lib/outage.mjs";
import { now, pause, until } from "../lib/time.mjs";

const KILLS = 5;
/** How long a start lives after its port is open. */
const LIFE = 1000;

export const scenarios = [{ name: "crash-loop", quick: true, compare: true, run }];

async function run({ gateway, road, report }) {
  const person = await new Client(road).connected();
  const robot = await new Client(road, { device: false }).connected();
  const loops = { "official client": new RequestLoop(person), "same-host automation": new RequestLoop(robot) };
  await pause(1000);

  const outage = watchOutage();
  await gateway.end("SIGKILL");
  for (let kill = 1; kill < KILLS; kill += 1) {
    const attempt = watchOutage();
    gateway.start();
    await until("the next start", () => attempt.starting, { within: 150_000 });
    await until("it to come further", () => attempt.ready || now() - attempt.starting > LIFE, { within: 5_000 });
    await gateway.end("SIGKILL");
    attempt.abandon();
  }
  gateway.start();
  // The first watch saw the port open before the next kill; the last start is what counts.
  outage.restart();
  await outage.over;
  const clients = { "official client": person, "same-host automation": robot };
  for (const [who, loop] of Object.entries(loops)) {
    await until(`${who} to be answered`, () => loop.firstOkAfter(outage.ready), { within: 45_000 }).catch(() => {});
    const requests = await loop.settle();
    const client = clients[who];
    const row = { ...figures(client, loop, outage), requests };
    const downs = client.eventsNamed("gateway.down");
    const told = downs.some(({ payload }) => payload.crashLoop === true);
    report.row(road.name, { ...row, remarks: `${who}; ${downs.length} gateway.down, ${told ? "crash loop said" : "no crash loop said"}` });
    report.note(`refusals: ${JSON.stringify(loop.reasons())}`);
    report.note(`last gateway.down: ${JSON.stringify(downs.at(-1)?.payload)}`);
    const allowed = client === person ? 1 : 0;
    report.check(`${who}: ${allowed} disconnect`, row.disconnects <= allowed, `${row.disconnects}`);
    report.check(`${who}: no failed attempt`, row.failed === 0, client.failures.map(({ reason }) => reason).join("; "));
    report.check(`${who}: no request without an answer`, requests.silent === 0, `${requests.silent} silent`);
    report.check(`${who}: told that it is a crash loop`, told, `${downs.length} gateway.down events`);
    report.within(`${who}: usable after ready`, row.usable, 300, client === person ? Math.max(0, 1000 - (outage.ready - outage.starting)) : 0);
    await client.stop();
  }
}
