/** The suite of every store, against a real MariaDB. */
import { hasMariadb, startMariadb } from "../../support/servers.ts";
import { storeSuite } from "../suite.ts";

if (hasMariadb()) storeSuite("mysql", () => startMariadb(), { remote: true });
