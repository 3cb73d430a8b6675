/**
 * The SQL of the request log, written and pruned by the system role over all tenants, read by the application's role
 * within one. The only index is scim_request's primary key (directory_id, id); ids are UUIDv7 and sort by time.
 */

/**
 * $1 JSON array of rows without tenant_id. The tenant comes from the directory's row, so that a request to a directory
 * which does not exist leaves nothing. A row that is there already was written by an attempt whose answer was lost.
 *
 * The commit does not wait for the disk: after a crash of the database the log may lack its last half second.
 * Measured for rows of 1.2 kB, 200 a statement: 35 µs a row; jsonb 38, unnest of 18 arrays 32 to 44 with twice the work
 * in this process, a list of 3,600 parameters 27 but another statement for each count of rows.
 */
export const WRITE = `
  with unhurried as materialized (select set_config('synchronous_commit', 'off', true))
  insert into scim_request (id, tenant_id, directory_id, token_id, at, method, path, status, scim_type, reason, detail,
    duration_ms, request_body, request_cut, response_body, response_cut, changes, change_count, dropped_before)
  select r.id, d.tenant_id, r.directory_id, r.token_id, r.at, r.method, r.path, r.status, r.scim_type, r.reason, r.detail,
    r.duration_ms, r.request_body, r.request_cut, r.response_body, r.response_cut, r.changes, r.change_count,
    r.dropped_before
  from unhurried, json_to_recordset($1::json) as r(id uuid, directory_id uuid, token_id uuid, at timestamptz, method text,
    path text, status smallint, scim_type text, reason text, detail text, duration_ms real, request_body text,
    request_cut boolean, response_body text, response_cut boolean, changes bigint[], change_count integer,
    dropped_before integer)
  join directory d on d.id = r.directory_id
  on conflict do nothing`;

/** A row of {@link WRITE}. */
export interface WrittenRow {
  id: string;
  directory_id: string;
  token_id: string | null;
  at: Date;
  method: string;
  path: string;
  status: number;
  scim_type: string | null;
  reason: string | null;
  detail: string | null;
  duration_ms: number;
  request_body: string | null;
  request_cut: boolean;
  response_body: string | null;
  response_cut: boolean;
  changes: readonly string[] | null;
  change_count: number;
  dropped_before: number;
}

/**
 * $1 token ids, $2 times; primary key of directory_token. One that somebody else is writing is left to the next time,
 * so that nobody waits for anybody.
 */
export const USED = `
  with unhurried as materialized (select set_config('synchronous_commit', 'off', true)),
  used as materialized (
    select t.id, u.at from unhurried, unnest($1::uuid[], $2::timestamptz[]) as u(id, at)
    join directory_token t on t.id = u.id
    where t.last_used_at is null or t.last_used_at < u.at - interval '50 seconds'
    for no key update of t skip locked
  )
  update directory_token t set last_used_at = used.at from used where t.id = used.id`;

/**
 * Deletes at most $2 entries: those below the id $1, and all of directories that are gone (a request that was under way
 * when its directory ended). Walks from directory to directory by the primary key.
 */
export const PRUNE = `
  with recursive logged (directory_id) as (
    (select directory_id from scim_request order by directory_id limit 1)
    union all
    select (select r.directory_id from scim_request r where r.directory_id > l.directory_id
      order by r.directory_id limit 1)
    from logged l where l.directory_id is not null
  ), doomed as (
    select o.directory_id, o.id
    from logged l, lateral (
      select case when exists (select from directory d where d.id = l.directory_id) then $1::uuid
        else 'ffffffff-ffff-ffff-ffff-ffffffffffff' end as bound) b, lateral (
      select r.directory_id, r.id from scim_request r
      where r.directory_id = l.directory_id and r.id < b.bound order by r.id limit $2) o
    limit $2
  )
  delete from scim_request r using doomed o where r.directory_id = o.directory_id and r.id = o.id`;

const FACTS = `id, token_id, at, method, path, status, scim_type, reason, detail, duration_ms, changes, change_count,
  dropped_before`;
const COLUMNS = `${FACTS}, request_body, request_cut, response_body, response_cut`;

/** A row as read; bigint[] comes as text. */
export interface ReadRow extends Omit<WrittenRow, 'directory_id' | 'changes'> {
  changes: string[] | null;
}

/** $1 directory, $2 id. */
export const ONE = `select ${COLUMNS} from scim_request where directory_id = $1 and id = $2`;

// $1 directory, $2 and $3 ids between which, $4 rows to look through, $5 rows to find; then the filters, null for any:
// $6 and $7 least and greatest status, $8 method, $9 scimType, $10 resource, $11 beginning of the path, $12 an id that
// stands in the path, in the body that was sent or at the beginning of the answer.
const matching = (order: 'asc' | 'desc') => `
  select ${COLUMNS} from (
    select * from scim_request where directory_id = $1 and id > $2::uuid and id < $3::uuid order by id ${order} limit $4
  ) r
  where ($6::smallint is null or status >= $6) and ($7::smallint is null or status <= $7)
    and ($8::text is null or method = $8) and ($9::text is null or scim_type = $9)
    and ($10::text is null or split_part(split_part(path, '?', 1), '/', 2) = $10)
    and ($11::text is null or starts_with(path, $11))
    and ($12::text is null or strpos(path, $12) > 0 or strpos(coalesce(request_body, ''), $12) > 0
      or strpos(left(coalesce(response_body, ''), 200), $12) > 0)
  order by id ${order} limit $5`;

export const NEWEST_FIRST = matching('desc');
export const OLDEST_FIRST = matching('asc');

/** The place of the last row that {@link NEWEST_FIRST} or {@link OLDEST_FIRST} looked through; none where it came to an end. */
const lastLookedAt = (order: 'asc' | 'desc') => `
  select id from scim_request where directory_id = $1 and id > $2::uuid and id < $3::uuid order by id ${order}
  offset $4 - 1 limit 1`;
export const LAST_OF_NEWEST = lastLookedAt('desc');
export const LAST_OF_OLDEST = lastLookedAt('asc');

/** $1 directory, $2 rows: what a diagnosis looks at, the newest first. Of lists, the beginning of what they answered. */
export const TRAFFIC = `
  select ${FACTS}, case when method = 'GET' and status = 200 then left(response_body, 300) end as list
  from scim_request where directory_id = $1 order by id desc limit $2`;
