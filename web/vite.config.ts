import { brotliCompressSync, constants, gzipSync } from "node:zlib";
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { defineConfig, type Plugin } from "vite";

/** Address of the node that `npx vite preview` passes requests on to. */
const node = process.env["ANODE_PAGE_NODE"] ?? "http://127.0.0.1:7070";

/** Writes a Brotli and a gzip form beside every file that they make smaller, as the node serves them. */
function compressed(): Plugin {
  let folder = "";
  return {
    name: "compressed",
    apply: "build",
    configResolved(config) {
      folder = config.build.outDir;
    },
    closeBundle() {
      for (const name of readdirSync(folder, { recursive: true, encoding: "utf8" })) {
        const path = join(folder, name);
        if (!statSync(path).isFile() || /\.(br|gz|woff2)$/.test(name)) {
          continue;
        }
        const plain = readFileSync(path);
        const params = {
          [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
          [constants.BROTLI_PARAM_SIZE_HINT]: plain.length,
        };
        for (const [suffix, small] of [
          ["br", brotliCompressSync(plain, { params })],
          ["gz", gzipSync(plain, { level: 9 })],
        ] as const) {
          rmSync(`${path}.${suffix}`, { force: true });
          if (small.length < plain.length) {
            writeFileSync(`${path}.${suffix}`, small);
          }
        }
      }
    },
  };
}

const proxy = {
  "^/(v1|metrics|healthz|readyz|publish|subscribe)": { target: node, ws: true },
};

export default defineConfig({
  plugins: [compressed()],
  // The policy of the page allows no code or files within its HTML and styles.
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 1000,
  },
  server: { proxy },
  preview: { proxy },
});
