/** A row of the mirror, as statements yield it and as this room hands it out. */

/** A row of the mirror as read: `doc` is the resource's JSON text without id, meta, groups and members. */
export interface Stored {
  id: string;
  doc: string;
  version: number;
  createdAt: Date;
  updatedAt: Date;
  /** JSON text: a user's groups `[{value, display, type}]`, a group's members likewise; null for none or not asked. */
  related: string | null;
}

/** With outcome other than ok, everything else is null. */
export interface StoredRow {
  outcome: string;
  total?: string | null;
  id: string;
  doc: string;
  version: number;
  created_at: Date;
  updated_at: Date;
  related: string | null;
  key?: string | null;
}

export function stored(row: StoredRow): Stored {
  return {
    id: row.id,
    doc: row.doc,
    version: row.version,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    related: row.related,
  };
}
