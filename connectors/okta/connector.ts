/**
 * Okta by its management API: users of every status, groups and memberships, whole or since a watermark, with an API
 * token or as a service app. docs/connectors.md says which of Okta's statuses and attributes become what.
 */
import type { Connection, ConnectOptions, ConnectorKind, Fetched } from '../connector.ts';
import { changes, groupsOf } from './changes.ts';
import { openClient } from './client.ts';
import { configurationHash, type OktaConfig, oktaConfig, scopesOf } from './config.ts';
import { hint } from './hint.ts';
import { readUser } from './profile.ts';
import { type Setting, snapshot } from './snapshot.ts';
import { TUNING, type Tuning } from './transport.ts';

/** Users asked for at the same time by `get`. */
const AT_ONCE = 5;

/** @param tuning what a test or a bench sets otherwise */
export async function connectOkta(
  options: ConnectOptions<OktaConfig>,
  tuning: Partial<Tuning> = {},
): Promise<Connection> {
  const stop = new AbortController();
  const signal = AbortSignal.any([options.signal, stop.signal]);
  const tuned = { ...TUNING, ...tuning };
  const setting: Setting = {
    client: await openClient({ ...options, signal }, tuned),
    tuning: tuned,
    configuration: configurationHash(options.config),
    log: scopesOf(options.config).includes('okta.logs.read'),
  };
  return {
    snapshot: () => snapshot(setting),
    changes: (since) => changes(setting, since),
    async *get(ids, { groups = false } = {}) {
      for (let at = 0; at < ids.length; at += AT_ONCE) {
        yield await Promise.all(ids.slice(at, at + AT_ONCE).map((id) => fetchUser(setting, id, groups)));
      }
    },
    async close() {
      stop.abort(new Error('the connection to Okta was closed'));
      await setting.client.close();
    },
  };
}

async function fetchUser(setting: Setting, id: string, groups: boolean): Promise<Fetched> {
  const { client } = setting;
  const received = await client.get(`${client.orgUrl}/api/v1/users/${encodeURIComponent(id)}`);
  if (received.status === 404) return { id, user: null, groupIds: groups ? [] : null };
  const { profileNames: _, ...user } = readUser(received.value);
  // Okta takes a login in the id's place.
  if (user.id !== id) return { id, user: null, groupIds: groups ? [] : null };
  return { id, user, groupIds: groups ? ((await groupsOf(setting, id)) ?? []) : null };
}

export const kind: ConnectorKind<OktaConfig> = {
  kind: 'okta',
  config: oktaConfig,
  secrets: ['token', 'privateKey'],
  connect: (options) => connectOkta(options),
  hint,
};
