export async function replaceHolder(_a: unknown, _b: unknown) {}
