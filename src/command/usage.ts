export const usage = (_: string | undefined) => "usage";
