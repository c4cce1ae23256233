/** `many.ts DIRECTORY COUNT`: holds COUNT locks until stdin ends. */
import { Lock } from "../src/index.ts";

const [dir = "", count = ""] = process.argv.slice(2);
for (let i = 0; i < Number(count); i++) new Lock({ name: `many-${i}`, dir }).acquireSync();
console.log("held");
await Bun.stdin.text();
process.exit();
