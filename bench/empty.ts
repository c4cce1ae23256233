// The least that a compiled Bun program can be: what each command is compared with.
export {};
