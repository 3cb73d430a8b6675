/**
 * The request log: what each directory's identity provider asked and was told, kept for a set time, for the people who
 * look after the integration. The public face of this room. Promises: keeping it never slows or fails a request; no
 * secret of a body, a filter or a header is in it; a tenant reads its own only.
 */
export { causeOf } from './cause.ts';
export { type CredentialFacts, type DirectoryFacts, diagnose, type Finding } from './diagnosis.ts';
export {
  findRequest,
  idAt,
  type LoggedRequest,
  newestRequests,
  type Place,
  PRUNE_BATCH,
  pruneRequests,
  type RequestFilter,
  readTraffic,
  requestsAfter,
} from './reading.ts';
export { openRecorder, type Recorder } from './recorder.ts';
