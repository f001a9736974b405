// The Control UI in a real browser, with a person in front of it. Proves: while
// the gateway restarts the page says "Restarting…" and keeps what it shows; no
// attempt fails, no error code is ever visible; it is live again at once. And a
// page opened while the gateway is down comes up by itself.

import { watchOutage } from "../lib/gateway.mjs";
import { ALARMS, Page } from "../lib/browser.mjs";
import { restarts } from "../lib/outage.mjs";
import { now, pause, seconds, until } from "../lib/time.mjs";

export const scenarios = [
  { name: "page-term", compare: true, run: (stage) => restart(stage, restarts.term) },
  { name: "page-kill", quick: true, compare: true, run: (stage) => restart(stage, restarts.kill) },
  { name: "page-load-while-down", quick: true, compare: true, run: loadWhileDown },
];

async function restart({ gateway, road, report, directory }, fault) {
  const page = await Page.open(road, directory);
  await page.load();
  await until("the page to be live", () => page.helloCount > 0, { within: 30_000 });
  await pause(3000); // what a page fetches after it is live
  await page.screenshot("1-before");

  const outage = watchOutage();
  const known = page.sockets.length;
  await fault(gateway);
  await pause(2500);
  await page.screenshot("2-during");
  await outage.over;
  // A page that was resumed on its own socket has no second hello.
  const hello = await until("the page to be live again", () => page.firstHelloAfter(outage.starting), { within: 40_000 }).catch(() => undefined);
  await pause(1500);
  await page.screenshot("3-after");

  const signs = await page.signsSince(outage.fault);
  const attempts = page.sockets.slice(known);
  const closed = page.sockets.slice(0, known).find(({ closed: at }) => at > outage.fault)?.closed;
  const failed = attempts.filter((socket) => !socket.hello).length;
  const usable = hello === undefined ? undefined : hello - outage.ready;
  report.row(road.name, {
    disconnects: page.sockets.filter(({ closed: at, hello: live }) => live && at > outage.fault).length,
    closedVsStarting: closed && closed - outage.starting,
    closedVsReady: closed && closed - outage.ready,
    failed,
    usable,
    outage: hello === undefined || closed === undefined ? undefined : hello - closed,
    remarks: signs.map(({ line, from, to }) => `"${line.slice(0, 40)}" ${seconds(from)}-${seconds(to)}`).join("; "),
  });
  const alarms = signs.filter(({ sign }) => ALARMS.includes(sign));
  report.check("nothing alarming on the page", alarms.length === 0, alarms.map(({ line }) => line).join("; "));
  report.check("it says that the gateway restarts", signs.some(({ sign, from }) => ["Restarting", "Suspending"].includes(sign) && from < 2000));
  report.check("no failed attempt", failed === 0, `${failed} of ${attempts.length}`);
  report.within("live after ready", usable, 300);
  await page.close();
}

/** How long the gateway stays away after the page was asked for: the person has time to read something. */
const AWAY = 5000;

async function loadWhileDown({ gateway, road, report, directory }) {
  await gateway.end("SIGTERM");
  const outage = watchOutage();
  const page = await Page.open(road, directory);
  const asked = now();
  const first = page.load().then(
    (status) => ({ status, after: now() - asked }),
    (error) => ({ status: error.message.match(/net::\w+/)?.[0] ?? error.message, after: now() - asked }),
  );
  await pause(AWAY);
  await page.screenshot("1-waiting");
  const text = await page.text();
  gateway.start();
  await outage.over;
  const hello = await until("the page to come up", () => page.firstHelloAfter(outage.starting), { within: 12_000 }).catch(() => undefined);
  await pause(500);
  await page.screenshot("2-after");

  const { status, after } = await first;
  const usable = hello && hello - outage.ready;
  const failed = page.sockets.filter((socket) => !socket.hello && socket.closed).length;
  report.row(road.name, {
    failed,
    usable,
    remarks: `first answer HTTP ${status} after ${seconds(after)}${hello ? "" : "; never came up by itself"}`,
  });
  report.note(`while it waits the page reads: ${JSON.stringify(text.slice(0, 300))}`);
  report.check("a page that tells what is going on", status === 503 && /gateway/i.test(text));
  report.within("it came soon", after, 1000, 500);
  report.check("no failed attempt", failed === 0, `${failed}`);
  report.within("it came up by itself", usable, 1200);
  await page.close();
}
