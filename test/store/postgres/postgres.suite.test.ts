/** The suite of every store, against a real PostgreSQL. */
import { hasPostgres, startPostgres } from "../../support/servers.ts";
import { storeSuite } from "../suite.ts";

if (hasPostgres()) storeSuite("postgres", () => startPostgres(), { remote: true, shared: true });
