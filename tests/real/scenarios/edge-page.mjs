// The gateway in trusted-proxy mode, holdline decides who comes in: the Control
// UI in a browser, signed in on holdline's page with name and password. Proves:
// whatever restart, the page keeps its socket and is not reloaded, it may do
// what it might before, it hears what it heard before, it is live again at once,
// and nothing alarming is ever visible. What is typed into the chat meanwhile
// arrives, once, without anybody doing anything.

import { ALARMS, Page } from "../lib/browser.mjs";
import { RequestLoop } from "../lib/client.mjs";
import { watchOutage } from "../lib/gateway.mjs";
import { figuresOfAll, ordeals, throughAll } from "../lib/outage.mjs";
import { lostScopes, lostSubscriptions, newTalk, timesSaid } from "../lib/standing.mjs";
import { now, pause, seconds, until } from "../lib/time.mjs";

const edge = { gateway: "trusted-proxy", road: { auth: true } };

export const scenarios = [
  ...Object.entries(ordeals).map(([ordeal, faults]) => ({
    ...edge,
    name: `edge-page-${ordeal}`,
    quick: ordeal === "kill",
    run: (stage) => live(stage, faults),
  })),
  { ...edge, name: "edge-chat-while-down", quick: true, run: (stage) => chat(stage, { away: 4_000 }) },
  // Longer than holdline keeps what it was given to deliver, and than a client waits for an answer.
  { ...edge, name: "edge-chat-long", run: (stage) => chat(stage, { away: 45_000 }) },
];

/** What "Suspending…" and its like may last beyond the outage: the page itself draws it. */
const INDICATOR_AFTER = 1000;

async function live({ gateway, road, report, directory }, faults) {
  const talk = await newTalk();
  const page = await Page.signedIn(road, directory, { path: chatPath(talk) });
  await page.settled();
  const loop = new RequestLoop(page);
  await pause(1000); // some ordinary traffic, so that the outage meets requests in flight
  await page.screenshot("1-before");

  const began = now();
  const during = pause(2500).then(() => page.screenshot("2-during"));
  const outages = await throughAll(gateway, loop, faults);
  await during;
  const requests = await loop.settle();
  const row = { ...figuresOfAll(page, loop, outages), requests };
  await pause(INDICATOR_AFTER);
  await page.screenshot("3-after");
  const lost = await lostScopes(page, page.scopes);
  const deaf = await lostSubscriptions(page, talk);

  const signs = await page.signsSince(began);
  const last = outages.at(-1).ready - began;
  const alarms = signs.filter(({ sign }) => ALARMS.includes(sign));
  const stayed = signs.filter(({ to }) => to > last + INDICATOR_AFTER);
  report.row(road.name, { ...row, remarks: signs.map(({ line, from, to }) => `"${line.slice(0, 40)}" ${seconds(from)}-${seconds(to)}`).join("; ") });
  report.note(`refusals: ${JSON.stringify(loop.reasons())}`);
  report.note(`the browser complains: ${JSON.stringify(page.complaints.slice(0, 8))}`);

  report.check("no disconnect", row.disconnects === 0, page.closes.map(({ at, code, reason }) => `${seconds(at - began)}: ${code} ${reason}`).join("; "));
  report.check("no new socket", page.sockets.length === 1, `${page.sockets.length}`);
  report.check("the page was not reloaded", await page.marked());
  report.check("nothing alarming on the page", alarms.length === 0, alarms.map(({ line }) => line).join("; "));
  report.check("it says no longer that something is going on", stayed.length === 0, stayed.map(({ line }) => line).join("; "));
  report.check("no request without an answer", requests.silent === 0, `${requests.silent} silent`);
  report.check("it may do what it might before", lost.length === 0, lost.join("; "));
  report.check("its subscriptions are alive", deaf.length === 0, deaf.join());
  report.within("usable after ready", row.usable, 200);
  await page.close();
}

async function chat({ gateway, road, report, directory }, { away }) {
  const talk = await newTalk();
  const page = await Page.signedIn(road, directory, { path: chatPath(talk) });
  await page.settled();
  const text = "typed while the gateway was down";

  const outage = watchOutage();
  await gateway.end("SIGKILL");
  await pause(2000);
  await page.say(text);
  await pause(1000);
  await page.screenshot("1-said");
  const composer = await page.composer();
  await pause(away);
  gateway.start();
  await outage.over;
  const sends = () => page.sent.filter(({ method, params }) => method === "chat.send" && params.message === text);
  const arrived = await until("the message to arrive", () => sends().find(({ done }) => done)?.done, { within: 30_000 }).catch(() => undefined);
  await pause(10_000); // a second one would come after the first
  await page.screenshot("2-after");
  const times = await timesSaid(talk, text);
  const onPage = await page.text();
  const signs = await page.signsSince(outage.fault);

  report.row(road.name, {
    disconnects: page.disconnects.length,
    failed: page.failedAttempts,
    usable: arrived && arrived - outage.ready,
    remarks: `arrived ${times} times; the page sent it ${sends().length} times`,
  });
  report.check("the page took it", composer.value === "" && !composer.disabled, JSON.stringify(composer));
  report.check("it arrived once", times === 1, `${times} times`);
  report.check("it stands on the page once", onPage.split("\n").filter((line) => line === text).length === 1);
  const doubts = onPage.match(/Delivery unconfirmed|Not sent|Waiting for reconnect/g) ?? [];
  report.check("the page does not ask its person to do anything", doubts.length === 0, doubts.join());
  report.check("the page was not reloaded", await page.marked());
  report.check("no new socket", page.sockets.length === 1, `${page.sockets.length}`);
  const alarms = signs.filter(({ sign }) => ALARMS.includes(sign));
  report.check("nothing alarming on the page", alarms.length === 0, alarms.map(({ line }) => line).join("; "));
  // What was kept goes at once, and a gateway takes its time for the first message after a start;
  // what was given back is sent again when the page finds the time.
  const goal = sends().length > 1 ? 10_000 : 1_500;
  report.within("arrived after ready", arrived && arrived - outage.ready, goal);
  await page.close();
}

const chatPath = (key) => `/chat?session=${encodeURIComponent(key)}`;
