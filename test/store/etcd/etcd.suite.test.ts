/** The suite of every store, against a real etcd. */
import { hasEtcd, startEtcd } from "../../support/servers.ts";
import { storeSuite } from "../suite.ts";

if (hasEtcd()) storeSuite("etcd", () => startEtcd(), { remote: true });
