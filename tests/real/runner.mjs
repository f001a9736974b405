// Runs the scenarios one after the other against a gateway in the mode that they
// want, and prints what they found. See `run` for how to start it, and README.md
// for what it is for.

import { mkdtempSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { rm } from "node:fs/promises";
import { connect } from "node:net";
import { setTimeout as wait } from "node:timers/promises";
import { parseArgs } from "node:util";

import { atEnd, cleanUp } from "./lib/cleanup.mjs";
import { Gateway, gatewayModes } from "./lib/gateway.mjs";
import { Report } from "./lib/report.mjs";
import { openRoad, roadNames } from "./lib/roads.mjs";
import { adminPort, gatewayPort, here, tlsPort } from "./lib/settings.mjs";
import { now, seconds } from "./lib/time.mjs";

const { values: options, positionals: wanted } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: "boolean", default: false },
    through: { type: "string", multiple: true, default: ["holdline"] },
    keep: { type: "boolean", default: false },
    list: { type: "boolean", default: false },
  },
});

const all = await loadScenarios();
if (options.list) {
  for (const { name, quick, compare } of all) {
    console.log(`${name}${quick ? "  quick" : ""}${compare ? "  comparable" : ""}`);
  }
  process.exit(0);
}

process.exitCode = await main();
// Clients in the middle of a backoff would keep the process alive.
process.exit();

async function main() {
  const roads = options.through.flatMap((list) => list.split(","));
  const unknown = [...wanted.filter((name) => !all.some((scenario) => scenario.name === name)), ...roads.filter((name) => !roadNames.includes(name))];
  if (unknown.length > 0) {
    console.error(`unknown: ${unknown.join(", ")}. Scenarios: ${all.map(({ name }) => name).join(" ")}. Roads: ${roadNames.join(" ")}.`);
    return 64;
  }
  for (const port of [gatewayPort, tlsPort, adminPort]) {
    if (await occupied(port)) {
      console.error(`port ${port} is in use: this suite needs ${gatewayPort}, ${tlsPort} and ${adminPort} on 127.0.0.1 for itself`);
      return 64;
    }
  }
  const directory = mkdtempSync(join(tmpdir(), "holdline-real-"));
  const report = new Report(roads.length === 1 && roads[0] === "holdline");
  const began = now();
  // Registered first, so undone last. The files say why something failed, so they stay then.
  atEnd(async () => {
    if (options.keep || report.failures.length > 0) console.log(`\nlogs, screenshots: ${directory}`);
    else await rm(directory, { recursive: true, force: true, maxRetries: 5 });
  });
  try {
    for (const mode of gatewayModes) await inMode(mode, roads, directory, report);
  } catch (error) {
    report.fail(error.stack);
  } finally {
    await cleanUp();
  }
  console.log(`took ${seconds(now() - began)}`);
  report.print();
  return report.failures.length === 0 ? 0 : 1;
}

/** One gateway at a time: they share the port, and the machine is small. */
async function inMode(mode, roads, directory, report) {
  const scenarios = all.filter((scenario) => (scenario.gateway ?? "token") === mode);
  if (!roads.some((name) => scenarios.some((scenario) => chosen(scenario, name)))) return;
  const gateway = new Gateway(directory, mode);
  console.log(`\nstarting the gateway, ${mode} mode (log: ${gateway.logFile})`);
  await gateway.ensureReady();
  for (const name of roads) await throughRoad(name, scenarios, gateway, directory, report);
  await gateway.stop();
}

async function throughRoad(name, scenarios, gateway, directory, report) {
  for (const scenario of scenarios.filter((scenario) => chosen(scenario, name))) {
    report.begin(`${scenario.name}`);
    const began = now();
    const place = join(directory, `${scenario.name}-${name}`);
    let road;
    try {
      await gateway.ensureReady();
      // A proxy of its own for every scenario: none inherits what another did to it.
      road = await openRoad(name, place, scenario.road);
      const run = scenario.run({ gateway, road, report, directory: place });
      await Promise.race([run, tooLong()]);
      report.measured();
    } catch (error) {
      report.fail(error.message);
      report.note(error.stack);
    } finally {
      await road?.close();
    }
    report.note(`${name}, ${seconds(now() - began)}`);
  }
}

/** The longest scenario takes three minutes on a busy machine; one that hangs must not take the others with it. */
async function tooLong() {
  await wait(480_000, undefined, { ref: false });
  throw new Error("gave up after 8 min: the scenario hangs");
}

function chosen(scenario, road) {
  if (road !== "holdline" && !scenario.compare) return false;
  if (wanted.length > 0) return wanted.includes(scenario.name);
  return !options.quick || scenario.quick;
}

async function loadScenarios() {
  const files = readdirSync(join(here, "scenarios")).filter((file) => file.endsWith(".mjs")).sort();
  const modules = await Promise.all(files.map((file) => import(`./scenarios/${file}`)));
  return modules.flatMap((module) => module.scenarios);
}

function occupied(port) {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port });
    socket.once("connect", () => (socket.destroy(), resolve(true)));
    socket.once("error", () => resolve(false));
  });
}
