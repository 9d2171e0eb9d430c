// The page that is kept in the repository is the one that its source makes, and it is small.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, statSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { brotliDecompressSync, gunzipSync } from "node:zlib";

const web = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..");
const dist = path.join(web, "dist");

function files(folder) {
  const names = readdirSync(folder, { recursive: true, encoding: "utf8" });
  return names.filter((name) => statSync(path.join(folder, name)).isFile()).sort();
}

const isCompressed = (name) => /\.(br|gz)$/.test(name);

test("the page is built anew, and every byte is the same", { timeout: 240_000 }, () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "anode-web-"));
  try {
    const run = (command, ...args) => execFileSync(command, args, { cwd: web, stdio: ["ignore", "ignore", "inherit"] });
    run("npx", "tsc");
    run("npx", "vite", "build", "--outDir", folder, "--emptyOutDir", "--logLevel", "error");
    const advice = "run `npm install --no-save && npm run build` in web/ and commit web/dist";
    assert.deepEqual(files(folder), files(dist), advice);
    // Another version of Node may compress in another way, so what is compared is the content.
    for (const name of files(dist).filter((name) => !isCompressed(name))) {
      assert.ok(readFileSync(path.join(folder, name)).equals(readFileSync(path.join(dist, name))), `${name}: ${advice}`);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("docs/page.md tells how it is built", () => {
  const lines = readFileSync(path.join(web, "../docs/page.md"), "utf8").split("\n");
  assert.ok(lines.includes("cd web && npm install --no-save && npm run build"));
  // This is what the test above runs.
  assert.equal(JSON.parse(readFileSync(path.join(web, "package.json"), "utf8")).scripts.build, "tsc && vite build");
});

test("compressed files hold what the plain ones do", () => {
  const compressed = files(dist).filter(isCompressed);
  assert.ok(compressed.length > 0);
  for (const name of compressed) {
    const bytes = readFileSync(path.join(dist, name));
    const plain = name.endsWith(".br") ? brotliDecompressSync(bytes) : gunzipSync(bytes);
    assert.ok(plain.equals(readFileSync(path.join(dist, name.slice(0, -3)))), name);
  }
});

test("the page takes at most 200 KB, and its HTML has no code", () => {
  const sizes = files(dist)
    .filter((name) => !isCompressed(name))
    .map((name) => Math.min(...[name, `${name}.br`].filter((one) => files(dist).includes(one)).map((one) => statSync(path.join(dist, one)).size)));
  const all = sizes.reduce((sum, size) => sum + size, 0);
  assert.ok(all <= 200 * 1024, `${all} bytes`);
  const html = readFileSync(path.join(dist, "index.html"), "utf8");
  assert.doesNotMatch(html, /<style|style=|<script(?![^>]*src=)|https?:/);
});
