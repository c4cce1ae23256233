/** The floor of `wrap`: a compiled Bun program that only starts the command and exits with its status. */
const child = Bun.spawnSync(process.argv.slice(2), { stdio: ["inherit", "inherit", "inherit"] });
process.exit(child.exitCode);
