// Browsers share memory between threads only on pages served with certain headers; isolation.js adds them.

const TRIED = "isolation tried";
const PATIENCE = 5000; // milliseconds for a small script to start

/** Have the page isolated if it can be; true if it is about to load again for that. */
export async function isolate() {
  if (self.crossOriginIsolated || !self.isSecureContext || !navigator.serviceWorker) return false;
  try {
    if (sessionStorage.getItem(TRIED)) return false;
    sessionStorage.setItem(TRIED, "yes");
    await navigator.serviceWorker.register("isolation.js");
    if (!(await soon(navigator.serviceWorker.ready))) return false;
  } catch {
    return false; // storage or service workers are switched off: one thread it is
  }
  location.reload();
  return true;
}

/** What a promise gives, or nothing if that takes too long. */
function soon(promise) {
  return Promise.race([promise, new Promise((done) => setTimeout(done, PATIENCE))]);
}
