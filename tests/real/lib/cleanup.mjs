// Whatever a run starts is undone when it ends, however it ends.

const undo = [];
let running;

/** Registers something to be undone at the end; returns a way to do it earlier. */
export function atEnd(action) {
  undo.push(action);
  return async () => {
    const index = undo.indexOf(action);
    if (index < 0) return;
    undo.splice(index, 1);
    await action();
  };
}

/** Undoes everything, latest first. A failure of one does not keep the others from running. */
export function cleanUp() {
  running ??= (async () => {
    for (let action = undo.pop(); action; action = undo.pop()) {
      try {
        await action();
      } catch (error) {
        console.error(`clean-up: ${error.message}`);
      }
    }
  })();
  return running;
}

for (const [signal, number] of [["SIGINT", 2], ["SIGTERM", 15], ["SIGHUP", 1]]) {
  process.once(signal, () => void cleanUp().finally(() => process.exit(128 + number)));
}

/** Ends a process group that we started. Its being gone already is fine. */
export function killGroup(pid) {
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}
