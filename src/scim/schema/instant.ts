/**
 * Points in time as SCIM writes them (RFC 7643 §2.3.5, xsd:dateTime). Promises: an instant has one spelling here, in
 * UTC with milliseconds, so that the order of the texts is the order of the instants.
 */

const SHAPE = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))?$/i;

/**
 * @param text `2026-02-03T04:05:06.789+01:00`; without a zone it is UTC, digits beyond milliseconds are cut
 * @returns `2026-02-03T03:05:06.789Z`; null for what is no date and time of the calendar
 */
export function parseInstant(text: string): string | null {
  const parts = SHAPE.exec(text);
  if (!parts) return null;
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = parts.slice(1, 7).map(Number);
  const milliseconds = Number((parts[7] ?? '').slice(0, 3).padEnd(3, '0'));
  const offsetHours = Number(parts[9] ?? 0);
  const offsetMinutes = Number(parts[10] ?? 0);
  if (hour > 23 || minute > 59 || second > 59 || offsetHours > 14 || offsetMinutes > 59) return null;
  const local = new Date(0);
  local.setUTCFullYear(year, month - 1, day);
  if (local.getUTCMonth() !== month - 1 || local.getUTCDate() !== day) return null;
  local.setUTCHours(hour, minute, second, milliseconds);
  const offset = (offsetHours * 60 + offsetMinutes) * (parts[8] === '-' ? -60_000 : 60_000);
  const instant = new Date(local.getTime() - offset).toISOString();
  return instant.length === 24 && instant >= '0001' ? instant : null;
}

/** The instant a millisecond later. */
export function nextMillisecond(instant: string): string {
  return new Date(Date.parse(instant) + 1).toISOString();
}
