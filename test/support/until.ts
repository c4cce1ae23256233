/** Waits for a condition: long enough for a slow machine, but not forever. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  context: () => string = () => "",
): Promise<void> {
  const deadline = performance.now() + 45_000;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}. ${context()}`);
    await Bun.sleep(5);
  }
}
