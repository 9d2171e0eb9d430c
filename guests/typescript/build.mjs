import { componentize } from "@bytecodealliance/componentize-js";
import { readFile, writeFile } from "node:fs/promises";

const source = await readFile("middleware.js", "utf8");
const { component } = await componentize(source, {
  witWorld: await readFile(process.argv[2] ?? "../../wit/anode.wit", "utf8"),
  worldName: "middleware",
  disableFeatures: ["random", "stdio", "clocks", "http", "fetch-event"],
});
await writeFile("middleware.wasm", component);
