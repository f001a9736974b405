// openclaw-node does its handshake again, on the same socket, whenever it is
// sent another challenge. So it can be resumed though it signs. Proves: it
// keeps its socket across a restart, it is told, and it goes on by itself.

import { RequestLoop } from "../lib/client.mjs";
import { NodeClient } from "../lib/node-client.mjs";
import { figures, restarts, throughOutage } from "../lib/outage.mjs";
import { pause } from "../lib/time.mjs";

export const scenarios = [{ name: "openclaw-node-term", quick: true, compare: true, run }];

async function run({ gateway, road, report, directory }) {
  const client = await new NodeClient(road, directory).connected();
  const loop = new RequestLoop(client);
  await pause(1000);

  const outage = await throughOutage(gateway, loop, restarts.term);
  const requests = await loop.settle();
  const row = { ...figures(client, loop, outage), requests };
  report.row(road.name, { ...row, remarks: `${client.hellos.length} handshakes` });
  report.note(`refusals: ${JSON.stringify(loop.reasons())}; errors: ${client.failures.map(({ reason }) => reason).join("; ")}`);
  report.check("no disconnect", row.disconnects === 0, `${row.disconnects}`);
  report.check("it made its handshake again on the same socket", client.hellos.length === 2, `${client.hellos.length} handshakes`);
  report.check("no error that its owner hears of", row.failed === 0, client.failures.map(({ reason }) => reason).join("; "));
  report.check("no request without an answer", requests.silent === 0, `${requests.silent} silent`);
  report.within("usable after ready", row.usable, 300);
  await client.stop();
}
