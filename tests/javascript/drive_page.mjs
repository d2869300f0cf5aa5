// Uses the page as a person would, in headless Chromium, and writes what it shows and saves.
//
//   node drive_page.mjs PAGE FOLDER MODEL CHROMIUM
//
// FOLDER gets a screenshot, attribution and picture per step, and report.json.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [page_url, folder, model, executablePath] = process.argv.slice(2);
const MINUTE = 60_000;
const report = { steps: [], errors: [] };

mkdirSync(folder, { recursive: true });
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
try {
  const context = await browser.newContext({
    viewport: { width: 1180, height: 980 },
    acceptDownloads: true,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(MINUTE);
  page.on("console", (message) => message.type() === "error" && report.errors.push(message.text()));
  page.on("pageerror", (error) => report.errors.push(String(error)));
  page.on("request", (request) => {
    const { protocol, origin } = new URL(request.url());
    if (!["blob:", "data:"].includes(protocol) && origin !== new URL(page_url).origin)
      report.errors.push(`asked ${request.url()}`);
  });
  await page.goto(`${page_url}?model=${model}`);
  await (model === "digits" ? digits(page) : photos(page));
} finally {
  writeFileSync(join(folder, "report.json"), JSON.stringify(report));
  await browser.close();
}

async function digits(page) {
  await step(page, "first");
  await page.getByRole("button", { name: "digit 3" }).click();
  await step(page, "another_picture");
  await page.getByLabel("Compared with").selectOption("A white image");
  await step(page, "another_baseline");
  await page.getByRole("radio", { name: /^8,/ }).check();
  await step(page, "another_class");
  await drop(page, "samples/digit_7.png");
  await step(page, "dropped");
  await page.locator("#file").setInputFiles({
    name: "not a picture.png",
    mimeType: "image/png",
    buffer: Buffer.from("text"),
  });
  await page.getByText("That did not work").waitFor();
  report.failure = await page.locator("#completeness").textContent();
}

async function photos(page) {
  await step(page, "strength");
  await slide(page, "share", 60);
  await slide(page, "opacity", 70);
  await picture(page, "threshold");
  await page.getByRole("radio", { name: "For and against" }).check();
  await slide(page, "share", 100);
  await picture(page, "signs");
  await page.screenshot({ path: join(folder, "signs_page.png"), fullPage: true });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.getByRole("radio", { name: "Strength" }).check();
  await page.screenshot({ path: join(folder, "dark_page.png"), fullPage: true });
  await page.setViewportSize({ width: 390, height: 844 });
  await page.screenshot({ path: join(folder, "phone_page.png"), fullPage: true });
  report.widest = await page.evaluate(() => document.documentElement.scrollWidth);

  await page.getByLabel("Another class").fill("tabby");
  await page.getByLabel("Another class").press("Enter");
  await page.getByRole("button", { name: "Stop" }).waitFor();
  await page.screenshot({ path: join(folder, "busy_page.png") });
  // The page answers while the worker computes: the button is there until that is done.
  await slide(page, "opacity", 30);
  await page.getByRole("button", { name: "Stop" }).click();
  await page.getByRole("button", { name: "Explain again" }).waitFor();
}

/** Wait until an explanation is there; write it down. */
async function step(page, name) {
  const place = page.locator("#completeness[data-delta]");
  await place.waitFor({ timeout: 5 * MINUTE });
  const shown = await place.evaluate(({ dataset }) => ({ ...dataset }));
  const probabilities = await page.locator("#classes output").allTextContents();
  const classes = await page.locator("#classes b").allTextContents();
  const downloading = page.waitForEvent("download");
  await page.getByRole("button", { name: "Save the numbers" }).click();
  await (await downloading).saveAs(join(folder, `${name}.npy`));
  report.steps.push({
    name,
    ...shown,
    answer: await page.locator("#answer").textContent(),
    probabilities,
    classes,
    isolated: await page.evaluate(() => self.crossOriginIsolated),
  });
  await picture(page, name);
  await page.screenshot({ path: join(folder, `${name}_page.png`), fullPage: true });
}

/** Drop a file that the page's host has. */
async function drop(page, url) {
  await page.evaluate(async (url) => {
    const blob = await (await fetch(url)).blob();
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([blob], "dropped.png", { type: "image/png" }));
    for (const name of ["dragover", "drop"]) {
      const event = new DragEvent(name, { dataTransfer, bubbles: true, cancelable: true });
      document.body.dispatchEvent(event);
    }
  }, url);
}

/** Write down the picture as the page has drawn it. */
async function picture(page, name) {
  // The page draws before the next frame.
  await page.evaluate(
    () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))),
  );
  const url = await page.locator("#canvas").evaluate((canvas) => canvas.toDataURL("image/png"));
  writeFileSync(join(folder, `${name}.png`), Buffer.from(url.split(",")[1], "base64"));
}

async function slide(page, id, value) {
  await page.locator(`#${id}`).fill(String(value));
}
