// What was measured and what was asserted, for people: a line per scenario
// while it runs, a table and the count at the end.

import { availableParallelism, loadavg } from "node:os";

import { seconds } from "./time.mjs";

/**
 * The machine is noisy (two cores, shared with the gateway's own start), so a
 * time is held to this many times its goal. The true figure is always printed.
 */
export const NOISE = 3;
/**
 * ... and one long stall of a shared machine, in milliseconds; a longer one where more wants to run
 * than there are processors for. The figures themselves are in the table.
 */
export const slack = () => 2000 * Math.max(1, loadavg()[0] / availableParallelism());

export class Report {
  rows = [];
  passed = 0;
  failures = [];
  notes = [];
  #scenario;
  #judging;

  /** `judging: false` only measures: another proxy is not held to our goals. */
  constructor(judging) {
    this.#judging = judging;
  }

  begin(scenario) {
    this.#scenario = scenario;
    console.log(`\n== ${scenario}`);
  }

  check(what, condition, detail = "") {
    const text = detail === "" ? what : `${what} (${detail.length > 200 ? `${detail.slice(0, 200)}…` : detail})`;
    if (!this.#judging) {
      console.log(`   ${condition ? "yes" : "no "}  ${text}`);
    } else if (condition) {
      this.passed += 1;
      console.log(`   ok   ${text}`);
    } else {
      this.fail(text);
    }
  }

  /** A time against its goal. `floor` is what no proxy could avoid. */
  within(what, value, goal, floor = 0) {
    const limit = floor + goal * NOISE + slack();
    const said = `${seconds(value)}, goal ${seconds(floor + goal)}, limit ${seconds(limit)}`;
    this.check(what, value !== undefined && value <= limit, said);
  }

  fail(text) {
    this.failures.push(`${this.#scenario}: ${text}`);
    console.log(`   FAIL ${text}`);
  }

  /** Something worth reading that is neither a figure of the table nor an assertion. */
  note(text) {
    console.log(`        ${text}`);
  }

  /** Measured without being judged: the scenario ran to its end. */
  measured() {
    if (!this.#judging) this.passed += 1;
  }

  row(road, figures) {
    this.rows.push({ scenario: this.#scenario, road, ...figures });
  }

  print() {
    const columns = [
      ["scenario", (row) => row.scenario],
      ["through", (row) => row.road],
      ["closed", (row) => row.disconnects ?? "-"],
      ["vs starting", (row) => signed(row.closedVsStarting)],
      ["vs ready", (row) => signed(row.closedVsReady)],
      ["failed", (row) => row.failed ?? "-"],
      ["ok/said no/local/SILENT", (row) => requests(row.requests)],
      ["usable", (row) => signed(row.usable)],
      ["outage", (row) => seconds(row.outage)],
      ["remarks", (row) => row.remarks ?? ""],
    ];
    const cells = [columns.map(([name]) => name), ...this.rows.map((row) => columns.map(([, cell]) => String(cell(row))))];
    const widths = columns.map((_, index) => Math.max(...cells.map((line) => line[index].length)));
    console.log("\nclosed: connections that the client lost, and when, measured from the moment the gateway's port was open");
    console.log("again (starting) and from /startupz = 200 (ready). failed: attempts that its owner heard of. usable: from ready");
    console.log("to the first answer. outage: from the last answer before to the first after.\n");
    for (const [number, line] of cells.entries()) {
      console.log(line.map((cell, index) => cell.padEnd(widths[index])).join("  ").trimEnd());
      if (number === 0) console.log(widths.map((width) => "-".repeat(width)).join("  "));
    }
    if (this.failures.length > 0) {
      console.log("\nfailed:");
      for (const failure of this.failures) console.log(`  ${failure}`);
    }
    console.log(`\n${this.passed} passed, ${this.failures.length} failed`);
  }
}

const signed = (ms) => (ms === undefined || Number.isNaN(ms) ? "-" : `${ms >= 0 ? "+" : ""}${(ms / 1000).toFixed(2)} s`);
const requests = (sum) => (sum ? `${sum.ok}/${sum.explicit}/${sum.local}/${sum.silent}` : "-");
